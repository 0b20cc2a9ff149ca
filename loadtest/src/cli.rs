//! The command line.
//!
//! Rule: every count and time has an upper bound, so that no run goes on by itself.

mod abuse;
mod compare;
mod faults;
mod idle;
mod messages;
mod output;
mod post;

use std::ffi::OsString;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

pub(crate) use self::abuse::AbuseArgs;
pub(crate) use self::compare::{ClusterArgs, CompareArgs, Peer};
pub(crate) use self::faults::{FaultsArgs, YesNo};
pub(crate) use self::idle::{ChurnArgs, CrowdArgs, IdleArgs, StormArgs};
pub(crate) use self::messages::{
    BroadcastArgs, FanoutArgs, FloodArgs, FloorArgs, FloorServerArgs, GroupsArgs, LatencyArgs,
};
pub(crate) use self::output::OutputArgs;
pub(crate) use self::post::PostArgs;
use crate::bench::dialect::{self, Dialect};
use crate::bench::payload::MIN_BYTES;
use crate::bench::relay::{Audience, Plan};
use crate::shared::target::Target;

const MAX_CONNECTIONS: usize = 100_000;
const MAX_MESSAGES: i64 = 1_000_000;
const MAX_BYTES: usize = 1 << 20;

/// Black-box load client for WebSocket relays: what a delivery costs, what a connection costs, whether anything is lost.
#[derive(Debug, Parser)]
#[command(name = "loadtest", max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// What to measure.
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
    /// Gatecast beside other servers, in turns, in one table with the goals of speed
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
    /// Holds a part of the connections of another loadtest
    #[command(hide = true)]
    Worker(WorkerArgs),
    /// Runs a command that ends when its parent does
    #[command(hide = true)]
    Leash {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    /// Server to load: ws://127.0.0.1:PORT/PATH
    #[arg(long)]
    pub(crate) url: String,
    /// Its process, whose CPU and memory are read from /proc; more than once for a server of several, which are summed
    #[arg(long, required = true)]
    pub(crate) pid: Vec<u32>,
    /// Allow a target that is not a loopback address
    #[arg(long)]
    pub(crate) allow_remote: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WorkersArgs {
    /// Processes that hold the connections; as few as the limit on open files allows, if not given
    #[arg(long, value_parser = |text: &str| within(text, 1, 64))]
    pub(crate) processes: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    #[arg(long)]
    pub(crate) url: String,
    #[arg(long)]
    pub(crate) allow_remote: bool,
    #[command(flatten)]
    pub(crate) dialect: DialectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Messages a round; a tenth more are sent before, to warm up
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=MAX_MESSAGES))]
    pub(crate) messages: u32,
    /// Size of each payload
    #[arg(long, default_value_t = 128, value_parser = bytes)]
    pub(crate) bytes: usize,
    /// Rounds; the table has their median and spread
    #[arg(long, default_value_t = 5, value_parser = rounds)]
    pub(crate) rounds: usize,
    /// Seconds after which a round is cut and has failed
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) max_seconds: u64,
}

#[derive(Debug, Args)]
pub(crate) struct DialectArgs {
    /// The server's protocol
    #[arg(long, value_enum, default_value = "gatecast", value_name = "NAME")]
    pub(crate) dialect: dialect::Name,
    /// What a client sends instead, with `{payload}`, and `{group}` where messages go to groups
    #[arg(long, value_name = "TEXT")]
    pub(crate) message_template: Option<String>,
}

impl TargetArgs {
    /// Returns the server to dial.
    ///
    /// # Errors
    /// As [`Target::parse`].
    pub(crate) fn resolve(&self) -> Result<Target> {
        Target::parse(&self.url, self.allow_remote)
    }
}

impl DialectArgs {
    /// Returns the dialect, with the user's own text for a message to everybody.
    ///
    /// # Errors
    /// It has no place for the payload.
    pub(crate) fn to_everybody(&self) -> Result<Dialect> {
        let mut dialect = self.dialect.dialect();
        dialect.message = self.message_template.clone().unwrap_or(dialect.message);
        dialect.check()
    }
}

impl LoadArgs {
    /// Returns the plan of one round, with one message under way.
    pub(crate) fn plan(&self, groups: usize, group_size: usize, senders: usize) -> Plan {
        Plan {
            audience: Audience::Everybody,
            groups,
            group_size,
            senders: senders.min(group_size),
            messages: self.messages,
            bytes: self.bytes,
            window: 1,
            rate: None,
            limit: Duration::from_secs(self.max_seconds),
        }
    }

    pub(crate) fn describe(&self, connections: usize) -> String {
        let Self { messages, bytes, rounds, .. } = self;
        format!("{connections} connections, {messages} messages of {bytes} bytes, {rounds} rounds")
    }
}

fn connections(text: &str) -> Result<usize, String> {
    within(text, 1, MAX_CONNECTIONS)
}

fn bytes(text: &str) -> Result<usize, String> {
    within(text, MIN_BYTES, MAX_BYTES)
}

fn rounds(text: &str) -> Result<usize, String> {
    within(text, 1, 100)
}

fn rate(text: &str, high: f64) -> Result<f64, String> {
    let value = text.parse().map_err(|err| format!("{err}"))?;
    if (0.1..=high).contains(&value) { Ok(value) } else { Err(format!("must be 0.1 to {high}")) }
}

fn within(text: &str, low: usize, high: usize) -> Result<usize, String> {
    let value = text.parse().map_err(|err| format!("{err}"))?;
    if (low..=high).contains(&value) { Ok(value) } else { Err(format!("must be {low} to {high}")) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["loadtest", "floor", "--connections", "100001"]).is_err());
        assert!(Cli::try_parse_from(["loadtest", "floor", "--connections", "10", "--bytes", "15"]).is_err());
        assert!(Cli::try_parse_from(["loadtest", "floor", "--connections", "10", "--json", "x"]).is_ok());
    }
}
