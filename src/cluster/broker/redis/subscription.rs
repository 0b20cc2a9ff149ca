//! What the broker asks of its subscriber connections, and what these share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::channels::Channels;
use super::health::Health;
use crate::cluster::peers::Peers;
use crate::cluster::store::Store;
use crate::ops::metrics::Metrics;

/// What the broker wants of the connections.
#[derive(Clone, Debug)]
pub(super) enum Subscription {
    Subscribe(String),
    /// `true` with it if the channel has had messages.
    Unsubscribe(String, bool),
}

/// What connections work with.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) channels: Arc<Channels>,
    pub(super) peers: Arc<Peers>,
    pub(super) health: Arc<Health>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) heartbeat: Duration,
    /// Takes channels that this node has left.
    pub(super) left: mpsc::Sender<String>,
    /// Longest message, in bytes.
    pub(super) message_bytes: usize,
}

impl Subscription {
    pub(super) fn is_subscribe(&self) -> bool {
        matches!(self, Self::Subscribe(_))
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Subscribe(name) | Self::Unsubscribe(name, _) => name,
        }
    }
}
