//! Commands of messages, and of the reference server.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use super::common::{
    DialectArgs, LoadArgs, MAX_MESSAGES, TargetArgs, WorkersArgs, bytes, connections,
};
use crate::bench::dialect::Dialect;
use crate::bench::relay::{Audience, Plan};
use crate::shared::args::{rate, rounds};

/// Messages a second: more than any server here relays to a single connection.
const MAX_RATE: f64 = 1e5;

#[derive(Debug, Args)]
pub(crate) struct BroadcastArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// Connections to open; all receive
    #[arg(long, value_parser = connections)]
    pub(crate) connections: usize,
    /// How many of the connections send
    #[arg(long, default_value_t = 8, value_parser = connections)]
    pub(crate) senders: usize,
    #[command(flatten)]
    pub(crate) dialect: DialectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct FanoutArgs {
    #[command(flatten)]
    pub(crate) broadcast: BroadcastArgs,
    /// Messages under way at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) window: u32,
}

#[derive(Debug, Args)]
pub(crate) struct FloodArgs {
    #[command(flatten)]
    pub(crate) broadcast: BroadcastArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LatencyArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Messages a second, whatever the server does
    #[arg(long, value_parser = |text: &str| rate(text, MAX_RATE))]
    pub(crate) rate: f64,
    /// Seconds a round; a tenth more before, to warm up
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
    /// Size of each payload
    #[arg(long, default_value_t = 128, value_parser = bytes)]
    pub(crate) bytes: usize,
    /// Rounds; the table has their median and spread
    #[arg(long, default_value_t = 3, value_parser = rounds)]
    pub(crate) rounds: usize,
    /// Connections to open; all receive
    #[arg(long, value_parser = connections)]
    pub(crate) connections: usize,
    /// How many of the connections send
    #[arg(long, default_value_t = 8, value_parser = connections)]
    pub(crate) senders: usize,
    #[command(flatten)]
    pub(crate) workers: WorkersArgs,
    #[command(flatten)]
    pub(crate) dialect: DialectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct GroupsArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// How many groups
    #[arg(long, value_parser = connections)]
    pub(crate) groups: usize,
    /// Connections in each
    #[arg(long, value_parser = connections)]
    pub(crate) size: usize,
    /// Messages under way at once, over all groups
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) window: u32,
    /// How many connections of each group send
    #[arg(long, default_value_t = 8, value_parser = connections)]
    pub(crate) senders: usize,
    #[command(flatten)]
    pub(crate) dialect: DialectArgs,
    /// What a client sends to join, with `{group}`
    #[arg(long, value_name = "TEXT")]
    pub(crate) join_template: Option<String>,
    /// What the server answers to it
    #[arg(long, value_name = "TEXT")]
    pub(crate) join_reply: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct FloorArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// Connections to open; all receive
    #[arg(long, value_parser = connections)]
    pub(crate) connections: usize,
}

#[derive(Debug, Args)]
pub(crate) struct FloorServerArgs {
    pub(crate) connections: usize,
    pub(crate) frame_bytes: usize,
}

impl GroupsArgs {
    /// Returns the dialect, with the user's own texts for groups.
    pub(crate) fn dialect(&self) -> Result<Dialect> {
        let mut dialect = self.dialect.dialect.dialect();
        dialect.group_message =
            self.dialect.message_template.clone().unwrap_or(dialect.group_message);
        dialect.join = self.join_template.clone().unwrap_or(dialect.join);
        dialect.join_reply = self.join_reply.clone().unwrap_or(dialect.join_reply);
        dialect.check()
    }
}

impl LatencyArgs {
    /// Returns the plan of one round.
    pub(crate) fn plan(&self) -> Result<Plan> {
        let messages: u32 =
            format!("{:.0}", (self.rate * f64::from(self.seconds)).max(1.0)).parse()?;
        ensure!(
            i64::from(messages) <= MAX_MESSAGES,
            "{messages} messages are more than {MAX_MESSAGES}"
        );
        Ok(Plan {
            audience: Audience::Everybody,
            groups: 1,
            group_size: self.connections,
            senders: self.senders.min(self.connections),
            messages,
            bytes: self.bytes,
            window: 1,
            rate: Some(self.rate),
            // A server that cannot keep up may take as long again for its backlog.
            limit: Duration::from_secs(u64::from(self.seconds) * 2 + 10),
        })
    }
}
