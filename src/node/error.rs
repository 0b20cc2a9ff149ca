//! What keeps a node from starting.

use std::io;
use std::net::SocketAddr;

use crate::cluster::store::StoreError;
use crate::edge::callback::CallbackError;
use crate::edge::http::Listener;
use crate::ops::trace::TraceError;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// A port cannot be bound.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// As configured.
        address: SocketAddr,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The kernel gives no event loop or thread.
    #[error("cannot start an event loop: {0}")]
    EventLoop(#[from] io::Error),
    /// Functions have no way back.
    #[error(transparent)]
    Callback(#[from] CallbackError),
    /// The settings of Redis are wrong.
    #[error("{0}")]
    Redis(String),
    /// A metric is declared wrongly.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The access log has nowhere to go.
    #[error("cannot start the access log: {0}")]
    AccessLog(io::Error),
    /// Spans cannot be exported.
    #[error(transparent)]
    Trace(#[from] TraceError),
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        Self::Redis(error.to_string())
    }
}

/// Binds a port.
pub(crate) fn bind(address: SocketAddr) -> Result<Listener, StartError> {
    Listener::bind(address).map_err(|source| StartError::Bind { address, source })
}
