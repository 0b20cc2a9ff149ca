//! HTTP on both ports: the accept loop, and answers in the form of API Gateway.
//!
//! Only `http` knows warp. The accept loop is ours, so that time-outs, the number of connections and TCP options are too.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1::{self, Parts};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::IntCounter;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower_service::Service;
use warp::hyper::Request;
use warp::{Filter, Rejection};

use crate::lifecycle::Lifecycle;
use crate::metrics::{Metrics, ProxyRefusal};

use self::connect::Heir;
use self::proxies::Proxies;

pub(crate) mod admin;
pub(crate) mod connect;
pub(crate) mod listing;
pub(crate) mod manage;
pub(crate) mod proxies;
mod proxy_header;

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

/// A bound port.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) listener: TcpListener,
    pub(crate) accepted: IntCounter,
    /// Who must begin every connection with a PROXY header; `None` where there is none.
    pub(crate) guard: Option<Guard>,
    pub(crate) stop: CancellationToken,
}

/// Settings of a port's connections.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    lifecycle: Lifecycle,
    accept_errors: IntCounter,
    handshake_timeout: Duration,
    permits: Arc<Semaphore>,
}

/// Lets in only trusted proxies, which say for whom they connect.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Server {
    /// Settings for at most so many connections at a time.
    pub(crate) fn new(
        lifecycle: Lifecycle,
        accept_errors: IntCounter,
        max_connections: usize,
        handshake_timeout: Duration,
    ) -> Self {
        Self {
            lifecycle,
            accept_errors,
            handshake_timeout,
            permits: Arc::new(Semaphore::new(max_connections)),
        }
    }

    /// Accepts connections until the port is told to stop; a permit comes first, so that a flood waits in the backlog.
    pub(crate) async fn serve(self, port: Port, routes: Routes) {
        while let Some((permit, accepted)) = self.accept(&port).await {
            match accepted {
                Ok((mut stream, peer)) => {
                    port.accepted.inc();
                    let (server, routes, guard) = (self.clone(), Arc::clone(&routes), port.guard.clone());
                    self.lifecycle.spawn(async move {
                        if let Some(peer) = server.identify(&mut stream, peer, guard.as_ref()).await {
                            server.converse(stream, peer, routes, permit).await;
                        }
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

    async fn accept(
        &self,
        port: &Port,
    ) -> Option<(OwnedSemaphorePermit, io::Result<(TcpStream, SocketAddr)>)> {
        let next = async {
            let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
            Some((permit, port.listener.accept().await))
        };
        port.stop.run_until_cancelled(next).await.flatten()
    }

    /// Returns the other end as the PROXY header has it, where there is one; `None` to close.
    async fn identify(
        &self,
        stream: &mut TcpStream,
        peer: SocketAddr,
        guard: Option<&Guard>,
    ) -> Option<SocketAddr> {
        let Some(guard) = guard else { return Some(peer) };
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

    /// Answers the requests of one connection, until it ends or becomes a WebSocket.
    async fn converse(
        self,
        stream: TcpStream,
        peer: SocketAddr,
        routes: Routes,
        permit: OwnedSemaphorePermit,
    ) {
        let heir = Heir::default();
        let caller = Caller { peer, heir: heir.clone() };
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(caller.clone());
            routes(request)
        });
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
            tracing::debug!(%error, "HTTP connection");
        }
        let Parts { io, read_buf, .. } = conversation.into_parts();
        heir.take_over(ended.map(|()| (io.into_inner(), read_buf)));
        drop(permit);
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
