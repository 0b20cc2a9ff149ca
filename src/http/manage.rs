//! The management API: `POST/GET/DELETE /{stage}/@connections/{id}` as API Gateway has it, and sends to many.
//!
//! Extensions with the same authentication: `POST /{stage}/@broadcast`, `/@groups/{group}`, `/@users/{user}`. Every answer
//! is empty or JSON, since the SDKs parse nothing else; every error has its `x-amzn-ErrorType`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde_json::json;
use tokio::sync::oneshot;
use uuid::Uuid;
use warp::Filter;
use warp::path::FullPath;

use super::{error_reply, json_reply};
use crate::broker::{Broker, Channel, Publication, PublishError, Receipt};
use crate::codec::{Opcode, encode};
use crate::gateway::is_group_name;
use crate::hub::Hub;
use crate::id::{ConnectionId, RequestId};
use crate::metrics::Metrics;
use crate::peers::{Answer, Operation, Peers, carry_out};
use crate::registry::Registry;
use crate::sigv4::{SignatureError, SignedRequest, Verifier};

/// A body over the limit is read on to this size, so that its sender gets the answer instead of a reset.
const DISCARD_MAX: usize = 8 << 20;

/// What the management API works with.
#[derive(Clone, Debug)]
pub(crate) struct Manage {
    pub(crate) stage: Arc<str>,
    /// `None`: callers need not sign.
    pub(crate) verifier: Option<Arc<Verifier>>,
    pub(crate) message_bytes: usize,
    /// For a request's body to arrive.
    pub(crate) body_timeout: Duration,
    /// The other nodes; `None` for a node that is alone.
    pub(crate) peers: Option<Arc<Peers>>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) metrics: Arc<Metrics>,
}

/// A request whose path is the management API's.
struct Call {
    method: Method,
    path: Path,
    wire_path: FullPath,
    query: Option<String>,
    headers: HeaderMap,
    body: Body,
}

enum Body {
    Whole(Bytes),
    TooLarge,
    Broken,
}

/// A path of the management API, decoded: empty segments do not count, `%40` is `@`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Path(Vec<String>);

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
enum Target<'p> {
    Connection(&'p str),
    Channel(Channel),
}

impl Path {
    /// Returns the path if it is the management API's: its first or, behind a stage, second segment starts with `@`.
    fn parse(path: &str) -> Option<Self> {
        let decode = |segment| percent_decode_str(segment).decode_utf8_lossy().into_owned();
        let segments: Vec<String> =
            path.split('/').filter(|segment| !segment.is_empty()).map(decode).collect();
        segments.iter().take(2).any(|segment| segment.starts_with('@')).then_some(Self(segments))
    }

    fn target(&self, stage: &str) -> Option<Target<'_>> {
        let segments: Vec<&str> = self.0.iter().map(String::as_str).collect();
        let (own_stage, rest) = segments.split_first()?;
        if *own_stage != stage {
            return None;
        }
        Some(match rest {
            ["@connections", id] => Target::Connection(id),
            ["@broadcast"] => Target::Channel(Channel::Broadcast),
            ["@groups", group] if is_group_name(group) => Target::Channel(Channel::Group((*group).into())),
            ["@users", user] if is_group_name(user) => Target::Channel(Channel::User((*user).into())),
            _ => return None,
        })
    }
}

/// The routes of the management API; anything else is rejected, for the next filter.
pub(crate) fn routes(
    manage: Manage,
) -> impl Filter<Extract = (Response<Vec<u8>>,), Error = warp::Rejection> + Clone {
    let (limit, timeout) = (manage.message_bytes, manage.body_timeout);
    let path = warp::path::full().and_then(|path: FullPath| async move {
        Path::parse(path.as_str()).map(|parsed| (parsed, path)).ok_or_else(warp::reject::not_found)
    });
    let query = warp::query::raw().map(Some).or(warp::any().map(|| None)).unify();
    path.untuple_one()
        .and(warp::method())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::body::stream().then(move |stream| async move {
            tokio::time::timeout(timeout, read_body(stream, limit)).await.unwrap_or(Body::Broken)
        }))
        .map(|path, wire_path, method, query, headers, body| Call {
            method,
            path,
            wire_path,
            query,
            headers,
            body,
        })
        .then(move |call| {
            let manage = manage.clone();
            async move { manage.answer(call).await }
        })
}

impl Manage {
    async fn answer(&self, call: Call) -> Response<Vec<u8>> {
        let (operation, mut answer) = match self.refusal(&call) {
            None => self.dispatch(&call).await,
            Some(refusal) => ("unauthenticated", refusal),
        };
        self.metrics.management.with_label_values(&[operation, answer.status().as_str()]).inc();
        let (second, random) = (Timestamp::now().as_second(), Uuid::new_v4().as_u128() >> 32);
        let ids = [
            ("x-amzn-requestid", Uuid::new_v4().to_string()),
            ("x-amz-apigw-id", RequestId::mint().to_string()),
            ("x-amzn-trace-id", format!("Root=1-{second:08x}-{random:024x}")),
        ];
        for (name, id) in ids {
            if let Ok(id) = HeaderValue::from_str(&id) {
                answer.headers_mut().insert(HeaderName::from_static(name), id);
            }
        }
        answer
    }

    /// Returns how to refuse a caller who has not proved who they are; where no proof is asked for, at least no
    /// web page may call (pages send `Origin`, back ends do not).
    fn refusal(&self, call: &Call) -> Option<Response<Vec<u8>>> {
        let Some(verifier) = &self.verifier else {
            return call.headers.contains_key(http::header::ORIGIN).then(forbidden);
        };
        let body = match &call.body {
            Body::Whole(body) => body,
            Body::TooLarge => return Some(too_large()),
            Body::Broken => return Some(broken_body()),
        };
        let request = SignedRequest {
            method: &call.method,
            path: call.wire_path.as_str(),
            query: call.query.as_deref(),
            headers: &call.headers,
            body,
        };
        verifier.verify(&request, SystemTime::now()).err().map(|error| not_authentic(&error))
    }

    async fn dispatch(&self, call: &Call) -> (&'static str, Response<Vec<u8>>) {
        let Some(target) = call.path.target(&self.stage) else { return ("none", forbidden()) };
        let operation = match (&target, call.method.as_str()) {
            (Target::Connection(_), "POST") => "post",
            (Target::Connection(_), "GET") => "get",
            (Target::Connection(_), "DELETE") => "delete",
            (Target::Channel(_), "POST") => "publish",
            _ => return ("none", method_not_allowed()),
        };
        let body = match &call.body {
            Body::Whole(body) => body,
            Body::TooLarge => return (operation, too_large()),
            Body::Broken => return (operation, broken_body()),
        };
        let answer = match target {
            Target::Channel(channel) => self.publish(channel, body).await,
            Target::Connection(text) => match ConnectionId::parse(text) {
                None => {
                    let message = format!("Invalid connectionId: {text}");
                    error_reply(StatusCode::BAD_REQUEST, "BadRequestException", &message)
                }
                Some(id) if operation == "post" => self.perform(Operation::Post, id, body).await,
                Some(id) if operation == "get" => self.perform(Operation::Get, id, body).await,
                Some(id) => self.perform(Operation::Delete, id, body).await,
            },
        };
        (operation, answer)
    }

    /// Does something with a connection, wherever it is.
    async fn perform(&self, operation: Operation, id: ConnectionId, body: &[u8]) -> Response<Vec<u8>> {
        let frame = frame(body);
        let answer = match &self.peers {
            Some(peers) => peers.ask(operation, id, frame).await,
            None => Ok(carry_out(&self.hub, &*self.registry, operation, (id, frame)).await),
        };
        match answer {
            Ok(Answer::Done) if operation == Operation::Delete => no_content(),
            Ok(Answer::Done) => json_reply(StatusCode::OK, Vec::new()),
            Ok(Answer::Described(text)) => json_reply(StatusCode::OK, text.into_bytes()),
            Ok(Answer::Gone) => gone(),
            Ok(Answer::Full) => {
                let message = "The connection does not take its messages fast enough";
                error_reply(StatusCode::TOO_MANY_REQUESTS, "LimitExceededException", message)
            }
            Err(error) => unavailable(&error.to_string()),
        }
    }

    async fn publish(&self, channel: Channel, body: &[u8]) -> Response<Vec<u8>> {
        let (caller, answer) = oneshot::channel();
        let publication = Publication { channel, frame: frame(body), receipt: Receipt::Caller(caller) };
        self.broker.publish(&mut vec![publication]);
        match answer.await {
            Ok(Ok(offset)) => {
                json_reply(StatusCode::OK, json!({ "offset": offset.0 }).to_string().into_bytes())
            }
            Ok(Err(error @ PublishError::Overload)) => {
                error_reply(StatusCode::TOO_MANY_REQUESTS, "LimitExceededException", &error.to_string())
            }
            Ok(Err(error @ PublishError::Unavailable)) => unavailable(&error.to_string()),
            Err(_) => unavailable("The node is shutting down"),
        }
    }
}

/// A body that is UTF-8 goes out as text, any other as bytes: nothing a back end posts is refused or bent.
fn frame(body: &[u8]) -> Bytes {
    let opcode = if str::from_utf8(body).is_ok() { Opcode::Text } else { Opcode::Binary };
    encode(opcode, body)
}

fn no_content() -> Response<Vec<u8>> {
    let mut answer = Response::new(Vec::new());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

fn unavailable(message: &str) -> Response<Vec<u8>> {
    error_reply(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException", message)
}

fn gone() -> Response<Vec<u8>> {
    let mut answer = json_reply(StatusCode::GONE, Vec::new());
    let name = HeaderName::from_static("x-amzn-errortype");
    answer.headers_mut().insert(name, HeaderValue::from_static("GoneException"));
    answer
}

fn forbidden() -> Response<Vec<u8>> {
    error_reply(StatusCode::FORBIDDEN, "ForbiddenException", "Forbidden")
}

fn method_not_allowed() -> Response<Vec<u8>> {
    error_reply(StatusCode::METHOD_NOT_ALLOWED, "BadRequestException", "Unsupported method")
}

fn too_large() -> Response<Vec<u8>> {
    error_reply(StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLargeException", "Payload Too Large")
}

fn broken_body() -> Response<Vec<u8>> {
    error_reply(
        StatusCode::BAD_REQUEST,
        "BadRequestException",
        "The request's body did not arrive whole and in time",
    )
}

fn not_authentic(error: &SignatureError) -> Response<Vec<u8>> {
    error_reply(StatusCode::FORBIDDEN, error.error_type(), &error.to_string())
}

/// Reads a body up to `limit` bytes; more is read and dropped, up to a bound.
async fn read_body(
    mut stream: impl Stream<Item = Result<impl Buf, warp::Error>> + Unpin,
    limit: usize,
) -> Body {
    let mut body = BytesMut::new();
    let mut seen = 0_usize;
    while let Some(chunk) = stream.next().await {
        let Ok(mut chunk) = chunk else { return Body::Broken };
        seen += chunk.remaining();
        if seen > DISCARD_MAX {
            break;
        }
        if seen <= limit {
            body.extend_from_slice(&chunk.copy_to_bytes(chunk.remaining()));
        }
    }
    if seen > limit { Body::TooLarge } else { Body::Whole(body.freeze()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_sdks_name_a_connection() {
        for path in [
            "/prod/@connections/L0SM9cOFvHcCIhw%3D",
            "/prod//@connections/L0SM9cOFvHcCIhw%3D",
            "/prod/%40connections/L0SM9cOFvHcCIhw=",
        ] {
            let path = Path::parse(path).expect("a path of the management API");
            assert_eq!(path.target("prod"), Some(Target::Connection("L0SM9cOFvHcCIhw=")), "{path:?}");
            assert_eq!(path.target("beta"), None);
        }
        assert_eq!(Path::parse("/prod"), None);
        assert_eq!(Path::parse("/prod/x/@connections"), None);
        let no_stage = Path::parse("/@connections/L0SM9cOFvHcCIhw=").expect("answered with Forbidden");
        assert_eq!(no_stage.target("prod"), None);
    }
}
