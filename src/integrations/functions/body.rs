//! Reads what a process posts: results, and errors, of which some come behind the result, in
//! trailers.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use serde::Deserialize;
use tokio::time::{Instant, timeout, timeout_at};

use crate::integrations::invoke::InvokeError;

/// Longest body: 6 MiB, and what Lambda allows besides.
pub(super) const BODY_MAX: usize = (6 << 20) + 100;

/// Of a body that is too long so much more is read and thrown away, so that the refusal is.
const THROWN_MAX: u64 = 256 << 20;
const THROW_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest text of an error that is kept, in bytes.
const MESSAGE_MAX: usize = 4 << 10;

const ERROR_TYPE: &str = "lambda-runtime-function-error-type";
const ERROR_BODY: &str = "lambda-runtime-function-error-body";

/// What was posted.
#[derive(Debug)]
pub(super) enum Outcome {
    Result(Bytes),
    Error(InvokeError),
}

/// Why nothing could be read.
#[derive(Debug)]
pub(super) enum Unread {
    /// It has this many bytes, or more.
    TooLong(u64),
    Late,
    /// The connection has ended before it.
    Cut,
}

/// The body of an error.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Described {
    #[serde(rename = "errorType")]
    kind: Option<String>,
    #[serde(rename = "errorMessage")]
    message: Option<String>,
}

/// Reads a body, until then at most.
pub(super) async fn read(
    request: Request<Incoming>,
    until: Instant,
    is_error: bool,
) -> Result<Outcome, Unread> {
    let (head, mut body) = request.into_parts();
    let announced = body.size_hint().lower();
    if announced > BODY_MAX as u64 {
        throw_away(&mut body).await;
        return Err(Unread::TooLong(announced));
    }
    let whole = timeout_at(until, collect(&mut body)).await.map_err(|_| Unread::Late)?;
    if let Err(Unread::TooLong(_)) = &whole {
        throw_away(&mut body).await;
    }
    let (bytes, trailers) = whole?;
    Ok(if is_error {
        Outcome::Error(error(&head.headers, &bytes))
    } else if trailers.contains_key(ERROR_TYPE) {
        Outcome::Error(error(&trailers, &error_body(&trailers)))
    } else {
        Outcome::Result(bytes)
    })
}

async fn collect(body: &mut Incoming) -> Result<(Bytes, HeaderMap), Unread> {
    let (mut bytes, mut trailers) = (BytesMut::new(), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        match frame.map_err(|_| Unread::Cut)?.into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
        if bytes.len() > BODY_MAX {
            return Err(Unread::TooLong(bytes.len() as u64));
        }
    }
    Ok((bytes.freeze(), trailers))
}

/// Reads on for a while: who is still writing would not see what it is answered.
async fn throw_away(body: &mut Incoming) {
    let all = async {
        let mut thrown = 0;
        while let Some(Ok(frame)) = body.frame().await {
            thrown += frame.data_ref().map_or(0, |data| data.len() as u64);
            if thrown > THROWN_MAX {
                return;
            }
        }
    };
    // What is not read by then is cut.
    _ = timeout(THROW_TIMEOUT, all).await;
}

fn error_body(trailers: &HeaderMap) -> Bytes {
    let body = trailers.get(ERROR_BODY).and_then(|body| STANDARD.decode(body.as_bytes()).ok());
    body.unwrap_or_default().into()
}

fn error(headers: &HeaderMap, body: &[u8]) -> InvokeError {
    let described: Described = serde_json::from_slice(body).unwrap_or_default();
    let told = headers.get(ERROR_TYPE).and_then(|kind| kind.to_str().ok()).map(str::to_owned);
    // A runtime's header says less than its body: `Unhandled`.
    let kind = described
        .kind
        .filter(|kind| !kind.is_empty())
        .or(told)
        .unwrap_or_else(|| "Unhandled".to_owned());
    let message = described.message.unwrap_or_else(|| {
        let start = body.get(..MESSAGE_MAX.min(body.len())).unwrap_or_default();
        String::from_utf8_lossy(start).into_owned()
    });
    InvokeError::Function { kind: cut(kind), message: cut(message) }
}

fn cut(text: String) -> String {
    if text.len() <= MESSAGE_MAX {
        return text;
    }
    format!("{}…", text.get(..text.floor_char_boundary(MESSAGE_MAX)).unwrap_or_default())
}
