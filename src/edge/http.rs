//! HTTP on both ports: the accept loop, and answers in the form of API Gateway.
//!
//! Only `http` knows warp. The accept loop is ours, so that time-outs, the number of connections and TCP options are too.

use std::convert::Infallible;
use std::future::ready;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;

use http::header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use hyper::body::Incoming;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use parking_lot::Mutex;
use serde_json::json;
use tower_service::Service;
use warp::hyper::Request;
use warp::{Filter, Rejection, Reply as _};

use self::connect::Heir;
pub(crate) use self::listener::Listener;
pub(crate) use self::server::{First, Guard, Port, Server};
pub(crate) use self::slots::Bounds;
use self::slots::Visit;
use crate::limits::budget::Gauge;
use crate::ops::metrics::RequestRefusal;

pub(crate) mod admin;
pub(crate) mod connect;
mod conversation;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod doors;
mod handshake;
mod listener;
pub(crate) mod listing;
mod local;
pub(crate) mod manage;
mod percent;
pub(crate) mod proxies;
mod proxy_header;
mod request;
mod server;
mod slots;
mod upgrade;
mod watched;

/// Longest request head, in bytes; a JWT in a query string fits.
const MAX_HEAD: usize = 16 << 10;

/// Most header fields of a request.
const MAX_HEADERS: usize = 100;

/// Seconds after which a client that found no room should try again: drawn for each, lest all come back at once.
const RETRY_SECONDS: RangeInclusive<u64> = 1..=5;

/// The value of `Connection` in a last answer.
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Room for the head of an answer that is written here.
const HEAD_BYTES: usize = 320;

/// The connection of a request, as its extension.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The other end, be it the client or a proxy.
    peer: SocketAddr,
    /// Of the request.
    version: Version,
    heir: Heir,
    visit: Visit,
}

/// The answer to come. In a box, since hyper and warp would else copy the state of all routes from place to place.
type Answer = Pin<Box<dyn Future<Output = Result<warp::reply::Response, Infallible>> + Send>>;

/// What a port answers.
pub(crate) type Routes = Arc<dyn Fn(Request<Incoming>) -> Answer + Send + Sync>;

/// Makes a filter the routes of a port.
pub(crate) fn routes(
    filter: impl Filter<Extract = (Response<Vec<u8>>,), Error = Rejection> + Clone + Send + Sync + 'static,
) -> Routes {
    counted_routes(filter, Gauge::default())
}

/// As [`routes`]; the answers count as memory until they are written.
pub(crate) fn counted_routes(
    filter: impl Filter<Extract = (Response<Vec<u8>>,), Error = Rejection> + Clone + Send + Sync + 'static,
    memory: Gauge,
) -> Routes {
    let counted = move |answer: Response<Vec<u8>>| answer.map(|body| memory.share(body.into()));
    let service = warp::service(filter.recover(unknown).unify().map(counted));
    Arc::new(move |request| Box::pin(service.clone().call(request)))
}

/// Puts the management API beside other routes. The path decides, so that no filter is tried for nothing.
pub(crate) fn beside_management(manage: Routes, others: Routes) -> Routes {
    Arc::new(move |request| {
        let routes = if manage::is_path(request.uri().path()) { &manage } else { &others };
        routes(request)
    })
}

/// Gives the first request an answer that is known already, the others to their routes.
fn beginning_with(answer: Response<Vec<u8>>, routes: Routes) -> Routes {
    let answer = Mutex::new(Some(answer));
    Arc::new(move |request| match answer.lock().take() {
        Some(answer) => Box::pin(ready(Ok(answer.into_response()))),
        None => routes(request),
    })
}

/// Builds an answer with an error type and a message, as API Gateway's SDKs parse it.
pub(crate) fn error_reply(status: StatusCode, error_type: &'static str, message: &str) -> Response<Vec<u8>> {
    let mut reply = json_reply(status, json!({ "message": message }).to_string().into_bytes());
    let name = HeaderName::from_static("x-amzn-errortype");
    reply.headers_mut().insert(name, HeaderValue::from_static(error_type));
    reply
}

/// Answers what no route takes.
async fn unknown(_: Rejection) -> Result<Response<Vec<u8>>, Infallible> {
    Ok(error_reply(StatusCode::NOT_FOUND, "NotFoundException", "Not Found"))
}

/// Answers a method that a path does not have, with those that it has.
fn method_not_allowed(allowed: &str) -> Response<Vec<u8>> {
    let message = format!("Unsupported method; this path takes {allowed}");
    let mut answer = error_reply(StatusCode::METHOD_NOT_ALLOWED, "BadRequestException", &message);
    if let Ok(allowed) = HeaderValue::from_str(allowed) {
        answer.headers_mut().insert(ALLOW, allowed);
    }
    answer
}

/// Shows a page to whoever reads; of the answer to HEAD the server leaves the body out.
fn page(method: &Method, show: impl FnOnce() -> Response<Vec<u8>>) -> Response<Vec<u8>> {
    if matches!(*method, Method::GET | Method::HEAD) { show() } else { method_not_allowed("GET, HEAD") }
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
fn closing(mut answer: Response<Vec<u8>>) -> Response<Vec<u8>> {
    answer.headers_mut().append(CONNECTION, CLOSE);
    answer
}

/// Answers a request whose turn did not come.
fn busy() -> Response<Vec<u8>> {
    let mut answer = request::refuse(RequestRefusal::Busy);
    answer.headers_mut().insert(RETRY_AFTER, rand::random_range(RETRY_SECONDS).into());
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
fn text_of(answer: &Response<Vec<u8>>) -> io::Result<Vec<u8>> {
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
