//! Requests that real clients signed, each as it came over the wire and each with one thing
//! changed.
//!
//! [`CAPTURED`] was recorded on loopback from boto3 1.44.5,
//! `@aws-sdk/client-apigatewaymanagementapi` 3.1169.0, aws4 1.13.2 and awscurl 0.44, all with the
//! key of [`key`]; headers that nobody signs (`User-Agent`, `Accept`, `Accept-Encoding`,
//! `Connection`) are left out, line ends are `\n`. [`CRAFTED`] was signed by botocore's `SigV4Auth`
//! from requests made odd on purpose.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{AUTHORIZATION, DATE, HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{Credential, SignatureError, Verifier};
use crate::config::{AccessKey, Secret};
use crate::sigv4::canonical::{self, Tokens};
use crate::sigv4::{SignedRequest, signature};

const KEY_ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "fake/secret+for0Tests9only";
const TOKEN: &str = "FwoGZXIvYXdz//token+part=";
const MAX_SKEW: Duration = Duration::from_secs(300);
const TOKEN_REQUEST: &str = "boto3 post, session token";

/// A request that owns what [`SignedRequest`] borrows.
#[derive(Clone)]
struct Captured {
    method: Method,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Captured {
    fn parse(raw: &str) -> Self {
        let (head, body) = raw.split_once("\n\n").unwrap();
        let mut lines = head.lines();
        let mut line = lines.next().unwrap().split(' ');
        let method = line.next().unwrap().parse().unwrap();
        let target = line.next().unwrap();
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let headers = lines.map(|line| line.split_once(':').unwrap());
        let headers = headers.map(|(name, value)| {
            (name.parse::<HeaderName>().unwrap(), value.trim().parse::<HeaderValue>().unwrap())
        });
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value);
        }
        let (path, query) = (path.to_owned(), query.map(str::to_owned));
        Self { method, path, query, headers: map, body: body.as_bytes().to_vec() }
    }

    fn header(&self, name: impl http::header::AsHeaderName) -> &str {
        self.headers.get(name).unwrap().to_str().unwrap()
    }

    fn set(&mut self, name: &'static str, value: &str) {
        self.headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }

    /// Replaces a part of the `Authorization` header.
    fn edit(&mut self, from: &str, to: &str) {
        let before = self.header(AUTHORIZATION);
        assert!(before.contains(from), "{before}");
        let after = before.replacen(from, to, 1);
        self.set("authorization", &after);
    }

    fn verify_with(&self, verifier: &Verifier, now: SystemTime) -> Result<String, SignatureError> {
        let Self { method, path, query, headers, body } = self;
        let request = SignedRequest { method, path, query: query.as_deref(), headers, body };
        verifier.verify(&request, now).map(|(id, _)| id.to_owned())
    }

    fn verify(&self) -> Result<String, SignatureError> {
        self.verify_with(&verifier(SECRET), at("20261122T200424Z"))
    }

    /// Refused, and with which type and message.
    fn refusal(&self) -> (&'static str, String) {
        let error = self.verify().unwrap_err();
        (error.error_type(), error.to_string())
    }
}

fn verifier(secret: &str) -> Verifier {
    let other = AccessKey { id: "AKIDOTHER".to_owned(), secret: Secret::new("other") };
    Verifier::new(vec![other, key(secret)], MAX_SKEW)
}

fn key(secret: &str) -> AccessKey {
    AccessKey { id: KEY_ID.to_owned(), secret: Secret::new(secret) }
}

fn at(time: &str) -> SystemTime {
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-date", time.parse().unwrap());
    let secs = canonical::signing_time(&headers).unwrap();
    UNIX_EPOCH + Duration::from_secs(secs.try_into().unwrap())
}

fn captured(name: &str) -> Captured {
    let (_, raw) = CAPTURED.iter().chain(&CRAFTED).find(|(other, _)| *other == name).unwrap();
    Captured::parse(raw)
}

fn boto() -> Captured {
    captured("boto3 post")
}

/// Every request there is, with its name.
fn all() -> impl Iterator<Item = (&'static str, Captured)> {
    CAPTURED.iter().chain(&CRAFTED).map(|(name, raw)| (*name, Captured::parse(raw)))
}

#[test]
fn every_client_is_accepted() {
    let results = all().map(|(name, request)| (name, request.verify()));
    let refused: Vec<_> = results.filter(|(_, res)| res != &Ok(KEY_ID.to_owned())).collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn example_of_the_aws_documentation_has_its_published_signature() {
    let credential = Credential::parse("AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request").unwrap();
    let to_sign = "AWS4-HMAC-SHA256\n20150830T123600Z\n20150830/us-east-1/iam/aws4_request\n\
                   f536975d06c0309214f805bb90ccff089219ecd68b2577efef23edd43b7e1a59";
    let signature =
        signature("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", credential.scope, to_sign);
    assert_eq!(signature, "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7");
}

#[test]
fn one_changed_byte_of_the_body_is_refused() {
    for (name, request) in all() {
        for position in 0..=request.body.len() {
            let mut request = request.clone();
            match request.body.get_mut(position) {
                Some(byte) => *byte ^= 1,
                None => request.body.push(b'x'),
            }
            assert_eq!(request.refusal().0, "InvalidSignatureException", "{name}, byte {position}");
        }
    }
}

#[test]
fn one_changed_byte_of_the_path_or_query_is_refused() {
    for (name, request) in all() {
        let path = request.path.clone();
        // What lies before a `..` is folded away, so that it may be anything.
        let signed_from = path.rfind("/..").map_or(0, |dots| dots + 3);
        for (position, old) in path.char_indices().filter(|(position, _)| *position >= signed_from)
        {
            // Letters for slashes, so that nothing folds; otherwise the neighbour of the letter.
            let new = if old == 'k' { 'j' } else { 'k' };
            let mut request = request.clone();
            request.path.replace_range(position..=position, &new.to_string());
            assert_eq!(
                request.refusal().0,
                "InvalidSignatureException",
                "{name}: {}",
                request.path
            );
        }
        let mut request = request;
        request.query = Some(request.query.map_or("x".to_owned(), |query| query + "&x"));
        assert_eq!(request.refusal().0, "InvalidSignatureException", "{name}, query");
    }
}

#[test]
fn one_changed_byte_of_a_signed_header_is_refused() {
    for (name, request) in all() {
        let (_, signed) = request.header(AUTHORIZATION).split_once("SignedHeaders=").unwrap();
        let signed: Vec<String> =
            signed.split(',').next().unwrap().split(';').map(str::to_owned).collect();
        assert!(signed.len() > 1, "{name}");
        for header in signed {
            let mut request = request.clone();
            let value = request.headers.get_mut(header.as_str()).unwrap();
            let mut bytes = value.as_bytes().to_vec();
            *bytes.last_mut().unwrap() ^= 1;
            *value = HeaderValue::from_bytes(&bytes).unwrap();
            assert!(request.verify().is_err(), "{name}: {header}");
            request.headers.remove(header.as_str());
            assert!(request.verify().is_err(), "{name} without {header}");
        }
    }
}

#[test]
fn one_changed_byte_of_the_secret_is_refused() {
    for (name, request) in all() {
        for position in 0..SECRET.len() {
            let mut secret = SECRET.to_owned();
            secret.replace_range(position..=position, "_");
            let res = request.verify_with(&verifier(&secret), at("20261122T200424Z"));
            assert_eq!(
                res.unwrap_err().error_type(),
                "InvalidSignatureException",
                "{name}, {position}"
            );
        }
    }
}

#[test]
fn one_changed_digit_of_the_signature_is_refused() {
    for (name, request) in all() {
        let header = request.header(AUTHORIZATION).to_owned();
        let start = header.find("Signature=").unwrap() + "Signature=".len();
        assert_eq!(header.len() - start, 64, "{name}");
        for position in start..header.len() {
            let mut changed = header.clone().into_bytes();
            changed[position] = if changed[position] == b'0' { b'1' } else { b'0' };
            let mut request = request.clone();
            request.set("authorization", str::from_utf8(&changed).unwrap());
            assert_eq!(request.refusal().0, "InvalidSignatureException", "{name}, {position}");
        }
        let (before, _) = header.split_at(start);
        for short in ["", "0"] {
            let mut request = request.clone();
            request.set("authorization", &format!("{before}{short}"));
            assert_eq!(request.refusal().0, "InvalidSignatureException", "{name}, short");
        }
    }
}

#[test]
fn other_method_or_region_is_refused() {
    let mut request = boto();
    request.method = Method::DELETE;
    assert_eq!(request.refusal().0, "InvalidSignatureException");
    let mut request = boto();
    request.edit("eu-central-1", "eu-central-2");
    assert_eq!(request.refusal().0, "InvalidSignatureException");
}

#[test]
fn unsigned_request_misses_a_token() {
    let missing =
        ("MissingAuthenticationTokenException", "Missing Authentication Token".to_owned());
    let mut request = boto();
    request.headers.remove(AUTHORIZATION);
    assert_eq!(request.refusal(), missing);
    request.set("authorization", " , ");
    assert_eq!(request.refusal(), missing);
}

#[test]
fn malformed_authorization_is_named() {
    let table = [
        ("Bearer eyJhbGciOiJIUzI1NiJ9.e30.x", "Invalid key=value pair (missing equal-sign)"),
        (
            "AWS4-HMAC-SHA256 Credential= a/b, SignedHeaders=c",
            "Invalid key=value pair (missing equal-sign)",
        ),
        ("AWS4-HMAC-SHA256 SignedHeaders=host, Signature=0", "requires 'Credential' parameter."),
        ("AWS4-HMAC-SHA256 Credential=a, Signature=0", "requires 'SignedHeaders' parameter."),
        ("AWS4-HMAC-SHA256 Credential=a, SignedHeaders=host", "requires 'Signature' parameter."),
        (
            "AWS4-HMAC-SHA256",
            "requires 'Signature' parameter. Authorization header requires 'SignedHeaders'",
        ),
        ("Basic dXNlcjpwYXNzd29yZA==", "requires 'Credential' parameter."),
        ("AWS4-HMAC-SHA1 Credential=a,SignedHeaders=b,Signature=c", "Unsupported AWS 'algorithm'"),
        (
            "aws4-hmac-sha256 Credential=a,SignedHeaders=b,Signature=c",
            "Unsupported AWS 'algorithm'",
        ),
        ("AWS4-HMAC-SHA256 Signature=a,Credential=a,SignedHeaders=b,Signature=c", "only once"),
        ("AWS4-HMAC-SHA256 Credential=a,SignedHeaders=host;x-amz-date,Signature=c", "exactly 5"),
        (
            "AWS4-HMAC-SHA256 Credential=a/b/c/d,SignedHeaders=host;x-amz-date,Signature=c",
            "exactly 5",
        ),
        (
            "AWS4-HMAC-SHA256 Credential=a/b/c/d/e/f,SignedHeaders=host;x-amz-date,Signature=c",
            "exactly 5",
        ),
        ("\u{e4}\u{f6}", "Invalid key=value pair"),
    ];
    for (header, expected) in table {
        let mut request = boto();
        request.set("authorization", header);
        let (error_type, message) = request.refusal();
        assert_eq!(error_type, "IncompleteSignatureException", "{header}");
        assert!(message.contains(expected), "{header}: {message}");
    }
}

#[test]
fn all_that_is_missing_is_named_at_once() {
    let mut request = boto();
    request.set("authorization", "eyJhbGciOiJIUzI1NiJ9.e30.x");
    request.headers.remove("x-amz-date");
    let message = "Authorization header requires 'Credential' parameter. \
                   Authorization header requires 'Signature' parameter. \
                   Authorization header requires 'SignedHeaders' parameter. \
                   Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.";
    assert_eq!(request.refusal(), ("IncompleteSignatureException", message.to_owned()));
}

#[test]
fn second_authorization_header_is_refused() {
    let mut request = boto();
    let value = request.headers.get(AUTHORIZATION).unwrap().clone();
    request.headers.append(AUTHORIZATION, value);
    assert_eq!(request.refusal().0, "IncompleteSignatureException");
}

#[test]
fn parameters_may_come_in_any_order_and_with_any_separator() {
    let original = boto();
    let parts: Vec<_> =
        original.header(AUTHORIZATION).split([',', ' ']).filter(|p| !p.is_empty()).collect();
    let [algorithm, credential, signed, signature] = parts[..] else { panic!("{parts:?}") };
    for header in [
        format!("{algorithm} {credential},{signed},{signature}"),
        format!("{algorithm}\t{signature} {signed} {credential}"),
        format!("{algorithm} {credential}, SignedHeaders=X-Amz-Date;Host, {signature}, More=x"),
    ] {
        let mut request = original.clone();
        request.set("authorization", &header);
        assert_eq!(request.verify(), Ok(KEY_ID.to_owned()), "{header}");
    }
}

#[test]
fn wrong_scope_is_named() {
    let service = "Credential should be scoped to correct service: 'execute-api'.";
    let terminator = "Credential should be scoped with a valid terminator: 'aws4_request'.";
    let date = "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: \
                it should be '20261122', from '20261122T200422Z'.";
    let all = format!("{service} {terminator} {date}");
    for (from, to, message) in [
        ("/execute-api/", "/apigateway/", service),
        ("/aws4_request", "/aws5_request", terminator),
        ("/20261122/", "/20261121/", date),
        ("20261122/eu-central-1/execute-api/aws4_request", "a/b/c/d", &all),
    ] {
        let mut request = boto();
        request.edit(from, to);
        assert_eq!(request.refusal(), ("InvalidSignatureException", message.to_owned()));
    }
}

#[test]
fn host_and_date_must_be_signed() {
    for (signed, message) in [
        ("x-amz-date", "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."),
        ("", "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."),
        ("host", "'X-Amz-Date' or 'Date' must be a 'SignedHeader' in the AWS Authorization."),
        ("host;date", "'X-Amz-Date' or 'Date' must be a 'SignedHeader' in the AWS Authorization."),
    ] {
        let mut request = boto();
        request.edit("host;x-amz-date", signed);
        assert_eq!(request.refusal(), ("InvalidSignatureException", message.to_owned()));
    }
}

#[test]
fn clocks_may_differ_by_the_skew_and_no_more() {
    let verify = |now| boto().verify_with(&verifier(SECRET), at(now));
    let signed = boto().header("x-amz-date").to_owned();
    assert_eq!(signed, "20261122T200422Z");
    assert_eq!(verify("20261122T200922Z"), Ok(KEY_ID.to_owned()));
    assert_eq!(verify("20261122T195922Z"), Ok(KEY_ID.to_owned()));
    let expired = verify("20261122T200923Z").unwrap_err();
    let early = verify("20261122T195921Z").unwrap_err();
    let text = "Signature expired: 20261122T200422Z is now earlier than 20261122T200423Z \
                (20261122T200923Z - 5 min.)";
    assert_eq!((expired.error_type(), &*expired.to_string()), ("InvalidSignatureException", text));
    let text = "Signature not yet current: 20261122T200422Z is still later than 20261122T200421Z \
                (20261122T195921Z + 5 min.)";
    assert_eq!((early.error_type(), &*early.to_string()), ("InvalidSignatureException", text));
}

#[test]
fn absurd_clocks_are_survived() {
    let exact = Verifier::new(vec![key(SECRET)], Duration::ZERO);
    assert!(boto().verify_with(&exact, at("20261122T200422Z")).is_ok());
    let odd = Verifier::new(vec![key(SECRET)], Duration::from_secs(90));
    let message = boto().verify_with(&odd, at("20261122T200924Z")).unwrap_err().to_string();
    assert!(message.ends_with("(20261122T200924Z - 90 sec.)"), "{message}");
    let wide = Verifier::new(vec![key(SECRET)], Duration::MAX);
    assert!(boto().verify_with(&wide, UNIX_EPOCH - Duration::from_secs(1)).is_ok());
    assert!(boto().verify_with(&verifier(SECRET), UNIX_EPOCH - Duration::from_secs(1)).is_err());
}

#[test]
fn unreadable_date_is_refused() {
    for date in [
        "20261122",
        "2026-11-22T20:04:22Z",
        "20261122T200422",
        "20261122T200422Zx",
        "+2026112T200422Z",
        "20261322T200422Z",
        "20261122T200460Z",
        "99991231T235959Z",
        "Sun, 22 Nov 2026 20:04:22 GMT",
        "",
    ] {
        let mut request = boto();
        request.set("x-amz-date", date);
        let (error_type, message) = request.refusal();
        assert_eq!(error_type, "IncompleteSignatureException", "{date}");
        assert!(
            message.starts_with("Date must be in ISO-8601 'basic format'."),
            "{date}: {message}"
        );
    }
    let mut request = captured("dated by date header");
    request.headers.insert(DATE, "yesterday".parse().unwrap());
    assert_eq!(request.refusal().0, "IncompleteSignatureException");
}

#[test]
fn body_hash_header_must_be_the_hash_of_the_body() {
    let mut without_header = captured("boto3 post, empty body");
    for hash in ["UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "", "0"] {
        without_header.set("x-amz-content-sha256", hash);
        let message =
            "The provided 'x-amz-content-sha256' header does not match what was computed.";
        assert_eq!(
            without_header.refusal(),
            ("InvalidSignatureException", message.to_owned()),
            "{hash}"
        );
    }
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    without_header.set("x-amz-content-sha256", empty);
    assert_eq!(without_header.verify(), Ok(KEY_ID.to_owned()));
}

#[test]
fn unknown_key_is_refused_even_with_the_secret_that_stands_in() {
    let message = "The security token included in the request is invalid.";
    let mut request = boto();
    request.edit(KEY_ID, "AKIDEXAMPLF");
    assert_eq!(request.refusal(), ("UnrecognizedClientException", message.to_owned()));

    // A caller who has read the source signs with the stand-in.
    let stand_in = verifier(super::UNKNOWN_KEY_SECRET);
    let now = at("20261122T200424Z");
    let Err(SignatureError::InvalidSignature { to_sign, .. }) = boto().verify_with(&stand_in, now)
    else {
        panic!("accepted");
    };
    let (_, credential) = to_sign.split_once('\n').unwrap().1.split_once('\n').unwrap();
    let credential = format!("AKIDNOBODY/{}", credential.lines().next().unwrap());
    let scope = Credential::parse(&credential).unwrap().scope;
    let signature = signature(super::UNKNOWN_KEY_SECRET, scope, &to_sign);
    let signed = "SignedHeaders=host;x-amz-date";
    let header =
        format!("AWS4-HMAC-SHA256 Credential={credential}, {signed}, Signature={signature}");
    let mut request = boto();
    request.set("authorization", &header);
    assert_eq!(request.refusal(), ("UnrecognizedClientException", message.to_owned()));
    // The same signature is good where somebody has that secret: the forgery above was a real one.
    request.edit("AKIDNOBODY", KEY_ID);
    assert_eq!(request.verify_with(&stand_in, now), Ok(KEY_ID.to_owned()));
}

#[test]
fn no_keys_accept_nothing() {
    let res = boto().verify_with(&Verifier::new(Vec::new(), MAX_SKEW), at("20261122T200424Z"));
    assert_eq!(res, Err(SignatureError::UnrecognizedClient));
}

#[test]
fn mismatch_shows_what_should_have_been_signed() {
    let mut request = boto();
    request.edit("Signature=", "Signature=0");
    let host = request.header("host");
    let expected = format!(
        "The request signature we calculated does not match the signature you provided. Check your AWS \
         Secret Access Key and signing method. Consult the service documentation for details.\n\n\
         The Canonical String for this request should have been\n\
         'POST\n/prod/%40connections/L0SM9cOFvHcCIhw%253D\n\n\
         host:{host}\nx-amz-date:20261122T200422Z\n\nhost;x-amz-date\n\
         0ea09e73d0357bb61ddf17c9e622566c90016909939ebeb446d21c558c9d2c0a'\n\n\
         The String-to-Sign should have been\n\
         'AWS4-HMAC-SHA256\n20261122T200422Z\n20261122/eu-central-1/execute-api/aws4_request\n"
    );
    let (error_type, message) = request.refusal();
    assert_eq!(error_type, "InvalidSignatureException");
    let hash = message.strip_prefix(&expected).unwrap_or_else(|| panic!("{message}"));
    assert_eq!(hash.len(), 64 + "'\n".len());
}

#[test]
fn no_message_shows_a_session_token() {
    let mut request = captured(TOKEN_REQUEST);
    assert_eq!(request.header("x-amz-security-token"), TOKEN);
    request.query = Some("x-amz-Security-token=FwoGZXIvYXdz%2F%2Ftoken&a=b".to_owned());
    let error = request.verify().unwrap_err();
    let (message, debug) = (error.to_string(), format!("{error:?}"));
    assert!(message.contains("\na=b&x-amz-Security-token=MASKED\n"), "{message}");
    assert!(message.contains("\nx-amz-security-token:MASKED\n"), "{message}");
    for text in [message, debug] {
        assert!(!text.contains("FwoG") && !text.contains("token+part"), "{text}");
    }
}

#[test]
fn no_secret_can_be_printed() {
    let secret = Secret::new(SECRET);
    assert_eq!(format!("{secret:?}"), "MASKED");
    let text = format!("{:?} {:#?}", verifier(SECRET), key(SECRET));
    assert!(text.contains("MASKED") && text.contains(KEY_ID) && !text.contains(SECRET), "{text}");
}

#[test]
fn oversized_request_is_refused_before_it_is_read() {
    let huge = "x".repeat(16 * 1024);
    let mut requests = [boto(), boto(), boto()];
    requests[0].path.push_str(&huge);
    requests[1].query = Some(huge.clone());
    requests[2].edit("host;", &format!("{huge};host;"));
    for request in requests {
        let (error_type, message) = request.refusal();
        assert_eq!(error_type, "IncompleteSignatureException");
        assert_eq!(message, "Request line and headers are too large to be verified.");
    }
}

#[test]
fn query_is_decoded_encoded_and_sorted() {
    for (query, canonical) in [
        ("", ""),
        ("b=2&a=1&b=1&a", "a=&a=1&b=1&b=2"),
        ("&&x=%7e%2f%c3%bc&", "x=~%2F%C3%BC"),
        ("a+b=c d=e", "a%2Bb=c%20d%3De"),
        ("%=%4&%zz=1", "%25=%254&%25zz=1"),
        ("=v", "=v"),
    ] {
        let mut request = boto();
        request.query = Some(query.to_owned());
        request.edit("Signature=", "Signature=0");
        let message = request.refusal().1;
        assert_eq!(message.lines().nth(5), Some(canonical), "{query}");
    }
}

/// Pieces that a header may be made of, so that proptest gets past the first check.
fn piece() -> impl Strategy<Value = String> {
    const WORDS: [&str; 19] = [
        "AWS4-HMAC-SHA256",
        " ",
        ",",
        "=",
        "/",
        ";",
        "Credential=",
        "SignedHeaders=",
        "Signature=",
        "AKIDEXAMPLE/20261122/eu-central-1/execute-api/aws4_request",
        "AKIDEXAMPLE",
        "20261122",
        "execute-api",
        "aws4_request",
        "host;x-amz-date",
        "host",
        "\u{e9}",
        "\t",
        "%",
    ];
    prop_oneof![4 => proptest::sample::select(&WORDS[..]).prop_map(str::to_owned), 1 => "[ -~]{0,12}"]
}

proptest! {
    #[test]
    fn no_authorization_header_panics_or_passes(pieces in proptest::collection::vec(piece(), 0..14)) {
        let mut request = boto();
        request.set("authorization", &pieces.concat());
        prop_assert!(request.verify().is_err());
    }

    #[test]
    fn no_bytes_as_header_date_path_or_query_panic(
        header in proptest::collection::vec(any::<u8>(), 0..80),
        path in "\\PC{0,40}",
        query in "\\PC{0,40}",
    ) {
        let Ok(value) = HeaderValue::from_bytes(&header) else { return Ok(()) };
        for name in ["authorization", "x-amz-date", "host", "x-amz-content-sha256"] {
            let mut request = boto();
            request.headers.insert(name, value.clone());
            prop_assert!(request.verify().is_err());
        }
        let mut request = boto();
        (request.path, request.query) = (format!("/prod/x/{path}"), Some(query));
        prop_assert!(request.verify().is_err());
    }

    #[test]
    fn canonical_string_keeps_its_lines(path in "[/.a%3D@]{0,20}", value in "[ -~\t]{0,20}") {
        let mut headers = HeaderMap::new();
        headers.insert("x", HeaderValue::from_str(&value).unwrap());
        let method = Method::GET;
        let query = Some(value.as_str());
        let request = SignedRequest { method: &method, path: &path, query, headers: &headers, body: b"" };
        let names = canonical::names("X;x;");
        let bytes = canonical::request(&request, &names, "hash").bytes(Tokens::Kept);
        let text = String::from_utf8(bytes).unwrap();
        let lines: Vec<_> = text.split('\n').collect();
        prop_assert_eq!(lines.len(), 7);
        prop_assert_eq!((lines[0], lines[4], lines[5], lines[6]), ("GET", "", "x", "hash"));
        prop_assert!(lines[1].starts_with('/') && !lines[1].contains("//"));
        prop_assert!(!lines[3].contains("  ") && !lines[3].contains('\t'));
    }
}

const CAPTURED: [(&str, &str); 23] = [
    (
        "boto3 post",
        r#"POST /prod/@connections/L0SM9cOFvHcCIhw%3D HTTP/1.1
host: 127.0.0.1:48259
X-Amz-Date: 20261122T200422Z
Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-central-1/execute-api/aws4_request, SignedHeaders=host;x-amz-date, Signature=a1fc14c2535ecfb247875bb79ff0a930fb4bd16162defb5937b9dbc20a1b94f4
amz-sdk-invocation-id: deb3754f-c0aa-4c55-80ad-cd59521a454f
amz-sdk-request: attempt=1; max=2
Content-Length: 11

{"hello":1}"#,
    ),
    (
        "boto3 get",
        r"GET /prod/@connections/L0SM9cOFvHcCIhw%3D HTTP/1.1
host: 127.0.0.1:48259
X-Amz-Date: 20261122T200422Z
Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-central-1/execute-api/aws4_request, SignedHeaders=host;x-amz-date, Signature=17285a8825ef766966cc67594235a7a4b79e1613c1739c1370c1066991472611
amz-sdk-invocation-id: eab4ba87-7a33-4b58-a332-3c93104cc0dc
amz-sdk-request: attempt=1; max=2

",
    ),
    (
        "boto3 delete",
        r"DELETE /prod/@connections/L0SM9cOFvHcCIhw%3D HTTP/1.1
host: 127.0.0.1:48259
X-Amz-Date: 20261122T200422Z
Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-central-1/execute-api/aws4_request, SignedHeaders=host;x-amz-date, Signature=2cf95a19eee961c68e726acc515c8c4b62052523154a2e976d937d9a8f8d1eaa
amz-sdk-invocation-id: 00909683-e433-4868-97ed-62e47f58c685
amz-sdk-request: attempt=1; max=2
Content-Length: 0

",
    ),
    (
        "boto3 post, UTF-8 body, id with - and _",
        r"POST /prod/@connections/a-b_c%3D HTTP/1.1
host: 127.0.0.1:48259
X-Amz-Date: 20261122T200422Z
Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-central-1/execute-api/aws4_request, SignedHeaders=host;x-amz-date, Signature=ef52d88ba035497bfaac2d0e8593d5d3392b5471dca60dfaefa8fff29fd52f7d
amz-sdk-invocation-id: 284ae5e1-1aa4-4642-9b8f-1be54f1e9e4a
amz-sdk-request: attempt=1; max=2
Content-Length: 19

grüße, 世界 ✓",
    ),
    (
        "boto3 post, empty body",
        r"POST /prod/@connections/L0SM9cOFvHcCIhw%3D HTTP/1.1
host: 127.0.0.1:48259
X-Amz-Date: 20261122T200422Z
Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-central-1/execute-api/aws4_request, SignedHeaders=host;x-amz-date, Signature=e1cc139f882a1a64d012ac6ba3c97e313f049bfbf67b6900b1db73f416cb34c5
amz-sdk-invocation-id: 31c44d51-2320-4058-b078-05c3f1060aae
amz-sdk-request: attempt=1; max=2
Content-Length: 0

",
    ),
    (
        "boto3 post, endpoint with trailing slash",
        r"POST /prod/@connections/L0SM9cOFvHcCIhw%3D HTTP/1.1
host: 127.0.0.1:48259
X-Amz-Date: 20261122T200422Z
Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-central-1/execute-api/aws4_request, SignedHeaders=host;x-amz-date, Signature=529e720734591bacf9bc001ea78d719157db7e64b0b58fbf0f1a638a71b5fc18
amz-sdk-invocation-id: 44dd8189-f0c1-400e-8fe9-d208bf417b4e
amz-sdk-request: attempt=1; max=2
Content-Length: 5

slash",
    ),
    (
        "boto3 post, session token",
        r"POST /prod/@connections/L0SM9cOFvHcCIhw%3D HTTP/1.1
host: 127.0.0.1:48259
X-Amz-Security-Token: FwoGZXIvYXdz//token+part=
X-Amz-Date: 20261122T200422Z
Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-central-1/execute-api/aws4_request, SignedHeaders=host;x-amz-date;x-amz-security-token, Signature=b61fd1dd3ef829552bd792f62f920890d0eaa630da859fde1ed026f40010ab32
amz-sdk-invocation-id: eb60b6f9-28ad-438a-9249-d917c171a5ab
amz-sdk-request: attempt=1; max=2
Content-Length: 5

token",
    ),
    (
        "boto3 get, endpoint with dot segments",
        r"GET /prod/./x/../@connections/L0SM9cOFvHcCIhw%3D HTTP/1.1
host: 127.0.0.1:48259
X-Amz-Date: 20261122T200422Z
Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-central-1/execute-api/aws4_request, SignedHeaders=host;x-amz-date, Signature=17285a8825ef766966cc67594235a7a4b79e1613c1739c1370c1066991472611
amz-sdk-invocation-id: ca7ac9bc-1af1-40f4-91ab-a61c276a87ae
amz-sdk-request: attempt=1; max=2

",
    ),
    (
        "boto3 get, id ..",
        r"GET /prod/@connections/.. HTTP/1.1
host: 127.0.0.1:48259
X-Amz-Date: 20261122T200422Z
Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-central-1/execute-api/aws4_request, SignedHeaders=host;x-amz-date, Signature=097b4ea6db9162276d9a3939a8d1e4f04b774eb91e1c5b7de1f3053ae6c0b051
amz-sdk-invocation-id: de088adf-df59-44dd-a321-2453b11342a9
amz-sdk-request: attempt=1; max=2

",
    ),
    (
        "boto3 get, endpoint with double slash",
        r"GET /prod//deep/@connections/L0SM9cOFvHcCIhw%3D HTTP/1.1
host: 127.0.0.1:48259
X-Amz-Date: 20261122T200422Z
Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-central-1/execute-api/aws4_request, SignedHeaders=host;x-amz-date, Signature=ab61a85e11de9e066ce38eb7e32e6499a73ee4a61beedfeef5127410b21a77cd
amz-sdk-invocation-id: af74a16e-320d-4ed3-a992-cdb6455bf588
amz-sdk-request: attempt=1; max=2

",
    ),
    (
        "js post",
        r#"POST /prod/@connections/L0SM9cOFvHcCIhw%3D HTTP/1.1
content-type: application/octet-stream
content-length: 11
x-amz-user-agent: aws-sdk-js/3.1168.0
host: 127.0.0.1:48259
amz-sdk-invocation-id: 120baff4-cc76-4a2d-ace3-82402550d3eb
amz-sdk-request: attempt=1; max=1
x-amz-date: 20261122T200423Z
x-amz-content-sha256: 0ea09e73d0357bb61ddf17c9e622566c90016909939ebeb446d21c558c9d2c0a
authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/us-east-1/execute-api/aws4_request, SignedHeaders=amz-sdk-invocation-id;amz-sdk-request;content-length;content-type;host;x-amz-content-sha256;x-amz-date;x-amz-user-agent, Signature=3799d1588565585cdf02641c4a036defed7c970156581cd748c93964b0e80176

{"hello":1}"#,
    ),
    (
        "js get",
        r"GET /prod/@connections/L0SM9cOFvHcCIhw%3D HTTP/1.1
x-amz-user-agent: aws-sdk-js/3.1168.0
host: 127.0.0.1:48259
amz-sdk-invocation-id: cc4b820e-5212-415a-b140-a6518815392f
amz-sdk-request: attempt=1; max=1
x-amz-date: 20261122T200423Z
x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/us-east-1/execute-api/aws4_request, SignedHeaders=amz-sdk-invocation-id;amz-sdk-request;host;x-amz-content-sha256;x-amz-date;x-amz-user-agent, Signature=ad825b0cc068454d85d01429e7aa603d1a2ec56f4b34973f4c3a77bf293eac64

",
    ),
    (
        "js delete",
        r"DELETE /prod/@connections/L0SM9cOFvHcCIhw%3D HTTP/1.1
x-amz-user-agent: aws-sdk-js/3.1168.0
host: 127.0.0.1:48259
amz-sdk-invocation-id: de67fd81-18b0-4416-af0b-2fdea9a6056a
amz-sdk-request: attempt=1; max=1
x-amz-date: 20261122T200423Z
x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/us-east-1/execute-api/aws4_request, SignedHeaders=amz-sdk-invocation-id;amz-sdk-request;host;x-amz-content-sha256;x-amz-date;x-amz-user-agent, Signature=e4efd9737b3874ae070fa48b9973ba73caf7751d27220b0568d634d9661e2a7f

",
    ),
    (
        "js post, UTF-8 body, id with - and _",
        r"POST /prod/@connections/a-b_c%3D HTTP/1.1
content-type: application/octet-stream
content-length: 19
x-amz-user-agent: aws-sdk-js/3.1168.0
host: 127.0.0.1:48259
amz-sdk-invocation-id: d83bf025-9f2a-49fe-b4a8-ea3cc3e4294e
amz-sdk-request: attempt=1; max=1
x-amz-date: 20261122T200423Z
x-amz-content-sha256: 412a8db819e283b4366f138252476bef6331bdef20ff283ac472e539650cd657
authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/us-east-1/execute-api/aws4_request, SignedHeaders=amz-sdk-invocation-id;amz-sdk-request;content-length;content-type;host;x-amz-content-sha256;x-amz-date;x-amz-user-agent, Signature=de4e1c6d076e92223cb40df2597ed9ccaabbbb3daf0aa979da517fd93f774584

grüße, 世界 ✓",
    ),
    (
        "js post, empty body",
        r"POST /prod/@connections/L0SM9cOFvHcCIhw%3D HTTP/1.1
content-type: application/octet-stream
x-amz-user-agent: aws-sdk-js/3.1168.0
host: 127.0.0.1:48259
amz-sdk-invocation-id: 7dfb8499-27ba-4801-a959-f03b5eae4f74
amz-sdk-request: attempt=1; max=1
x-amz-date: 20261122T200423Z
x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/us-east-1/execute-api/aws4_request, SignedHeaders=amz-sdk-invocation-id;amz-sdk-request;content-type;host;x-amz-content-sha256;x-amz-date;x-amz-user-agent, Signature=579b9a26bf95283d5694a0df7325f901ccac10d6e49df5ef550a6bb9e0c532b3
Content-Length: 0

",
    ),
    (
        "js post, endpoint with trailing slash",
        r"POST /prod//@connections/L0SM9cOFvHcCIhw%3D HTTP/1.1
content-type: application/octet-stream
content-length: 5
x-amz-user-agent: aws-sdk-js/3.1168.0
host: 127.0.0.1:48259
amz-sdk-invocation-id: 8bec7b62-7578-4aab-8ed2-2eb05c623708
amz-sdk-request: attempt=1; max=1
x-amz-date: 20261122T200423Z
x-amz-content-sha256: 939d59d1285efa522f3964451c00cbfea1e22d19a6769b9aa00317fecd681e93
authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/us-east-1/execute-api/aws4_request, SignedHeaders=amz-sdk-invocation-id;amz-sdk-request;content-length;content-type;host;x-amz-content-sha256;x-amz-date;x-amz-user-agent, Signature=76a0fdb9947f6a173cb22f996d4e3c440cefe1982900524e7e827de1aac2786b

slash",
    ),
    (
        "js post, session token",
        r"POST /prod/@connections/L0SM9cOFvHcCIhw%3D HTTP/1.1
content-type: application/octet-stream
content-length: 5
x-amz-user-agent: aws-sdk-js/3.1168.0
host: 127.0.0.1:48259
amz-sdk-invocation-id: ecdaea72-2ce6-492d-9625-05603eb6bef8
amz-sdk-request: attempt=1; max=1
x-amz-date: 20261122T200423Z
x-amz-security-token: FwoGZXIvYXdz//token+part=
x-amz-content-sha256: 3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0
authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/us-east-1/execute-api/aws4_request, SignedHeaders=amz-sdk-invocation-id;amz-sdk-request;content-length;content-type;host;x-amz-content-sha256;x-amz-date;x-amz-security-token;x-amz-user-agent, Signature=02f3ffa600e1d0198762b603a39fedae0438f6ee620e061177404b6256fd5959

token",
    ),
    (
        "js get, endpoint with dot segments",
        r"GET /prod//@connections/L0SM9cOFvHcCIhw%3D HTTP/1.1
x-amz-user-agent: aws-sdk-js/3.1168.0
host: 127.0.0.1:48259
amz-sdk-invocation-id: 9d6db1e3-303f-4966-b40d-60fd6f4c7643
amz-sdk-request: attempt=1; max=1
x-amz-date: 20261122T200423Z
x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/us-east-1/execute-api/aws4_request, SignedHeaders=amz-sdk-invocation-id;amz-sdk-request;host;x-amz-content-sha256;x-amz-date;x-amz-user-agent, Signature=8d44979c02a3ec93b5183a6b96060bc78e28251e906f955e4eb2d1723156c8ec

",
    ),
    (
        "js get, id ..",
        r"GET /prod/@connections/.. HTTP/1.1
x-amz-user-agent: aws-sdk-js/3.1168.0
host: 127.0.0.1:48259
amz-sdk-invocation-id: e39e3d48-3446-4882-91b7-d89e1213af81
amz-sdk-request: attempt=1; max=1
x-amz-date: 20261122T200423Z
x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/us-east-1/execute-api/aws4_request, SignedHeaders=amz-sdk-invocation-id;amz-sdk-request;host;x-amz-content-sha256;x-amz-date;x-amz-user-agent, Signature=6265815114130095bcc37ba44c4a8358bd7e0fac7ba13648c7fa5766e05edb85

",
    ),
    (
        "js get, endpoint with double slash",
        r"GET /prod//deep/@connections/L0SM9cOFvHcCIhw%3D HTTP/1.1
x-amz-user-agent: aws-sdk-js/3.1168.0
host: 127.0.0.1:48259
amz-sdk-invocation-id: f5931679-2d60-4172-87d9-e834409a8d14
amz-sdk-request: attempt=1; max=1
x-amz-date: 20261122T200423Z
x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/us-east-1/execute-api/aws4_request, SignedHeaders=amz-sdk-invocation-id;amz-sdk-request;host;x-amz-content-sha256;x-amz-date;x-amz-user-agent, Signature=170ed8b261198650dcef07bd98de6b75cb742860d94a479776d50d70301799cf

",
    ),
    (
        "aws4 post, %40connections",
        r"POST /prod/%40connections/L0SM9cOFvHcCIhw%3D HTTP/1.1
Host: 127.0.0.1:48259
Content-Type: application/x-www-form-urlencoded; charset=utf-8
Content-Length: 4
X-Amz-Date: 20261122T200423Z
Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/us-east-1/execute-api/aws4_request, SignedHeaders=content-length;content-type;host;x-amz-date, Signature=9f4980aff2d980a2855146c7a0329c17c7b5023db8998289fc1e71db265d62fe

aws4",
    ),
    (
        "awscurl post, %40connections",
        r"POST /prod/%40connections/L0SM9cOFvHcCIhw%3D HTTP/1.1
Host: 127.0.0.1:48259
Content-Type: application/json
Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-west-1/execute-api/aws4_request, SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date, Signature=f5e9ef54e85802d3eabc2e3a712da157b16685ac53abe075b2afdd3c959c4edb
x-amz-date: 20261122T200424Z
x-amz-content-sha256: 9b46908f3c367477bf1630bdb1f9139826cb8d9bebbe341707937ea24b31dd54
Content-Length: 13

hello awscurl",
    ),
    (
        "awscurl post, bare @ and =",
        r"POST /prod/@connections/L0SM9cOFvHcCIhw= HTTP/1.1
Host: 127.0.0.1:48259
Content-Type: application/json
Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-west-1/execute-api/aws4_request, SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date, Signature=0c633b906bcdb22aeb5209df0892720c3973dc68ce595c3e267466ca12699018
x-amz-date: 20261122T200424Z
x-amz-content-sha256: 9b46908f3c367477bf1630bdb1f9139826cb8d9bebbe341707937ea24b31dd54
Content-Length: 13

hello awscurl",
    ),
];

const CRAFTED: [(&str, &str); 12] = [
    (
        "repeated query keys",
        r"GET /prod/@connections/A%3D?b=2&a=2&b=10&a=1&flag&c=x%20y%2Fz%3D&A=0&a-b=1&a~=1&%C3%A9=e HTTP/1.1
Host: gate.example:8080
X-Amz-Date: 20261122T200424Z
Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-north-1/execute-api/aws4_request, SignedHeaders=host;x-amz-date, Signature=2cdb48e2ebc51f04ec491436be89f97c1babaa51aecb04d6d960a323e0691a7a

",
    ),
    (
        "spaced header values",
        r#"POST /prod/@connections/A%3D HTTP/1.1
Host: gate.example:8080
X-Note:   two   words 	 and  tabs 
Content-Type: text/plain;  charset="a  b"
X-Amz-Date: 20261122T200424Z
Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-north-1/execute-api/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-note, Signature=c502595f1083b62bc79d8c8d43314a2b1e15c7c3e01729ebf6d30d1f6d27ae95

x"#,
    ),
    (
        "double slashes",
        r"POST //prod///@connections//A%3D HTTP/1.1
Host: gate.example:8080
X-Amz-Date: 20261122T200424Z
Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-north-1/execute-api/aws4_request, SignedHeaders=host;x-amz-date, Signature=6908ab77250a16de945f5f4ee925e8160a8b7321c469737be61fe76286d4f160

x",
    ),
    (
        "dot segments",
        r"GET /prod/./x/../@connections/A%3D/. HTTP/1.1
Host: gate.example:8080
X-Amz-Date: 20261122T200424Z
Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-north-1/execute-api/aws4_request, SignedHeaders=host;x-amz-date, Signature=27deab92e631cede9ef4181af9d438c8a45ad7ffc955c5479339baeec1c8baea

",
    ),
    (
        "climbing dots",
        r"GET /../..// HTTP/1.1
Host: gate.example:8080
X-Amz-Date: 20261122T200424Z
Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-north-1/execute-api/aws4_request, SignedHeaders=host;x-amz-date, Signature=ea61ea7715524055a5fd68d3f254d51dd3397897140c6d112fb9029a87e1742f

",
    ),
    (
        "trailing slash",
        r"GET /prod/@connections/A%3D/ HTTP/1.1
Host: gate.example:8080
X-Amz-Date: 20261122T200424Z
Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-north-1/execute-api/aws4_request, SignedHeaders=host;x-amz-date, Signature=58b73f304e38f0eac54007047c7fc19d6a9c91e95969017c035c6ea620482b83

",
    ),
    (
        "encoded dots and slash",
        r"GET /prod/%2e%2E/@connections/a%2Fb%2F..%2Fc HTTP/1.1
Host: gate.example:8080
X-Amz-Date: 20261122T200424Z
Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-north-1/execute-api/aws4_request, SignedHeaders=host;x-amz-date, Signature=6dcf200da58846d71aa08d5e8a56522e8f0581efa26f8f2f565f9cc63aa6a5ca

",
    ),
    (
        "odd bytes in path",
        r"GET /prod/@connections/!$&'()*+,;=:~.-_%c3%bc HTTP/1.1
Host: gate.example:8080
X-Amz-Date: 20261122T200424Z
Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-north-1/execute-api/aws4_request, SignedHeaders=host;x-amz-date, Signature=92d0554b61d6e88b51abd970af62a6cf9cbb3cbbb711639a98e28bdded731810

",
    ),
    (
        "dated by date header",
        r"POST /prod/@connections/A%3D HTTP/1.1
Host: gate.example:8080
Date: Sun, 22 Nov 2026 20:04:24 -0000
Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-north-1/execute-api/aws4_request, SignedHeaders=date;host, Signature=a10433d362dd6b2ddcb7fd165317845924324092dba36b79c3e67923422f4901

dated",
    ),
    (
        "content sha header",
        r"POST /prod/@connections/A%3D HTTP/1.1
Host: gate.example:8080
X-Amz-Content-SHA256: d600474b1b8e50d3633c91c0cf1efc454b79c9624a43fd7de441ee71745726ab
X-Amz-Date: 20261122T200424Z
Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-north-1/execute-api/aws4_request, SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=b2fc8f776c12d433b8e840237b1ca2a0bb636c354d6494c68dad642f51e14ab9

sha",
    ),
    (
        "empty path",
        r"GET / HTTP/1.1
Host: gate.example:8080
X-Amz-Date: 20261122T200424Z
Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-north-1/execute-api/aws4_request, SignedHeaders=host;x-amz-date, Signature=ea61ea7715524055a5fd68d3f254d51dd3397897140c6d112fb9029a87e1742f

",
    ),
    (
        "repeated header",
        r"GET /prod/@connections/A%3D HTTP/1.1
Host: gate.example:8080
X-Many:  b  b 
X-Many: a
X-Amz-Date: 20261122T200424Z
Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-north-1/execute-api/aws4_request, SignedHeaders=host;x-amz-date;x-many, Signature=d5c2f80868fbe04f0cef873eb705f8529300308185deff8558bcab250bac5334

",
    ),
];
