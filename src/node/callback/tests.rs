//! A node with a way back, and who comes along it: signed calls, calls that may not be, and what is
//! no call at all.

use std::collections::BTreeMap;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::*;
use crate::config::{Secret, Sources};
use crate::edge::callback::HostMap;
use crate::node::Node;

const SOON: Duration = Duration::from_secs(20);
const OPERATOR: (&str, &str) = ("AKIDOPERATOR", "operators-secret");

type Variables = BTreeMap<&'static str, String>;

/// A node, its stage's path, and a function's variables.
struct Place {
    node: Node,
    variables: Variables,
    at: SocketAddr,
}

impl Place {
    fn start(more: &[(&str, &str)]) -> Self {
        let settings = [
            ("LISTEN", "127.0.0.1:0"),
            ("ADMIN_LISTEN", "127.0.0.1:0"),
            ("SHARDS", "1"),
            ("CALLBACK_LISTEN", "127.0.0.1:0"),
        ];
        let named =
            |(name, value): &(&str, &str)| (format!("GATECAST_{name}"), (*value).to_owned());
        let overrides = settings.iter().chain(more).map(named).collect();
        let config = Config::load(&Sources { overrides, ..Sources::default() }).expect("valid");
        let node = Node::start(&config).expect("started");
        let environment = node.environment.as_ref().expect("a way back");
        let variables: Variables =
            environment.variables(None, &HostMap::new()).into_iter().collect();
        let at = environment.domain(None).parse().expect("an address");
        Self { node, variables, at }
    }

    fn with_keys(more: &[(&str, &str)]) -> Self {
        let keys = [("ACCESS_KEY_ID", OPERATOR.0), ("SECRET_ACCESS_KEY", OPERATOR.1)];
        Self::start(&[&keys, more].concat())
    }

    fn key(&self) -> AccessKey {
        self.node.environment.as_ref().expect("a way back").key().clone()
    }

    fn connector(&self) -> TlsConnector {
        trusting(&self.variables["NODE_EXTRA_CA_CERTS"])
    }

    /// Calls as a function does, with a key of its own or not.
    async fn call(
        &self,
        key: Option<&AccessKey>,
        method: &str,
        path: &str,
    ) -> (u16, String, String) {
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        let stream = TcpStream::connect(self.at).await.expect("a connection");
        let stream = self.connector().connect(name, stream).await.expect("a session");
        talk(stream, &request(self.at, key, method, path)).await
    }

    /// Calls the admin port.
    async fn call_plainly(
        &self,
        key: &AccessKey,
        method: &str,
        path: &str,
    ) -> (u16, String, String) {
        let stream = TcpStream::connect(self.node.admin).await.expect("a connection");
        talk(stream, &request(self.node.admin, Some(key), method, path)).await
    }

    /// Connects as a client; returns the socket, and the connection's id.
    async fn client(&self, key: &AccessKey) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(self.node.public).await.expect("a connection");
        let head = "GET /beta HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.expect("an answer"));
        }
        assert!(answer.starts_with(b"HTTP/1.1 101"));
        let (_, _, listed) = self.call(Some(key), "GET", "/beta/@connections").await;
        let listed: Value = serde_json::from_str(&listed).expect("JSON");
        let id = listed["connections"][0]["connectionId"].as_str().expect("an id").to_owned();
        (stream, id)
    }

    async fn counts(&self, line: &str) {
        let seen = async {
            loop {
                let text =
                    String::from_utf8(self.node.metrics.render().expect("text")).expect("UTF-8");
                if text.lines().any(|one| one.split_once('_').is_some_and(|(_, one)| one == line)) {
                    return;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, seen).await.unwrap_or_else(|_| panic!("never counted: {line}"));
    }

    async fn end(self) {
        self.node.shut_down(ready(())).await;
    }
}

fn trusting(ca: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).expect("a file") {
        // Those of the system may be of kinds that are not understood.
        drop(roots.add(certificate.expect("PEM")));
    }
    let provider = rustls::crypto::ring::default_provider();
    let config =
        ClientConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

fn operator() -> AccessKey {
    AccessKey { id: OPERATOR.0.to_owned(), secret: Secret::new(OPERATOR.1) }
}

/// A request with a body, signed as the SDKs do it.
fn request(at: SocketAddr, key: Option<&AccessKey>, method: &str, path: &str) -> String {
    let (now, body) = (jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string(), "hello");
    let body = if matches!(method, "POST") { body } else { "" };
    let authorization = key.map_or(String::new(), |key| {
        let scope = format!("{}/us-east-1/execute-api/aws4_request", now.split('T').next().expect("a day"));
        let hash = |text: &str| hex::encode(Sha256::digest(text));
        let spelled = path.replace("//", "/").replace('@', "%40").replace('=', "%3D").replace("%3D", "%253D");
        let canonical = format!(
            "{method}\n{spelled}\n\nhost:{at}\nx-amz-date:{now}\n\nhost;x-amz-date\n{}",
            hash(body)
        );
        let to_sign = format!("AWS4-HMAC-SHA256\n{now}\n{scope}\n{}", hash(&canonical));
        let seed = format!("AWS4{}", key.secret.expose()).into_bytes();
        let signed = scope.split('/').chain([&*to_sign]).fold(seed, |key, part| {
            let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("any key");
            mac.update(part.as_bytes());
            mac.finalize().into_bytes().to_vec()
        });
        let (id, signature) = (&key.id, hex::encode(signed));
        format!(
            "Authorization: AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders=host;x-amz-date, Signature={signature}\r\n"
        )
    });
    let path = path.replace('=', "%3D");
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {at}\r\nX-Amz-Date: {now}\r\n{authorization}Content-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
}

/// Sends a request; returns the status, the type of error, and the body.
async fn talk(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    request: &str,
) -> (u16, String, String) {
    stream.write_all(request.as_bytes()).await.expect("written");
    stream.flush().await.expect("written");
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer))
        .await
        .expect("in time")
        .expect("an answer to its end");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    let fault =
        head.lines().find_map(|line| line.strip_prefix("x-amzn-errortype: ")).unwrap_or_default();
    (status, fault.to_owned(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_posts_looks_and_ends_and_does_nothing_else() {
    let place = Place::with_keys(&[]);
    let (function, operator) = (place.key(), operator());
    let (mut client, id) = place.client(&operator).await;
    let own = format!("/beta/@connections/{id}");
    let key = Some(&function);
    assert_eq!(place.call(key, "POST", &own).await.0, 200);
    let mut frame = [0; 7];
    client.read_exact(&mut frame).await.expect("a message");
    assert_eq!(&frame, b"\x81\x05hello");
    assert_eq!(place.call(key, "GET", &own.replace("beta/", "beta//")).await.0, 200);
    for (method, path) in [
        ("POST", "/beta/@broadcast"),
        ("POST", "/beta/@groups/moon"),
        ("POST", "/beta/@users/tom"),
        ("GET", "/beta/@connections"),
        ("GET", "/beta/@counts"),
        ("GET", "/beta/@groups"),
        ("PUT", &format!("{own}/groups/moon")),
        ("DELETE", &format!("{own}/groups/moon")),
        ("GET", &format!("{own}/groups")),
    ] {
        let (status, fault, message) = place.call(key, method, path).await;
        assert_eq!((status, &*fault), (403, "AccessDeniedException"), "{method} {path}");
        assert!(message.contains("function's key"), "{message}");
        assert_eq!(place.call_plainly(&function, method, path).await.0, 403, "{method} {path}");
        let (status, ..) = place.call(Some(&operator), method, path).await;
        assert!((200..300).contains(&status), "{method} {path}: {status}");
    }
    assert_eq!(place.call_plainly(&function, "GET", &own).await.0, 200);
    assert_eq!(place.call(key, "GET", "/other").await.0, 404);
    let unsigned = place.call(None, "GET", &own).await;
    assert_eq!((unsigned.0, &*unsigned.1), (403, "MissingAuthenticationTokenException"));
    let forged = AccessKey { secret: Secret::new("something else"), ..function.clone() };
    assert_eq!(place.call(Some(&forged), "GET", &own).await.1, "InvalidSignatureException");
    assert_eq!(place.call(key, "DELETE", &own).await.0, 204);
    place.counts("http_connections_accepted_total{port=\"callback\"} 25").await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_is_needed_where_the_other_ports_ask_for_none() {
    for auth in [None, Some(("MANAGEMENT_AUTH", "none"))] {
        let place = Place::start(auth.as_slice());
        let path = "/beta/@connections/L0SM9cOFvHcCIhw=";
        assert_eq!(place.call(None, "GET", path).await.0, 403);
        assert_eq!(
            place.call(Some(&operator()), "GET", path).await.1,
            "UnrecognizedClientException"
        );
        assert_eq!(place.call(Some(&place.key()), "GET", path).await.0, 410);
        place.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_tls_is_told_so_and_what_is_slow_holds_nobody_up() {
    let place = Place::with_keys(&[
        ("LIMITS_HANDSHAKE_TIMEOUT", "500ms"),
        ("LIMITS_MAX_HTTP_CONNECTIONS", "20"),
    ]);
    let plain = TcpStream::connect(place.at).await.expect("a connection");
    let (status, fault, message) =
        talk(plain, "GET /beta/@counts HTTP/1.1\r\nHost: gate\r\n\r\n").await;
    assert_eq!((status, &*fault), (400, "BadRequestException"));
    assert!(message.contains("https://"), "{message}");
    let mut held = Vec::new();
    for begin in [b"\x16\x03\x01".as_slice(), b"\x16", b"\x16\x03\x01\x02\x00"] {
        for _ in 0..20 {
            let mut stream = TcpStream::connect(place.at).await.expect("a connection");
            stream.write_all(begin).await.expect("written");
            held.push(stream);
        }
    }
    let mut garbage = TcpStream::connect(place.at).await.expect("a connection");
    garbage.write_all(&[[0x16].as_slice(), &[0xff; 4_000]].concat()).await.expect("written");
    let began = Instant::now();
    assert_eq!(place.call(Some(&operator()), "GET", "/beta/@counts").await.0, 200);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    for mut stream in held {
        timeout(SOON, stream.read_to_end(&mut Vec::new())).await.expect("each is ended").ok();
    }
    let mut alert = Vec::new();
    timeout(SOON, garbage.read_to_end(&mut alert)).await.expect("it is ended").ok();
    place.counts("tls_handshakes_total{outcome=\"plain\",port=\"callback\"} 1").await;
    place.counts("http_requests_refused_total{reason=\"plain\"} 1").await;
    place.counts("tls_handshakes_total{outcome=\"failed\",port=\"callback\"} 1").await;
    // The time of a head goes on within TLS.
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let stream = TcpStream::connect(place.at).await.expect("a connection");
    let mut stream = place.connector().connect(name, stream).await.expect("a session");
    stream.write_all(b"GET /beta HTTP/1.1\r\n").await.expect("written");
    let mut answer = Vec::new();
    drop(timeout(SOON, stream.read_to_end(&mut answer)).await.expect("it is ended"));
    assert!(answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
    place.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_trust_the_ca_does_not_call() {
    let (place, other) = (Place::with_keys(&[]), Place::with_keys(&[]));
    let stream = TcpStream::connect(place.at).await.expect("a connection");
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let error = other.connector().connect(name, stream).await.expect_err("another CA");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    place.counts("tls_handshakes_total{outcome=\"failed\",port=\"callback\"} 1").await;
    let name = ServerName::try_from("gate.example").expect("a name");
    let stream = TcpStream::connect(place.at).await.expect("a connection");
    place.connector().connect(name, stream).await.expect_err("another name");
    for bundle in ["AWS_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"] {
        let stream = TcpStream::connect(place.at).await.expect("a connection");
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        trusting(&place.variables[bundle]).connect(name, stream).await.expect("a session");
    }
    place.end().await;
    other.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_the_operators_is_shown_and_trusted() {
    let folder = tempfile::tempdir().expect("a folder");
    let key =
        rcgen::generate_simple_self_signed(vec!["gate.example".to_owned()]).expect("a certificate");
    let [cert_file, key_file] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
    std::fs::write(&cert_file, key.cert.pem()).expect("written");
    std::fs::write(&key_file, key.signing_key.serialize_pem()).expect("written");
    let [cert_file, key_file] = [&cert_file, &key_file].map(|path| path.to_str().expect("UTF-8"));
    let settings = [
        ("LISTEN", "127.0.0.1:0"),
        ("ADMIN_LISTEN", "127.0.0.1:0"),
        ("SHARDS", "1"),
        ("CALLBACK_LISTEN", "127.0.0.1:0"),
        ("CALLBACK_CERT_FILE", cert_file),
        ("CALLBACK_KEY_FILE", key_file),
        ("CALLBACK_DOMAIN_NAME", "gate.example:8443"),
    ];
    let named = |(name, value): (&str, &str)| (format!("GATECAST_{name}"), value.to_owned());
    let overrides = settings.map(named).into();
    let config = Config::load(&Sources { overrides, ..Sources::default() }).expect("valid");
    let opened = Opened::new(&config, &[]).expect("bound").expect("a way back");
    let environment = opened.environment();
    assert_eq!(environment.domain(None), "gate.example:8443");
    let variables: Variables = environment.variables(None, &HostMap::new()).into_iter().collect();
    let connector = trusting(&variables["NODE_EXTRA_CA_CERTS"]);
    let (client, server) = tokio::io::duplex(1 << 16);
    let name = ServerName::try_from("gate.example").expect("a name");
    let (shown, accepted) =
        tokio::join!(connector.connect(name, client), opened.callback.acceptor.accept(server));
    assert!(shown.is_ok() && accepted.is_ok(), "{:?}", shown.err());
}
