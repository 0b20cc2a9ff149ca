//! All that a reload may change, as one value that never changes.
//!
//! Rule: take the latest snapshot when something begins (a handshake, a call, the end of a
//! connection, a drain), and keep to it until that is done. Shards hold one, and find the next in
//! their inbox.

use std::sync::Arc;

use ipnet::IpNet;
use tokio::sync::watch;

use super::settings::{Auth, Config, Drain, Limits, Management};
use crate::model::id::NodeTag;
use crate::ops::metrics::Metrics;
use crate::routing::gateway::Gateway;

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) gateway: Gateway,
    pub(crate) limits: Limits,
    pub(crate) drain: Drain,
    pub(crate) management: Management,
    pub(crate) auth: Auth,
    /// Whose word is taken for a client's address and user.
    pub(crate) trusted: Vec<IpNet>,
}

/// Gives the latest snapshot; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Snapshots(watch::Receiver<Arc<Snapshot>>);

impl Snapshot {
    pub(crate) fn new(config: &Config, tag: NodeTag, metrics: &Metrics) -> Self {
        Self {
            gateway: Gateway::new(config.routes.clone(), &config.stage, tag, metrics),
            limits: config.limits,
            drain: config.drain,
            management: config.management.clone(),
            auth: config.auth.clone(),
            trusted: config.proxies.trusted.clone(),
        }
    }
}

impl Snapshots {
    /// Begins with a snapshot; the sender puts others in its place.
    pub(crate) fn begin(first: Snapshot) -> (watch::Sender<Arc<Snapshot>>, Self) {
        let (sender, receiver) = watch::channel(Arc::new(first));
        (sender, Self(receiver))
    }

    pub(crate) fn latest(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.borrow())
    }
}
