//! HTTP on both ports: the accept loop, and answers in the form of API Gateway.
//!
//! Only `http` knows warp. The accept loop is ours, so that time-outs, the number of connections and TCP options are too.

use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1::{self, Parts};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use prometheus::IntCounter;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_service::Service;
use warp::hyper::Request;
use warp::{Filter, Rejection, Reply as _};

use crate::connection::NewSocket;
use crate::lifecycle::Lifecycle;
use crate::metrics::{CutCause, HttpMetrics, HttpState, Metrics, ProxyRefusal, RequestRefusal};
use crate::refusals::{Refusals, Told};

use self::connect::{Connect, Heir};
use self::handshake::Head;
pub(crate) use self::listener::Listener;
use self::proxies::Proxies;

pub(crate) mod admin;
pub(crate) mod connect;
mod handshake;
mod listener;
pub(crate) mod listing;
mod local;
pub(crate) mod manage;
pub(crate) mod proxies;
mod proxy_header;
mod request;
mod upgrade;

/// Longest request head, in bytes; a JWT in a query string fits.
const MAX_HEAD: usize = 16 << 10;

/// Most header fields of a request.
const MAX_HEADERS: usize = 100;

/// How long to let the system recover when it has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The connection of a request, as its extension.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The other end, be it the client or a proxy.
    peer: SocketAddr,
    /// Of the request.
    version: Version,
    heir: Heir,
}

/// The answer to come. In a box, since hyper and warp would else copy the state of all routes from place to place.
type Answer = Pin<Box<dyn Future<Output = Result<warp::reply::Response, Infallible>> + Send>>;

/// What a port answers.
pub(crate) type Routes = Arc<dyn Fn(Request<Incoming>) -> Answer + Send + Sync>;

/// Makes a filter the routes of a port.
pub(crate) fn routes(
    filter: impl Filter<Extract = (Response<Vec<u8>>,), Error = Rejection> + Clone + Send + Sync + 'static,
) -> Routes {
    let service = warp::service(filter.recover(unknown).unify());
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

/// A bound port, and what is done there.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) listener: Listener,
    pub(crate) accepted: IntCounter,
    pub(crate) first: First,
    pub(crate) stop: CancellationToken,
}

/// What a connection begins with.
#[derive(Clone, Debug)]
pub(crate) enum First {
    /// HTTP.
    Request,
    /// HTTP, and mostly a handshake.
    Handshake(Arc<Connect>),
    /// A PROXY header, and then HTTP.
    ProxyHeader(Guard),
}

/// Settings of a port's connections.
#[derive(Debug)]
pub(crate) struct Server {
    lifecycle: Lifecycle,
    accept_errors: IntCounter,
    metrics: HttpMetrics,
    refusals: Arc<Refusals>,
    handshake_timeout: Duration,
    permits: Arc<Semaphore>,
}

/// Lets in only trusted proxies, which say for whom they connect.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) metrics: Arc<Metrics>,
}

impl First {
    /// Returns the handshake that has come, and who serves it.
    fn handshake(&self, stream: &mio::net::TcpStream) -> Option<(&Connect, Head)> {
        let Self::Handshake(connect) = self else { return None };
        handshake::look(stream).map(|head| (&**connect, head))
    }
}

impl Server {
    /// Settings for at most so many connections at a time.
    pub(crate) fn new(
        lifecycle: Lifecycle,
        (accept_errors, metrics, refusals): (IntCounter, HttpMetrics, Arc<Refusals>),
        max_connections: usize,
        handshake_timeout: Duration,
    ) -> Self {
        Self {
            lifecycle,
            accept_errors,
            metrics,
            refusals,
            handshake_timeout,
            permits: Arc::new(Semaphore::new(max_connections)),
        }
    }

    /// Accepts connections until the port is told to stop.
    pub(crate) async fn serve(self, port: Port, routes: Routes) {
        let stop = port.stop.clone();
        stop.run_until_cancelled(Arc::new(self).accept(port, routes)).await;
    }

    /// Accepts connections for ever; a permit comes first, so that a flood waits in the backlog.
    async fn accept(self: Arc<Self>, port: Port, routes: Routes) {
        while let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await {
            match port.listener.accept().await {
                Ok((stream, peer)) => {
                    port.accepted.inc();
                    let (first, routes) = (port.first.clone(), Arc::clone(&routes));
                    let one = Arc::clone(&self).serve_one(stream, peer, first, routes);
                    self.lifecycle.spawn(async move {
                        one.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    self.accept_errors.inc();
                    tracing::warn!(%error, "accepting");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves a connection until it ends or becomes a WebSocket.
    async fn serve_one(
        self: Arc<Self>,
        stream: mio::net::TcpStream,
        peer: SocketAddr,
        first: First,
        routes: Routes,
    ) {
        let (stream, refusal) = match first.handshake(&stream) {
            None => (stream, None),
            Some((connect, head)) => match connect.serve(head, peer, stream).await {
                None => return,
                Some((stream, refusal)) => (stream, Some(refusal)),
            },
        };
        let routes = match refusal {
            None => routes,
            Some(refusal) => beginning_with(refusal, routes),
        };
        match TcpStream::from_std(stream.into()) {
            Ok(mut stream) => {
                if let Some(peer) = self.identify(&mut stream, peer, &first).await {
                    Box::pin(self.converse(stream, peer, routes)).await;
                }
            }
            Err(error) => {
                self.accept_errors.inc();
                tracing::warn!(%error, "the event loop cannot take a connection");
            }
        }
    }

    /// Returns the other end as the PROXY header has it, where there is one; `None` to close.
    async fn identify(&self, stream: &mut TcpStream, peer: SocketAddr, first: &First) -> Option<SocketAddr> {
        let First::ProxyHeader(guard) = first else { return Some(peer) };
        let named = if guard.proxies.trust(peer.ip()) {
            let header = tokio::time::timeout(self.handshake_timeout, proxy_header::read(stream));
            let in_time = self.lifecycle.ending().run_until_cancelled_owned(header).await?;
            in_time.unwrap_or(Err(ProxyRefusal::Incomplete))
        } else {
            Err(ProxyRefusal::Untrusted)
        };
        match named {
            Ok(named) => Some(named.unwrap_or(peer)),
            Err(refusal) => {
                guard.metrics.count_proxy_refusal(refusal);
                tracing::debug!(reason = ?refusal, "PROXY header");
                None
            }
        }
    }

    /// Answers a request, or refuses it.
    fn answer(&self, request: Request<Incoming>, peer: SocketAddr, heir: &Heir, routes: &Routes) -> Answer {
        let (mut head, body) = request.into_parts();
        if let Err(refusal) = request::normalize(&mut head.uri, head.version, &mut head.headers) {
            self.count(refusal, peer);
            return Box::pin(ready(Ok(request::refuse(refusal).into_response())));
        }
        head.extensions.insert(Caller { peer, version: head.version, heir: heir.clone() });
        routes(Request::from_parts(head, body))
    }

    /// Counts what the HTTP server refused or ended by itself.
    fn note(&self, error: &hyper::Error, peer: SocketAddr) {
        if error.is_timeout() {
            self.metrics.count_cut(HttpState::Head, CutCause::Timeout);
        } else if error.is_parse_too_large() {
            self.count(RequestRefusal::TooLarge, peer);
        } else if error.is_parse() {
            self.count(RequestRefusal::Malformed, peer);
        }
    }

    fn count(&self, refusal: RequestRefusal, peer: SocketAddr) {
        self.metrics.count_refused(refusal);
        let (_, message) = request::told(refusal);
        let (what, cause, address) = ("request", refusal.label(), peer.ip().to_canonical());
        self.refusals.tell(Told { what, cause, address, conn: None, message });
    }

    /// Answers the requests of one connection, until it ends or becomes a WebSocket.
    async fn converse(&self, stream: TcpStream, peer: SocketAddr, routes: Routes) {
        let heir = Heir::default();
        let service = service_fn(|request| self.answer(request, peer, &heir, &routes));
        let mut conversation = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.handshake_timeout)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        let ending = self.lifecycle.ending();
        let ended = tokio::select! {
            ended = poll_fn(|context| conversation.poll_without_shutdown(context)) => ended,
            () = ending.cancelled() => {
                Pin::new(&mut conversation).graceful_shutdown();
                poll_fn(|context| conversation.poll_without_shutdown(context)).await
            }
        };
        if let Err(error) = &ended {
            tracing::debug!(%error, %peer, "HTTP connection");
            self.note(error, peer);
        }
        let Parts { io, read_buf, .. } = conversation.into_parts();
        heir.take_over(ended.map_err(io::Error::other).and_then(|()| {
            let stream = mio::net::TcpStream::from_std(io.into_inner().into_std()?);
            Ok(NewSocket { stream, early: read_buf })
        }));
    }
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
        answer.headers_mut().insert(http::header::ALLOW, allowed);
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

/// Builds an answer with a JSON body, which may be empty.
pub(crate) fn json_reply(status: StatusCode, body: Vec<u8>) -> Response<Vec<u8>> {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}
