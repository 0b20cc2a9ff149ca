//! Commands that start the servers themselves.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::common::{LoadArgs, connections};
use crate::bench::works::{GATECAST, SOCKET_IO_REDIS};
use crate::shared::args::{rounds, within};

#[derive(Debug, Args)]
pub(crate) struct ServersArgs {
    /// The gatecast program to start
    #[arg(long, value_name = "PATH")]
    pub(crate) gatecast: PathBuf,
    /// The folder with the scripts of the other servers
    #[arg(long, value_name = "DIR", default_value = "loadtest/peers")]
    pub(crate) peers: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    #[command(flatten)]
    pub(crate) servers: ServersArgs,
    /// Rounds; the tables have their median and spread
    #[arg(long, default_value_t = 5, value_parser = rounds)]
    pub(crate) rounds: usize,
    /// Measure only works whose name contains this; may be given more than once
    #[arg(long, value_name = "WORK")]
    pub(crate) only: Vec<String>,
    /// Measure gatecast and the bare send loop only
    #[arg(long)]
    pub(crate) without_peers: bool,
    /// Also measure uWebSockets.js, beside the C++ library
    #[arg(long, conflicts_with = "without_peers")]
    pub(crate) uwebsockets_js: bool,
    /// One round with few connections and messages: shows that everything works, not how fast
    #[arg(long)]
    pub(crate) quick: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    #[command(flatten)]
    pub(crate) servers: ServersArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// The nodes' server
    #[arg(long, value_enum, default_value = "gatecast", value_name = "NAME")]
    pub(crate) peer: Peer,
    /// Nodes
    #[arg(long, default_value_t = 3, value_parser = |text: &str| within(text, 1, 16))]
    pub(crate) nodes: usize,
    /// Connections to open, to the nodes in turn; all receive
    #[arg(long, default_value_t = 1000, value_parser = connections)]
    pub(crate) connections: usize,
    /// How many of the connections send
    #[arg(long, default_value_t = 8, value_parser = connections)]
    pub(crate) senders: usize,
    /// Messages under way at once
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) window: u32,
    /// Messages a second of an open loop, instead of a window
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: Option<u32>,
}

/// Servers that can run as several nodes on one Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    Gatecast,
    Socketio,
}

impl Peer {
    /// Returns the name of the server in tables.
    pub(crate) fn server(self) -> &'static str {
        match self {
            Self::Gatecast => GATECAST,
            Self::Socketio => SOCKET_IO_REDIS,
        }
    }
}
