//! Arguments that several commands have.

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::bench::dialect::{self, Dialect};
use crate::bench::payload::MIN_BYTES;
use crate::bench::relay::{Audience, Plan};
use crate::shared::args::{rounds, within};
use crate::shared::target::Target;

const MAX_CONNECTIONS: usize = 100_000;
pub(crate) const MAX_MESSAGES: i64 = 1_000_000;
const MAX_BYTES: usize = 1 << 20;

#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    /// Server to load: ws://127.0.0.1:PORT/PATH
    #[arg(long)]
    pub(crate) url: String,
    /// Its process, whose CPU and memory are read from /proc; may be given more than once for a
    /// server of several, which are summed
    #[arg(long, required = true)]
    pub(crate) pid: Vec<u32>,
    /// Allow a target that is not a loopback address
    #[arg(long)]
    pub(crate) allow_remote: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WorkersArgs {
    /// Processes that hold the connections; by default as few as the limit on open files allows
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
    #[command(flatten)]
    pub(crate) repeat: RepeatArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RepeatArgs {
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
    pub(crate) fn resolve(&self) -> Result<Target> {
        Target::parse(&self.url, self.allow_remote)
    }
}

impl DialectArgs {
    /// Returns the dialect, with the user's own text of a message to everybody.
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
            limit: self.repeat.limit(),
        }
    }

    pub(crate) fn describe(&self, connections: usize) -> String {
        let Self { messages, bytes, repeat: RepeatArgs { rounds, .. } } = self;
        format!("{connections} connections, {messages} messages of {bytes} bytes, {rounds} rounds")
    }
}

impl RepeatArgs {
    /// Returns the time after which a round is cut.
    pub(crate) fn limit(&self) -> Duration {
        Duration::from_secs(self.max_seconds)
    }
}

pub(crate) fn connections(text: &str) -> Result<usize, String> {
    within(text, 1, MAX_CONNECTIONS)
}

pub(crate) fn bytes(text: &str) -> Result<usize, String> {
    within(text, MIN_BYTES, MAX_BYTES)
}
