//! The Lambda Runtime API, as one process of a function sees it: on a port of its own, by which it
//! is known.
//!
//! Whoever reaches the port is believed, as the protocol has no keys; what a page in a browser can
//! send is refused.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::body::{self, Outcome, Unread};
use super::function::Function;
use super::pool::{Failure, ProcessId, Run};
use crate::integrations::invoke::InvokeError;
use crate::ops::metrics::FunctionOutcome;

/// What paths begin with.
const VERSION: &str = "/2018-06-01/runtime/";

/// Longest head: runtimes put errors into headers, of 1 MiB and more.
const HEAD_MAX: usize = 4 << 20;

/// Longest time between requests, with the head of the next: longer than any run.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20 * 60);

/// Connections of a process besides those that its runs take.
const CONNECTIONS: usize = 64;

/// Pause after a failure to accept, as when there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves one process.
#[derive(Debug)]
pub(super) struct RuntimeApi {
    pub(super) function: Arc<Function>,
    pub(super) process: ProcessId,
    pub(super) port: u16,
    /// Most runs of the process at a time.
    pub(super) concurrency: usize,
    /// For a body, besides the time of its run.
    pub(super) body_timeout: Duration,
}

/// The process is to be told nothing; its connection is closed, upon which it exits.
#[derive(Debug, thiserror::Error)]
#[error("the process is being ended")]
struct Closed;

/// A question for work. Dropped, it gives back what was handed out and has not left.
struct Poll<'a> {
    api: &'a RuntimeApi,
    handed: oneshot::Receiver<Run>,
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        self.handed.close();
        if let Ok(run) = self.handed.try_recv() {
            self.api.function.with(|pool, now| pool.take_back(self.api.process, run.id, now));
        }
    }
}

impl RuntimeApi {
    /// Serves for ever.
    pub(super) async fn serve(self, listener: TcpListener) {
        let api = Arc::new(self);
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            if connections.len() >= CONNECTIONS + 2 * api.concurrency {
                connections.join_next().await;
                continue;
            }
            match listener.accept().await {
                Ok((stream, _)) => drop(connections.spawn(Arc::clone(&api).connection(stream))),
                Err(error) => {
                    tracing::debug!(function = &*api.function.name, %error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        // Without it an answer in two pieces would wait for an acknowledgement.
        _ = stream.set_nodelay(true);
        let service = service_fn(|request| {
            let api = Arc::clone(&self);
            async move { api.answer(request).await }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_MAX)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = connection.await {
            tracing::debug!(function = &*self.function.name, process = self.process, %error, "a connection was cut");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Closed> {
        if !self.is_ours(request.headers()) {
            return Ok(refusal(
                StatusCode::FORBIDDEN,
                "Forbidden",
                "only processes of this function may ask",
            ));
        }
        let path = request.uri().path().to_owned();
        let Some(call) = path.strip_prefix(VERSION) else {
            let is_ping = path == "/ping" && request.method() == Method::GET;
            return Ok(if is_ping { plain(StatusCode::OK, "pong") } else { not_found(&path) });
        };
        let mut parts = call.split('/');
        let parts = (parts.next(), parts.next(), parts.next(), parts.next());
        match (request.method(), parts) {
            (&Method::GET, (Some("invocation"), Some("next"), None, None)) => self.next().await,
            (&Method::POST, (Some("invocation"), Some(run), Some("response"), None)) => {
                Ok(self.take(run, request, false).await)
            }
            (&Method::POST, (Some("invocation"), Some(run), Some("error"), None)) => {
                Ok(self.take(run, request, true).await)
            }
            (&Method::POST, (Some("init"), Some("error"), None, None)) => {
                Ok(self.cannot_start(request).await)
            }
            _ => Ok(not_found(&path)),
        }
    }

    /// Returns whether a request comes from a program that was told this port, and not from a page.
    fn is_ours(&self, headers: &HeaderMap) -> bool {
        let hosts = [format!("127.0.0.1:{}", self.port), format!("localhost:{}", self.port)];
        let mut named = headers.get_all(header::HOST).iter();
        let (host, other) = (named.next().and_then(|host| host.to_str().ok()), named.next());
        let is_host =
            host.is_some_and(|host| hosts.iter().any(|own| own.eq_ignore_ascii_case(host)));
        is_host && other.is_none() && !headers.contains_key(header::ORIGIN)
    }

    async fn next(&self) -> Result<Response<Full<Bytes>>, Closed> {
        let (poll, handed) = oneshot::channel();
        if self.function.with(|pool, now| pool.ask(self.process, poll, now)).is_err() {
            return Err(Closed);
        }
        let mut poll = Poll { api: self, handed };
        let run = (&mut poll.handed).await.map_err(|_| Closed)?;
        Ok(self.event(run))
    }

    fn event(&self, run: Run) -> Response<Full<Bytes>> {
        let left = run.until.saturating_duration_since(Instant::now());
        let deadline = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + left;
        let mut response = Response::new(Full::new(run.event));
        let headers = response.headers_mut();
        // Whoever reads Python is given bytes instead of a dictionary by any other type.
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in [
            ("lambda-runtime-aws-request-id", run.id.to_string()),
            ("lambda-runtime-deadline-ms", deadline.as_millis().to_string()),
            ("lambda-runtime-invoked-function-arn", self.function.arn.clone()),
            ("lambda-runtime-trace-id", run.trail.amazon()),
        ] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
        response
    }

    /// Takes the result of a run, or its error.
    async fn take(
        &self,
        run: &str,
        request: Request<Incoming>,
        is_error: bool,
    ) -> Response<Full<Bytes>> {
        let unknown = || {
            refusal(StatusCode::BAD_REQUEST, "InvalidRequestID", "no such invocation is under way")
        };
        let Ok(run) = run.parse::<Uuid>() else { return unknown() };
        let Some(until) = self.function.with(|pool, _| pool.until(self.process, run)) else {
            return unknown();
        };
        let (answer, response) =
            match body::read(request, until + self.body_timeout, is_error).await {
                Ok(Outcome::Result(result)) => (Ok(result), accepted()),
                Ok(Outcome::Error(error)) => {
                    (Err(Failure { outcome: FunctionOutcome::Error, error }), accepted())
                }
                Err(Unread::TooLong(length)) => {
                    let kind = "Function.ResponseSizeTooLarge";
                    let message = format!(
                        "the result has {length} bytes or more, over the limit of {}",
                        body::BODY_MAX
                    );
                    let response =
                        refusal(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &message);
                    let error = InvokeError::Function { kind: kind.to_owned(), message };
                    (Err(Failure { outcome: FunctionOutcome::TooLong, error }), response)
                }
                Err(Unread::Late) => return late(),
                Err(Unread::Cut) => {
                    return refusal(StatusCode::BAD_REQUEST, "InvalidRequest", "the body was cut");
                }
            };
        if self.function.with(|pool, now| pool.answer(self.process, run, answer, now)) {
            response
        } else {
            unknown()
        }
    }

    async fn cannot_start(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let error = match body::read(request, Instant::now() + self.body_timeout, true).await {
            Ok(Outcome::Error(error)) => error,
            Ok(Outcome::Result(_)) | Err(Unread::TooLong(_) | Unread::Cut) => {
                InvokeError::Function {
                    kind: "Runtime.Unknown".to_owned(),
                    message: "the process said that it cannot start, and not why".to_owned(),
                }
            }
            Err(Unread::Late) => return late(),
        };
        let is_taken = self.function.with(|pool, now| pool.cannot_start(self.process, error, now));
        if is_taken.is_err() {
            return refusal(
                StatusCode::FORBIDDEN,
                "InvalidStateTransition",
                "the process has started already",
            );
        }
        accepted()
    }
}

/// An empty body: Lambda's runtime for Rust makes a new connection after any other.
fn accepted() -> Response<Full<Bytes>> {
    plain(StatusCode::ACCEPTED, "")
}

fn late() -> Response<Full<Bytes>> {
    refusal(StatusCode::REQUEST_TIMEOUT, "RequestTimeout", "the body did not come in time")
}

fn not_found(path: &str) -> Response<Full<Bytes>> {
    refusal(StatusCode::NOT_FOUND, "NotFound", &format!("{path} is not part of the Runtime API"))
}

fn plain(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
}

fn refusal(status: StatusCode, kind: &str, message: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({ "errorMessage": message, "errorType": kind }).to_string();
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
