//! Each source in its own form over the wire, and each that is hostile.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use jiff::{Timestamp, ToSpan as _};
use parking_lot::Mutex;
use rustls::RootCertStore;
use tempfile::TempDir;

use super::words::Credentials;
use super::*;
use crate::config::{AwsVariables, Secret};
use crate::integrations::client::HttpClient;
use crate::ops::metrics::Metrics;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG";

/// A server that keeps what it was asked; `answer` writes the answer.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, kept) = (Arc::new(answer), Arc::clone(&asked));
        // They end with the process of the tests.
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let (answer, kept) = (Arc::clone(&answer), Arc::clone(&kept));
                thread::spawn(move || {
                    while let Some(request) = read(&mut stream) {
                        kept.lock().push(request.clone());
                        answer(&request, &mut stream);
                    }
                });
            }
        });
        Self { address, asked }
    }

    fn uri(&self) -> String {
        format!("http://{}", self.address)
    }

    fn count(&self) -> usize {
        self.asked.lock().len()
    }
}

/// Reads one request, its body too.
fn read(stream: &mut TcpStream) -> Option<String> {
    let mut text = String::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        text.push(char::from(byte[0]));
        if let Some(head) = text.strip_suffix("\r\n\r\n") {
            let lower = head.to_ascii_lowercase();
            let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a number"))];
            stream.read_exact(&mut body).ok()?;
            return Some(text + &String::from_utf8_lossy(&body));
        }
    }
}

fn reply(stream: &mut TcpStream, status: &str, body: &str) {
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
    drop(stream.write_all(answer.as_bytes()));
}

/// Credentials as containers and instances give them, good for that many seconds.
fn document(seconds: i64) -> String {
    let end = Timestamp::now() + seconds.seconds();
    let end = end.strftime("%Y-%m-%dT%H:%M:%SZ");
    format!(
        r#"{{"Code":"Success","LastUpdated":"2026-11-30T04:00:00Z","Type":"AWS-HMAC","AccessKeyId":"ASIAEXAMPLE","SecretAccessKey":"{SECRET}","Token":"a/token+of==","Expiration":"{end}"}}"#
    )
}

fn chain(variables: &[(&str, &str)]) -> Chain {
    let mut all = AwsVariables::default();
    variables.iter().for_each(|(name, value)| all.set(name, value));
    let client = HttpClient::new(&Arc::new(RootCertStore::empty()));
    Chain { variables: all, profile: None, region: "eu-west-1".to_owned(), client }
}

async fn fetch(variables: &[(&str, &str)]) -> Result<Credentials, String> {
    let found = chain(variables).fetch().await.map_err(|error| error.to_string());
    if let Err(message) = &found {
        assert!(!message.contains(SECRET) && message.len() < 500, "{message}");
    }
    found
}

async fn refused(variables: &[(&str, &str)]) -> String {
    fetch(variables).await.expect_err("refused")
}

fn container(server: &Server) -> [(&'static str, String); 2] {
    [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/role", server.uri())),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "Basic a2V5".to_owned()),
    ]
}

async fn fetch_from_container(server: &Server) -> Result<Credentials, String> {
    let variables = container(server);
    fetch(&variables.each_ref().map(|(name, value)| (*name, value.as_str()))).await
}

#[tokio::test]
async fn variables_come_first() {
    let mut variables = vec![
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere"),
        ("AWS_PROFILE", "nobody"),
    ];
    let found = fetch(&variables).await.expect("keys");
    assert_eq!((found.key_id.as_str(), found.secret.expose()), ("AKIDEXAMPLE", SECRET));
    assert_eq!((found.session_token, found.expires), (None, None));
    variables.push(("AWS_SESSION_TOKEN", "token"));
    let found = fetch(&variables).await.expect("keys");
    assert_eq!(found.session_token.as_ref().map(Secret::expose), Some("token"));
    assert!(!format!("{found:?}").contains(SECRET), "{found:?}");
    assert!(refused(&variables[..1]).await.contains("set both"));
    assert!(refused(&[variables[0], ("AWS_SECRET_ACCESS_KEY", "a\nb")]).await.contains("blanks"));
    // An empty variable is not set.
    let empty = [("AWS_ACCESS_KEY_ID", ""), ("AWS_EC2_METADATA_DISABLED", "true")];
    assert!(refused(&empty).await.contains("set AWS_ACCESS_KEY_ID and"));
}

const CREDENTIALS_FILE: &str = "# ours
[default]
aws_access_key_id = AKIDDEFAULT
aws_secret_access_key=s/1+= # a comment

[ other ]
AWS_ACCESS_KEY_ID=AKIDOTHER
aws_secret_access_key = s2
aws_session_token = t2
";

const CONFIG_FILE: &str = "[default]
region = eu-west-1
s3 =
  aws_access_key_id = AKIDNESTED
[profile role]
role_arn = arn:aws:iam::123456789012:role/x
web_identity_token_file = /nowhere/token
[profile sso]
sso_session = me
[profile process]
credential_process = /bin/true
[profile half]
aws_access_key_id = AKIDHALF
";

fn home() -> TempDir {
    let home = tempfile::tempdir().expect("a folder");
    fs::create_dir(home.path().join(".aws")).expect("a folder");
    fs::write(home.path().join(".aws/credentials"), CREDENTIALS_FILE).expect("a file");
    fs::write(home.path().join(".aws/config"), CONFIG_FILE).expect("a file");
    home
}

#[tokio::test]
async fn profiles_are_read_as_the_command_line_does() {
    let home = home();
    let path = home.path().to_str().expect("UTF-8");
    for (profile, id, secret, token) in
        [("default", "AKIDDEFAULT", "s/1+=", None), ("other", "AKIDOTHER", "s2", Some("t2"))]
    {
        let found = fetch(&[("HOME", path), ("AWS_PROFILE", profile)]).await.expect("keys");
        assert_eq!((found.key_id.as_str(), found.secret.expose()), (id, secret));
        assert_eq!(found.session_token.as_ref().map(Secret::expose), token);
    }
    for (profile, part) in [
        ("nobody", "it is not there"),
        ("sso", "sso_session is not read here"),
        ("process", "credential_process is not read here"),
        ("half", "set both"),
        ("role", "/nowhere/token: No such file"),
    ] {
        let message = refused(&[("HOME", path), ("AWS_PROFILE", profile)]).await;
        assert!(message.contains(part), "{profile}: {message}");
    }
    // The setting is stronger than variables, keys among them.
    let keys = [("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "s"), ("HOME", path)];
    let other = Chain { profile: Some("other".to_owned()), ..chain(&keys) };
    assert_eq!(other.fetch().await.expect("keys").key_id, "AKIDOTHER");
    let folder = [("AWS_SHARED_CREDENTIALS_FILE", path), ("AWS_PROFILE", "other")];
    assert!(refused(&folder).await.contains("it is a directory"));
}

#[tokio::test]
async fn a_container_is_asked_with_its_token() {
    let server = Server::start(|_, stream| reply(stream, "200 OK", &document(3_600)));
    let found = fetch_from_container(&server).await.expect("keys");
    assert_eq!((found.key_id.as_str(), found.secret.expose()), ("ASIAEXAMPLE", SECRET));
    assert_eq!(found.session_token.as_ref().map(Secret::expose), Some("a/token+of=="));
    let left = found.left(SystemTime::now()).expect("an end").as_secs();
    assert!((3_590..=3_600).contains(&left), "{left}");
    // That of a file is stronger, and read each time.
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "from-a-file\n").expect("a file");
    let [uri, token] = container(&server);
    let path = file.path().to_str().expect("UTF-8");
    let variables = [
        (uri.0, uri.1.as_str()),
        (token.0, token.1.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", path),
    ];
    fetch(&variables).await.expect("keys");
    let asked = server.asked.lock().clone();
    assert!(asked[0].starts_with("GET /role HTTP/1.1\r\n"), "{asked:?}");
    assert!(asked[0].contains("authorization: Basic a2V5\r\n"), "{asked:?}");
    assert!(asked[1].contains("authorization: from-a-file\r\n"), "{asked:?}");
}

#[tokio::test]
async fn no_secret_is_asked_for_in_the_open() {
    for uri in ["http://example.com/role", "http://10.0.0.1/role", "ftp://127.0.0.1/", "/role"] {
        let message = refused(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri)]).await;
        assert!(message.contains("the container's endpoint: "), "{uri}: {message}");
    }
    for (uri, may) in [
        ("http://169.254.170.23/v1/credentials", true),
        ("http://[fd00:ec2::23]/v1/credentials", true),
        ("http://[::1]:80/", true),
        ("http://localhost:1/", true),
        ("http://169.254.170.3/", false),
        ("http://127.0.0.1.example/", false),
    ] {
        let asked = container::Container::of(
            &chain(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri)]).variables,
        );
        assert_eq!(asked.is_ok(), may, "{uri}");
    }
}

#[tokio::test]
async fn an_instance_is_asked_by_the_second_version_alone() {
    let server = Server::start(|request, stream| {
        let line = request.lines().next().unwrap_or_default();
        let has_token = request.contains("x-aws-ec2-metadata-token: TOKEN\r\n");
        match line.rsplit_once(' ').map_or(line, |(line, _)| line) {
            "PUT /latest/api/token" => reply(stream, "200 OK", "TOKEN"),
            "GET /latest/meta-data/iam/security-credentials/" if has_token => {
                reply(stream, "200 OK", "my-role\n");
            }
            "GET /latest/meta-data/iam/security-credentials/my-role" if has_token => {
                reply(stream, "200 OK", &document(3_600));
            }
            _ => reply(stream, "401 Unauthorized", ""),
        }
    });
    let endpoint = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &*server.uri());
    assert_eq!(fetch(&[endpoint]).await.expect("keys").key_id, "ASIAEXAMPLE");
    assert!(server.asked.lock()[0].contains("x-aws-ec2-metadata-token-ttl-seconds: 60\r\n"));
    let without_role = Server::start(|request, stream| match request.starts_with("PUT") {
        true => reply(stream, "200 OK", "TOKEN"),
        false => reply(stream, "404 Not Found", "<html>"),
    });
    let endpoint = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &*without_role.uri());
    assert!(refused(&[endpoint]).await.contains("answered 404 Not Found where"));
    let strange = Server::start(|_, stream| reply(stream, "200 OK", "../../user-data"));
    let endpoint = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &*strange.uri());
    assert!(refused(&[endpoint]).await.contains("where the instance's role is named"));
    assert_eq!(strange.count(), 2, "nobody follows such a name");
}

const ASSUMED: &str = "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">
  <AssumeRoleWithWebIdentityResult>
    <SubjectFromWebIdentityToken>system:serviceaccount:default:gatecast</SubjectFromWebIdentityToken>
    <AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/x/gatecast</Arn><AssumedRoleId>AROA:gatecast</AssumedRoleId></AssumedRoleUser>
    <Credentials>
      <SessionToken>AQoDYXdz/+token==</SessionToken>
      <SecretAccessKey>wJalrXUtnFEMI/K7MDENG</SecretAccessKey>
      <Expiration>2099-01-01T00:00:00Z</Expiration>
      <AccessKeyId>ASIAASSUMED</AccessKeyId>
    </Credentials>
  </AssumeRoleWithWebIdentityResult>
  <ResponseMetadata><RequestId>a</RequestId></ResponseMetadata>
</AssumeRoleWithWebIdentityResponse>";

const DENIED: &str = "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>InvalidIdentityToken</Code><Message>a.b.c is bad</Message></Error></ErrorResponse>";

#[tokio::test]
async fn a_role_is_assumed_with_the_token_of_a_file() {
    let server = Server::start(|request, stream| match request.contains("=good%2Etoken%2B%2F") {
        true => reply(stream, "200 OK", ASSUMED),
        false => reply(stream, "400 Bad Request", DENIED),
    });
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "good.token+/\n").expect("a file");
    let (endpoint, path) = (server.uri(), file.path().to_str().expect("UTF-8").to_owned());
    let variables = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", path.as_str()),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/x"),
        ("AWS_ENDPOINT_URL_STS", &endpoint),
    ];
    let found = fetch(&variables).await.expect("keys");
    assert_eq!((found.key_id.as_str(), found.secret.expose()), ("ASIAASSUMED", SECRET));
    assert_eq!(found.session_token.as_ref().map(Secret::expose), Some("AQoDYXdz/+token=="));
    assert_eq!(found.expires, Some("2099-01-01T00:00:00Z".parse().expect("a time")));
    let request = server.asked.lock()[0].clone();
    assert!(request.starts_with("POST / HTTP/1.1\r\n"), "{request}");
    assert!(
        request.ends_with("\r\n\r\nAction=AssumeRoleWithWebIdentity&Version=2011%2D06%2D15&RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fx&RoleSessionName=gatecast&WebIdentityToken=good%2Etoken%2B%2F"),
        "{request}"
    );
    fs::write(file.path(), "bad").expect("a file");
    let message = refused(&variables).await;
    assert!(message.contains("400 Bad Request InvalidIdentityToken"), "{message}");
    assert!(refused(&variables[..1]).await.contains("AWS_ROLE_ARN is not"));
}

#[tokio::test]
async fn hostile_sources_are_refused_in_time_and_bytes() {
    type Answer = fn(&str, &mut TcpStream);
    let answers: [(Answer, &str); 10] = [
        (
            |_, stream| {
                let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                drop(stream.write_all(head));
                while stream.write_all(b"400\r\n").is_ok()
                    && stream.write_all(&[b' '; 1_024]).is_ok()
                    && stream.write_all(b"\r\n").is_ok()
                {}
            },
            "length limit exceeded",
        ),
        (
            |_, stream| {
                drop(stream.write_all(b"HTTP/1.1 200 OK\r\n"));
                while stream.write_all(b"X-Header: and another one\r\n").is_ok() {}
            },
            "127.0.0.1",
        ),
        (|_, _| thread::park(), "has not answered within 4s"),
        (
            |_, stream| reply(stream, "200 OK", "<html>wJalrXUtnFEMI/K7MDENG</html>"),
            "line 1, column 1",
        ),
        (
            |_, stream| {
                reply(stream, "200 OK", "{\"SecretAccessKey\":{\"wJalrXUtnFEMI/K7MDENG\":1}}");
            },
            "is not the JSON",
        ),
        (|_, stream| reply(stream, "200 OK", "{}"), "no AccessKeyId"),
        (
            |_, stream| reply(stream, "200 OK", "{\"Code\":\"AssumeRoleUnauthorizedAccess\"}"),
            "AssumeRoleUnauthorizedAccess",
        ),
        (
            |_, stream| reply(stream, "500 Internal Server Error", "wJalrXUtnFEMI/K7MDENG"),
            "answered 500",
        ),
        (|_, stream| reply(stream, "200 OK", &document(60).replace('Z', "")), "not a time"),
        (
            |_, stream| {
                drop(stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"));
            },
            "answered 302",
        ),
    ];
    let asked = answers.map(|(answer, part)| async move {
        let message = fetch_from_container(&Server::start(answer)).await.expect_err("refused");
        assert!(message.contains(part), "{part}: {message}");
    });
    futures_util::future::join_all(asked).await;
}

fn keeper(variables: &[(&str, &str)]) -> Arc<Keeper> {
    let metrics = Metrics::new().expect("metrics");
    let keeper = Arc::new(Keeper::new(chain(variables), metrics.backends.credentials.clone()));
    drop(tokio::runtime::Handle::current().spawn(Arc::clone(&keeper).run()));
    keeper
}

fn keeper_of(server: &Server) -> Arc<Keeper> {
    let variables = container(server);
    keeper(&variables.each_ref().map(|(name, value)| (*name, value.as_str())))
}

#[tokio::test]
async fn one_fetch_serves_all_who_wait() {
    let server = Server::start(|_, stream| reply(stream, "200 OK", &document(3_600)));
    let keeper = keeper_of(&server);
    let all = futures_util::future::join_all((0..50).map(|_| keeper.get())).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(server.count(), 1);
    // Whoever gives up takes nothing from the others.
    keeper.discard("ASIAEXAMPLE");
    let refused = keeper.get().await.expect_err("a pause").to_string();
    assert!(refused.contains("has refused those"), "{refused}");
    keeper.discard("ASIAOTHER");
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(futures_util::poll!(Box::pin(keeper.get())));
    keeper.get().await.expect("new ones");
    assert_eq!(server.count(), 2);
}

#[tokio::test]
async fn they_are_fetched_anew_before_they_end() {
    let answers = AtomicUsize::new(0);
    let server = Server::start(move |_, stream| match answers.fetch_add(1, Ordering::SeqCst) {
        // A source that fails meanwhile takes nothing away.
        1 => reply(stream, "503 Service Unavailable", ""),
        _ => reply(stream, "200 OK", &document(6)),
    });
    let keeper = keeper_of(&server);
    while server.count() < 4 {
        keeper.get().await.expect("good ones, always");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_source_that_fails_is_left_alone_for_a_while() {
    let server = Server::start(|_, stream| reply(stream, "500 Internal Server Error", ""));
    let keeper = keeper_of(&server);
    for _ in 0..100 {
        let refused = keeper.get().await.expect_err("none").to_string();
        assert!(refused.contains("answered 500"), "{refused}");
    }
    assert_eq!(server.count(), 1);
    let ended = Server::start(|_, stream| reply(stream, "200 OK", &document(-10)));
    let refused = keeper_of(&ended).get().await.expect_err("ended").to_string();
    assert!(refused.contains("has given some that have ended: 20"), "{refused}");
}
