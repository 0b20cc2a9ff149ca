//! Answers in the form of API Gateway.

use std::io::{self, Write as _};

use http::header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use serde_json::json;

/// The value of `Connection` in a last answer.
pub(super) const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Room for the head of an answer that is written here.
pub(super) const HEAD_BYTES: usize = 320;

/// Builds an answer with an error type and a message, as API Gateway's SDKs parse it.
pub(crate) fn error_reply(
    status: StatusCode,
    error_type: &'static str,
    message: &str,
) -> Response<Vec<u8>> {
    let mut reply = json_reply(status, json!({ "message": message }).to_string().into_bytes());
    let name = HeaderName::from_static("x-amzn-errortype");
    reply.headers_mut().insert(name, HeaderValue::from_static(error_type));
    reply
}

/// Answers a method that a path does not have, with those that it has.
pub(super) fn method_not_allowed(allowed: &str) -> Response<Vec<u8>> {
    let message = format!("Unsupported method; this path takes {allowed}");
    let mut answer = error_reply(StatusCode::METHOD_NOT_ALLOWED, "BadRequestException", &message);
    if let Ok(allowed) = HeaderValue::from_str(allowed) {
        answer.headers_mut().insert(ALLOW, allowed);
    }
    answer
}

/// Shows a page to whoever reads; of the answer to HEAD the server leaves the body out.
pub(super) fn page(method: &Method, show: impl FnOnce() -> Response<Vec<u8>>) -> Response<Vec<u8>> {
    if matches!(*method, Method::GET | Method::HEAD) {
        show()
    } else {
        method_not_allowed("GET, HEAD")
    }
}

/// Says what is wrong with a request.
pub(crate) fn bad_request(message: &str) -> Response<Vec<u8>> {
    error_reply(StatusCode::BAD_REQUEST, "BadRequestException", message)
}

/// Says that something needed is not there now.
pub(crate) fn unavailable(message: &str) -> Response<Vec<u8>> {
    error_reply(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException", message)
}

/// Makes an answer the last of its connection.
pub(super) fn closing(mut answer: Response<Vec<u8>>) -> Response<Vec<u8>> {
    answer.headers_mut().append(CONNECTION, CLOSE);
    answer
}

/// Builds an answer with a JSON body, which may be empty.
pub(crate) fn json_reply(status: StatusCode, body: Vec<u8>) -> Response<Vec<u8>> {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// Writes an answer out for where the HTTP server does not.
pub(super) fn text_of(answer: &Response<Vec<u8>>) -> io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(HEAD_BYTES + answer.body().len());
    write!(text, "HTTP/1.1 {}\r\n", answer.status())?;
    for (name, value) in answer.headers() {
        text.extend_from_slice(name.as_ref());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    if !answer.status().is_informational() {
        write!(text, "{CONTENT_LENGTH}: {}\r\n", answer.body().len())?;
        if let Ok(now) = DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::now()) {
            write!(text, "{DATE}: {now}\r\n")?;
        }
    }
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(answer.body());
    Ok(text)
}
