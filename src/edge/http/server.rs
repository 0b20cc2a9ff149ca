//! The ports: connections are accepted, find their place, and are served until they end or become
//! WebSockets.
//!
//! The accept loop is ours, so that time-outs, the number of connections and TCP options are too.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::answer::{closing, text_of};
use super::connect::Connect;
use super::conversation::{Conversation, linger};
use super::handshake::{self, Head};
use super::listener::Listener;
use super::request::{self, MAX_HEAD};
use super::routes::{Routes, beginning_with};
use super::slots::{BoundsSource, RequestKind, Slots, Stage, Visit};
use super::{proxies, proxy_header};
use crate::config::Snapshots;
use crate::edge::tls::{self, SESSION_BYTES, Unsecured};
use crate::limits::budget::Gauge;
use crate::ops::lifecycle::Lifecycle;
use crate::ops::metrics::tls::TlsHandshakes;
use crate::ops::metrics::{
    CutCause, HttpMetrics, HttpState, Metrics, ProxyRefusal, RequestRefusal, TlsOutcome,
};
use crate::ops::refusals::Refusals;
use crate::ops::vitals::Pulse;

/// Counted for a connection of the HTTP server: what it reads into, and most of what it writes
/// from.
const CONNECTION_BYTES: usize = MAX_HEAD + (8 << 10);

/// How long to let the system recover when it has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound port, and what is done there.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) listener: Listener,
    pub(crate) accepted: IntCounter,
    pub(crate) first: First,
    pub(crate) stop: CancellationToken,
    /// Whether the accept loop works.
    pub(crate) pulse: Pulse,
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
    /// A handshake of TLS, and then HTTP.
    Tls(Secure),
}

/// What the connections of a port have in common.
#[derive(Debug)]
pub(crate) struct Server {
    lifecycle: Lifecycle,
    accept_errors: IntCounter,
    slots: Arc<Slots>,
    /// What connections hold.
    memory: Gauge,
}

/// Lets in only trusted proxies, which say for whom they connect.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    pub(crate) snapshots: Snapshots,
    pub(crate) metrics: Arc<Metrics>,
}

/// Ends TLS.
#[derive(Clone)]
pub(crate) struct Secure {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) handshakes: TlsHandshakes,
}

impl fmt::Debug for Secure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secure")
    }
}

/// Why a connection did not come to its first request.
enum Missed {
    Late,
    Crowded,
    Ending,
}

impl First {
    /// Returns the handshake that has come, and who serves it.
    fn handshake(&self, stream: &mio::net::TcpStream) -> Option<(&Connect, Head)> {
        let Self::Handshake(connect) = self else { return None };
        handshake::look(stream).map(|head| (&**connect, head))
    }
}

impl Server {
    pub(crate) fn new(
        lifecycle: Lifecycle,
        accept_errors: IntCounter,
        metrics: HttpMetrics,
        refusals: Arc<Refusals>,
        bounds: BoundsSource,
    ) -> Self {
        let slots = Slots::new(bounds, metrics, refusals);
        Self { lifecycle, accept_errors, slots, memory: Gauge::default() }
    }

    /// Counts what connections hold.
    pub(crate) fn counting(self, memory: Gauge) -> Self {
        Self { memory, ..self }
    }

    /// Accepts connections until the port is told to stop.
    pub(crate) async fn serve(self, port: Port, routes: Routes) {
        let (stop, pulse) = (port.stop.clone(), port.pulse.clone());
        tokio::select! {
            () = stop.cancelled() => {}
            () = Arc::new(self).accept(port, routes) => {}
            () = pulse.beat() => {}
        }
    }

    /// Accepts connections for ever. One at a time waits for its place, the others in the backlog.
    async fn accept(self: Arc<Self>, port: Port, routes: Routes) {
        loop {
            match port.listener.accept().await {
                Ok((stream, peer)) => {
                    port.accepted.inc();
                    let visit = self.slots.enter(peer).await;
                    let (first, routes) = (port.first.clone(), Arc::clone(&routes));
                    self.lifecycle.spawn(Arc::clone(&self).serve_one(stream, visit, first, routes));
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
        mut stream: mio::net::TcpStream,
        visit: Visit,
        first: First,
        mut routes: Routes,
    ) {
        if let Some((connect, head)) = first.handshake(&stream)
            && let Some(turn) = visit.try_serve(RequestKind::Handshake)
        {
            let Some((back, refusal)) = connect.serve(head, visit.peer(), stream, turn).await
            else {
                return;
            };
            visit.enter(Stage::Head);
            stream = back;
            routes = beginning_with(refusal, routes);
        }
        let _held = self.memory.hold(CONNECTION_BYTES);
        match TcpStream::from_std(stream.into()) {
            Ok(mut stream) => {
                let conversation = Conversation { lifecycle: &self.lifecycle, routes: &routes };
                if let First::Tls(secure) = &first {
                    let _session = self.memory.hold(SESSION_BYTES);
                    if let Some(stream) = Box::pin(self.secure(stream, &visit, secure)).await {
                        Box::pin(conversation.hold(stream, &visit)).await;
                    }
                } else if self.identify(&mut stream, &visit, &first).await {
                    Box::pin(conversation.hold(stream, &visit)).await;
                }
            }
            Err(error) => {
                self.accept_errors.inc();
                tracing::warn!(%error, "the event loop cannot take a connection");
            }
        }
    }

    /// Finds whom the PROXY header names, where there is to be one; returns false to close. The
    /// header's time is the first head's too.
    async fn identify(&self, stream: &mut TcpStream, visit: &Visit, first: &First) -> bool {
        let peer = visit.peer();
        let First::ProxyHeader(guard) = first else { return true };
        let named = if proxies::trust(&guard.snapshots.latest().trusted, peer.ip()) {
            match self.beforehand(visit, proxy_header::read(stream)).await {
                Ok(header) => header,
                Err(Missed::Late) => Err(ProxyRefusal::Incomplete),
                Err(Missed::Crowded | Missed::Ending) => return false,
            }
        } else {
            Err(ProxyRefusal::Untrusted)
        };
        match named {
            Ok(named) => {
                if let Some(client) = named {
                    visit.name(client);
                }
                true
            }
            Err(refusal) => {
                guard.metrics.count_proxy_refusal(refusal);
                tracing::debug!(reason = ?refusal, %peer, "PROXY header");
                false
            }
        }
    }
    /// Does a handshake of TLS; `None` to close. Its time is the first head's too.
    async fn secure(
        &self,
        stream: TcpStream,
        visit: &Visit,
        secure: &Secure,
    ) -> Option<TlsStream<TcpStream>> {
        let peer = visit.peer();
        let outcome = match self.beforehand(visit, tls::accept(&secure.acceptor, stream)).await {
            Ok(Ok(stream)) => {
                secure.handshakes.count(TlsOutcome::Ok);
                return Some(stream);
            }
            Ok(Err(Unsecured::Plain(stream))) => {
                visit.refuse(RequestRefusal::Plain);
                let answer = text_of(&closing(request::refuse(RequestRefusal::Plain)));
                linger(&self.lifecycle, stream, visit, &answer.unwrap_or_default()).await;
                TlsOutcome::Plain
            }
            Ok(Err(Unsecured::Failed(error))) => {
                tracing::debug!(%error, %peer, "TLS handshake");
                TlsOutcome::Failed
            }
            Err(Missed::Late) => {
                visit.cut(HttpState::Head, CutCause::Timeout);
                TlsOutcome::Late
            }
            Err(Missed::Crowded) => TlsOutcome::Crowded,
            Err(Missed::Ending) => return None,
        };
        secure.handshakes.count(outcome);
        None
    }

    /// Does what comes before the first head, in the time for both.
    async fn beforehand<T>(
        &self,
        visit: &Visit,
        work: impl Future<Output = T>,
    ) -> Result<T, Missed> {
        let ending = self.lifecycle.ending();
        tokio::select! {
            in_time = tokio::time::timeout(visit.bounds().head, work) => in_time.map_err(|_| Missed::Late),
            () = visit.told_to_leave() => {
                visit.cut(HttpState::Head, CutCause::Crowded);
                Err(Missed::Crowded)
            }
            () = ending.cancelled() => Err(Missed::Ending),
        }
    }
}
