//! The Redis of a round: one server, a master with replicas and Sentinels, or a Cluster.

pub(crate) mod cluster;
pub(crate) mod proxy;
pub(crate) mod sentinel;

use anyhow::{Context, Result};

use self::cluster::Cluster;
use self::proxy::Proxy;
use self::sentinel::Sentinels;
use crate::shared::redis::Redis;
use crate::shared::workspace::Workspace;

/// The kinds of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topology {
    /// One server, which persists everything.
    Durable,
    /// One server, which persists nothing.
    Forgetful,
    /// A durable server, to which each node connects through a proxy of its own.
    Proxied,
    /// The same, with a server that persists nothing.
    ProxiedForgetful,
    /// One master, two replicas, three Sentinels.
    Sentinel,
    /// Three masters, each with this number of replicas.
    Cluster(usize),
}

/// A running Redis.
#[derive(Debug)]
pub(crate) enum Backend {
    /// With the nodes' proxies, if they have any.
    Single(Redis, Vec<Proxy>),
    Sentinels(Sentinels),
    Cluster(Cluster),
}

const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];
/// Streams are trimmed to the exact entry, which makes it easy to provoke a loss on purpose.
const EXACT: [&str; 2] = ["--stream-node-max-entries", "1"];

impl Topology {
    /// Starts it for a number of nodes; a single Redis has a clock of its own where that is wanted.
    pub(crate) fn start(
        self,
        workspace: &mut Workspace,
        nodes: usize,
        has_clock: bool,
    ) -> Result<Backend> {
        match self {
            Self::Durable | Self::Proxied | Self::Forgetful | Self::ProxiedForgetful => {
                let is_durable = matches!(self, Self::Durable | Self::Proxied);
                let durable = DURABLE.into_iter().filter(|_| is_durable);
                let args: Vec<&str> = durable.chain(EXACT).collect();
                let redis = Redis::start_with_clock(workspace, &args, has_clock)?;
                let is_proxied = matches!(self, Self::Proxied | Self::ProxiedForgetful);
                let proxies =
                    (0..if is_proxied { nodes } else { 0 }).map(|_| Proxy::start(redis.port));
                let proxies = proxies.collect::<Result<_>>()?;
                Ok(Backend::Single(redis, proxies))
            }
            Self::Sentinel => Sentinels::start(workspace).map(Backend::Sentinels),
            Self::Cluster(replicas) => Cluster::start(replicas, workspace).map(Backend::Cluster),
        }
    }
}

impl Backend {
    /// Returns the URL for a node.
    pub(crate) fn url(&self, node: usize) -> String {
        match self {
            Self::Single(redis, proxies) => {
                let port = proxies.get(node).map_or(redis.port, |proxy| proxy.port);
                format!("redis://127.0.0.1:{port}")
            }
            Self::Sentinels(sentinels) => sentinels.url(),
            Self::Cluster(cluster) => cluster.url(),
        }
    }

    pub(crate) fn single(&mut self) -> Result<&mut Redis> {
        match self {
            Self::Single(redis, _) => Ok(redis),
            Self::Sentinels(_) | Self::Cluster(_) => anyhow::bail!("this fault needs one Redis"),
        }
    }

    pub(crate) fn proxy(&self, node: usize) -> Result<&Proxy> {
        match self {
            Self::Single(_, proxies) => proxies.get(node).context("this fault needs a proxy"),
            Self::Sentinels(_) | Self::Cluster(_) => anyhow::bail!("this fault needs a proxy"),
        }
    }

    pub(crate) fn sentinels(&mut self) -> Result<&mut Sentinels> {
        match self {
            Self::Sentinels(sentinels) => Ok(sentinels),
            Self::Single(..) | Self::Cluster(_) => anyhow::bail!("this fault needs Sentinels"),
        }
    }

    pub(crate) fn cluster(&mut self) -> Result<&mut Cluster> {
        match self {
            Self::Cluster(cluster) => Ok(cluster),
            Self::Single(..) | Self::Sentinels(_) => anyhow::bail!("this fault needs a Cluster"),
        }
    }

    /// Kills a master, in a Cluster the busiest; returns whether there was one.
    pub(crate) fn kill_master(&mut self) -> Result<bool> {
        match self {
            Self::Sentinels(sentinels) if sentinels.has_master() => {
                sentinels.kill_master().map(|_| true)
            }
            Self::Cluster(cluster) => cluster.kill_busiest_master().map(|_| true),
            Self::Single(..) | Self::Sentinels(_) => Ok(false),
        }
    }

    /// Restarts masters that were killed, as replicas.
    pub(crate) fn revive(&mut self) -> Result<()> {
        match self {
            Self::Single(..) => Ok(()),
            Self::Sentinels(sentinels) => sentinels.revive(),
            Self::Cluster(cluster) => cluster.revive(),
        }
    }
}
