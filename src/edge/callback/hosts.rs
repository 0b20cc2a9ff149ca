//! Hosts that are mapped to local addresses: TLS is ended here, and what it carried goes on over
//! plain TCP.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::wishes::HostMap;
use crate::edge::http::Listener;
use crate::edge::tls::{self, SESSION_BYTES, Unsecured};
use crate::limits::budget::Gauge;
use crate::ops::lifecycle::Lifecycle;
use crate::ops::metrics::tls::{TlsHandshakes, TlsMetrics};
use crate::ops::metrics::{MappedOutcome, TlsOutcome};

/// Most connections at a time; what is more is closed at once.
const PLACES: usize = 1_024;

/// Longest wait for a connection to a local address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest time in which nothing comes from either side. Clients keep connections for the next
/// call.
const IDLE: Duration = Duration::from_secs(300);

/// Counted for a connection: a buffer each way, and the session.
const CONNECTION_BYTES: usize = SESSION_BYTES + (16 << 10);

/// How long to let the system recover when it has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// See the [module documentation](self).
pub(crate) struct Hosts {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) addresses: HostMap,
    pub(crate) handshake_timeout: Duration,
    pub(crate) lifecycle: Lifecycle,
    /// What connections hold.
    pub(crate) memory: Gauge,
    pub(crate) metrics: TlsMetrics,
    pub(crate) handshakes: TlsHandshakes,
}

impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosts").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Hosts {
    /// Accepts connections until the node ends.
    pub(crate) async fn serve(self, listener: Listener) {
        Arc::new(self).accept(listener, PLACES).await;
    }

    async fn accept(self: Arc<Self>, listener: Listener, places: usize) {
        let (hosts, places) = (self, Arc::new(Semaphore::new(places)));
        loop {
            let stream = match listener
                .accept()
                .await
                .and_then(|(stream, _)| TcpStream::from_std(stream.into()))
            {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection to a mapped host");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                hosts.metrics.count_mapped(MappedOutcome::Busy);
                continue;
            };
            let (served, ending) = (Arc::clone(&hosts), hosts.lifecycle.ending());
            hosts.lifecycle.spawn(async move {
                let held = served.memory.hold(CONNECTION_BYTES);
                ending.run_until_cancelled(Box::pin(served.carry(stream, IDLE))).await;
                drop((held, place));
            });
        }
    }

    /// Carries one connection.
    async fn carry(&self, stream: TcpStream, idle: Duration) {
        let secured = timeout(self.handshake_timeout, tls::accept(&self.acceptor, stream)).await;
        let (outcome, client) = match secured {
            Ok(Ok(client)) => (TlsOutcome::Ok, Some(client)),
            Ok(Err(Unsecured::Plain(_))) => (TlsOutcome::Plain, None),
            Ok(Err(Unsecured::Failed(error))) => {
                tracing::debug!(%error, "TLS handshake for a mapped host");
                (TlsOutcome::Failed, None)
            }
            Err(_) => (TlsOutcome::Late, None),
        };
        self.handshakes.count(outcome);
        let Some(mut client) = client else { return };
        let name = client.get_ref().1.server_name().unwrap_or_default().to_ascii_lowercase();
        let Some(address) = self.addresses.get(&name) else { return };
        let upstream = match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(upstream)) => upstream,
            failed => {
                let error = failed
                    .map_or(Err(io::ErrorKind::TimedOut.into()), |connected| connected.map(drop));
                tracing::warn!(host = name, address, ?error, "a mapped host cannot be reached");
                return self.metrics.count_mapped(MappedOutcome::Unreachable);
            }
        };
        // It only delays what is small.
        drop(upstream.set_nodelay(true));
        let heard = Arc::new(Heard::default());
        let mut upstream = Followed { stream: upstream, heard: Arc::clone(&heard) };
        let outcome = tokio::select! {
            carried = copy_bidirectional(&mut client, &mut upstream) => {
                tracing::debug!(host = name, ?carried, "connection to a mapped host ended");
                MappedOutcome::Done
            }
            () = heard.nothing_for(idle) => MappedOutcome::Idle,
        };
        self.metrics.count_mapped(outcome);
    }
}

/// When bytes last went either way.
#[derive(Debug)]
struct Heard {
    began: Instant,
    /// In milliseconds from the beginning.
    last: AtomicU64,
}

impl Default for Heard {
    fn default() -> Self {
        Self { began: Instant::now(), last: AtomicU64::new(0) }
    }
}

impl Heard {
    fn now(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Waits until nothing has been heard for that long.
    async fn nothing_for(&self, time: Duration) {
        loop {
            let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
            match (last + time).checked_sub(self.began.elapsed()) {
                Some(left) if !left.is_zero() => sleep(left).await,
                _ => return,
            }
        }
    }
}

/// A stream that notes when it takes or gives anything; whatever is carried passes it.
struct Followed {
    stream: TcpStream,
    heard: Arc<Heard>,
}

impl AsyncRead for Followed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        self.heard.now();
        Poll::Ready(read)
    }
}

impl AsyncWrite for Followed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        self.heard.now();
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
