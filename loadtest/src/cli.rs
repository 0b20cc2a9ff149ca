//! The command line.

use std::ffi::OsString;

use clap::{Parser, Subcommand};

use crate::abuse::args::AbuseArgs;
use crate::bench::args::{
    ChurnArgs, ClusterArgs, CompareArgs, FanoutArgs, FloodArgs, FloorArgs, FloorServerArgs,
    GroupsArgs, IdleArgs, LatencyArgs, PostArgs, StormArgs, WorkerArgs,
};
use crate::faults::args::FaultsArgs;
use crate::shared::args::OutputArgs;

/// Black-box load client for WebSocket relays: what a delivery costs, what a connection costs,
/// whether anything is lost.
#[derive(Debug, Parser)]
#[command(name = "loadtest", max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Memory of connections that do nothing
    Idle(IdleArgs),
    /// How fast connections open, and what an opening costs
    Storm(StormArgs),
    /// Memory of connections that are opened and closed again and again
    Churn(ChurnArgs),
    /// One message to every connection
    Fanout(FanoutArgs),
    /// The same with 32 messages under way
    Flood(FloodArgs),
    /// Latency at a given rate of messages, whatever the server does
    Latency(LatencyArgs),
    /// Messages to groups, by random senders
    Groups(GroupsArgs),
    /// Posts of the management API to single connections
    Post(PostArgs),
    /// The reference: a bare loop of send(2) over the sockets
    Floor(FloorArgs),
    /// Nodes on one Redis, loaded as one server
    Cluster(ClusterArgs),
    /// Gatecast beside other servers, in turns, in one table with the performance goals
    Compare(CompareArgs),
    /// Whether anything is lost, doubled or out of order while nodes and Redis fail
    Faults(FaultsArgs),
    /// What hostile clients cost the others
    Abuse(AbuseArgs),
    /// The tables of a result that was stored by `--json`, without measuring again
    Report,
    /// The bare server of `floor`
    #[command(hide = true)]
    FloorServer(FloorServerArgs),
    /// Holds a share of another loadtest's connections
    #[command(hide = true)]
    Worker(WorkerArgs),
    /// Runs a command that the kernel kills when its parent ends
    #[command(hide = true)]
    DieWithParent {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["loadtest", "floor", "--connections", "100001"]).is_err());
        assert!(
            Cli::try_parse_from(["loadtest", "floor", "--connections", "10", "--bytes", "15"])
                .is_err()
        );
        assert!(
            Cli::try_parse_from(["loadtest", "floor", "--connections", "10", "--json", "x"])
                .is_ok()
        );
    }
}
