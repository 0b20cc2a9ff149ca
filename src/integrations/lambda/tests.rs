//! What answers mean, and what goes over the wire.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use super::*;
use crate::config::{Config, Sources};

fn head(status: u16, headers: &[(&'static str, &'static str)]) -> Head {
    let header = |(name, value): &(&'static str, &'static str)| {
        (http::HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    Head::of(StatusCode::from_u16(status).expect("a status"), &headers.iter().map(header).collect())
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Result,
    Failed,
    Overload,
    Unreachable,
}

fn kind(result: &Result<Bytes, InvokeError>) -> Kind {
    match result {
        Ok(_) => Kind::Result,
        Err(InvokeError::Function { .. } | InvokeError::TimedOut) => Kind::Failed,
        Err(InvokeError::Overload(_)) => Kind::Overload,
        Err(InvokeError::Unreachable(_)) => Kind::Unreachable,
    }
}

type Headers = &'static [(&'static str, &'static str)];

/// Answers of Amazon's service, of the emulator in its images, of `sam local start-lambda`, of
/// serverless-offline, and of a load balancer before one of them.
const ANSWERS: [(u16, Headers, &str, Kind); 16] = [
    (200, &[], "{\"statusCode\":200}", Kind::Result),
    (200, &[], "null", Kind::Result),
    (200, &[], "Task timed out after 2.00 seconds", Kind::Result),
    (200, &[("x-amz-function-error", "Unhandled")], "{\"errorMessage\":\"x\"}", Kind::Failed),
    (200, &[("x-amz-function-error", "Unhandled")], "{\"statusCode\":200}", Kind::Failed),
    (429, &[("x-amzn-errortype", "TooManyRequestsException")], "{}", Kind::Overload),
    (429, &[], "", Kind::Overload),
    (409, &[("x-amzn-errortype", "ResourceConflictException")], "{}", Kind::Overload),
    (500, &[("x-amzn-errortype", "ServiceException")], "{}", Kind::Unreachable),
    (502, &[("x-amzn-errortype", "ENILimitReachedException:http://a")], "", Kind::Unreachable),
    (503, &[], "<html>", Kind::Unreachable),
    (502, &[], "{\"errorType\":\"Runtime.ExitError\"}", Kind::Failed),
    (
        404,
        &[("x-amzn-errortype", "ResourceNotFoundException")],
        "{\"Message\":\"x\"}",
        Kind::Failed,
    ),
    (403, &[("x-amzn-errortype", "AccessDeniedException")], "{}", Kind::Failed),
    (403, &[("x-amzn-errortype", "ExpiredTokenException")], "{}", Kind::Unreachable),
    (301, &[], "", Kind::Failed),
];

#[test]
fn an_answer_is_a_result_or_says_why_not() {
    for (status, headers, body, expected) in ANSWERS {
        let result = head(status, headers).judge(Bytes::from_static(body.as_bytes()));
        assert_eq!(kind(&result), expected, "{status} {headers:?} {body}: {result:?}");
    }
}

#[test]
fn what_an_endpoint_says_is_told_in_short_and_on_one_line() {
    let body = format!("{{\"Message\":\"no\\nsuch {}\"}}", "x".repeat(10_000));
    let error = [("x-amzn-errortype", "ResourceNotFoundException:http://internal")];
    let refused = head(404, &error).judge(body.into()).expect_err("refused").to_string();
    assert!(refused.contains("404 Not Found ResourceNotFoundException nosuch xx"), "{refused}");
    assert!(refused.len() < 400 && !refused.contains('\n'), "{refused}");
}

fn settings(text: &str) -> LambdaSettings {
    let file = Some(("gatecast.toml".to_owned(), format!("[lambdas.a]\n{text}")));
    let config = Config::load(&Sources { file, ..Sources::default() }).expect("valid");
    config.lambdas.first().expect("one").clone()
}

fn lambda(text: &str) -> Lambda {
    let roots = Arc::new(RootCertStore::empty());
    Lambda::new(&settings(text), None, &roots).expect("an address")
}

#[test]
fn a_function_is_called_by_its_region_and_name() {
    for (text, uri) in [
        (
            "function = 'arn:aws:lambda:eu-west-1:123456789012:function:chat:prod'",
            "https://lambda.eu-west-1.amazonaws.com/2015-03-31/functions/arn%3Aaws%3Alambda%3Aeu-west-1%3A123456789012%3Afunction%3Achat%3Aprod/invocations",
        ),
        (
            "function = 'chat:$LATEST'\nregion = 'cn-north-1'",
            "https://lambda.cn-north-1.amazonaws.com.cn/2015-03-31/functions/chat%3A%24LATEST/invocations",
        ),
        (
            "function = 'app-dev-chat'\nendpoint = 'http://127.0.0.1:3002/base/'",
            "http://127.0.0.1:3002/base/2015-03-31/functions/app-dev-chat/invocations",
        ),
        (
            "function = 'function'\nendpoint = 'http://[::1]:80'",
            "http://[::1]:80/2015-03-31/functions/function/invocations",
        ),
    ] {
        assert_eq!(lambda(text).uri.to_string(), uri);
    }
    let host = |text| lambda(text).host;
    assert_eq!(host("function = 'a'\nendpoint = 'http://[::1]:80'"), "[::1]");
    assert_eq!(host("function = 'a'\nendpoint = 'http://a:3002'"), "a:3002");
}

#[tokio::test]
async fn an_event_goes_over_the_wire_as_the_sdks_send_it() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a caller");
        let mut request = Vec::new();
        while !request.ends_with(b"{\"n\":1}") {
            let mut part = [0; 1_024];
            let length = stream.read(&mut part).expect("readable");
            assert!(length > 0, "{}", String::from_utf8_lossy(&request));
            request.extend_from_slice(&part[..length]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnull").expect("a reader");
        String::from_utf8(request).expect("UTF-8")
    });
    let trail = Trail::begin(jiff::Timestamp::now());
    let lambda = lambda(&format!("function = 'chat:prod'\nendpoint = 'http://{address}'"));
    let answer = lambda.carry_out(Bytes::from_static(b"{\"n\":1}"), trail).await;
    assert_eq!(answer, Ok(Bytes::from_static(b"null")));
    let request = server.join().expect("no panic");
    let (line, headers) = request.split_once("\r\n").expect("a line");
    assert_eq!(line, "POST /2015-03-31/functions/chat%3Aprod/invocations HTTP/1.1");
    for header in [
        &format!("host: {address}"),
        "content-type: application/json",
        "content-length: 7",
        "x-amz-invocation-type: RequestResponse",
        &format!("x-amzn-trace-id: {}", trail.amazon()),
    ] {
        assert!(headers.to_ascii_lowercase().contains(&header.to_ascii_lowercase()), "{headers}");
    }
    assert!(!headers.to_ascii_lowercase().contains("authorization"), "{headers}");
}

#[tokio::test]
async fn an_event_that_nobody_takes_is_not_sent() {
    let trail = Trail::begin(jiff::Timestamp::now());
    // Nobody listens there.
    let lambda = lambda("function = 'a'\nendpoint = 'http://127.0.0.1:1'");
    let refused = lambda.carry_out(vec![b' '; MAX_EVENT + 1].into(), trail).await;
    assert!(refused.expect_err("too long").to_string().starts_with("RequestTooLarge: "));
    let refused = lambda.carry_out(Bytes::new(), trail).await;
    assert_eq!(kind(&refused), Kind::Unreachable, "{refused:?}");
}
