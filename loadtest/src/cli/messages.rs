//! Commands of messages, and of the server they are compared with.

use anyhow::Result;
use clap::Args;

use super::{DialectArgs, LoadArgs, TargetArgs, connections};
use crate::dialect::Dialect;

#[derive(Debug, Args)]
pub(crate) struct FanoutArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// Connections to open; all receive
    #[arg(long, value_parser = connections)]
    pub(crate) connections: usize,
    /// Messages under way at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) window: u32,
    /// How many of the connections send
    #[arg(long, default_value_t = 8, value_parser = connections)]
    pub(crate) senders: usize,
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
    ///
    /// # Errors
    /// A message has no place for the payload.
    pub(crate) fn dialect(&self) -> Result<Dialect> {
        let mut dialect = self.dialect.dialect.dialect();
        dialect.group_message = self.dialect.message_template.clone().unwrap_or(dialect.group_message);
        dialect.join = self.join_template.clone().unwrap_or(dialect.join);
        dialect.join_reply = self.join_reply.clone().unwrap_or(dialect.join_reply);
        dialect.check()
    }
}
