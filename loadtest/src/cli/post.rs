//! The command of the management API.

use std::time::Duration;

use clap::Args;

use super::{MAX_MESSAGES, TargetArgs, bytes, connections, rounds, within};
use crate::post::Plan;

#[derive(Debug, Args)]
pub(crate) struct PostArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Stage that is posted to, if the sockets are another node's: http://127.0.0.1:PORT/STAGE
    #[arg(long)]
    pub(crate) post_url: Option<String>,
    /// WebSocket connections, to which posts go in turn
    #[arg(long, default_value_t = 1000, value_parser = connections)]
    pub(crate) connections: usize,
    /// HTTP connections, each with one post at a time
    #[arg(long, default_value_t = 16, value_parser = |text: &str| within(text, 1, 512))]
    pub(crate) clients: usize,
    /// Posts a round; a tenth more before, to warm up
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=MAX_MESSAGES))]
    pub(crate) posts: u32,
    /// Size of each body
    #[arg(long, default_value_t = 128, value_parser = bytes)]
    pub(crate) bytes: usize,
    /// Rounds; the table has their median and spread
    #[arg(long, default_value_t = 5, value_parser = rounds)]
    pub(crate) rounds: usize,
    /// Seconds after which a round is cut and has failed
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) max_seconds: u64,
}

impl PostArgs {
    /// Returns the plan of one round.
    pub(crate) fn plan(&self) -> Plan {
        let limit = Duration::from_secs(self.max_seconds);
        Plan { posts: self.posts, bytes: self.bytes, limit }
    }
}
