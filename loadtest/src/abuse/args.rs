//! The command that floods a node beside innocent clients.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::shared::args::{setting, within};

/// Seconds of each flood in a short run.
const SHORT_SECONDS: usize = 2;

#[derive(Debug, Args)]
pub(crate) struct AbuseArgs {
    /// The gatecast program to start
    #[arg(long, value_name = "PATH")]
    pub(crate) gatecast: PathBuf,
    /// Floods to run; may be given more than once, by default all
    #[arg(long, value_name = "NAME")]
    pub(crate) flood: Vec<String>,
    /// Two seconds of each, judged by everything except latency
    #[arg(long)]
    pub(crate) short: bool,
    /// Seconds of each flood, at another node and at the innocents' node
    #[arg(long, default_value_t = 10, value_parser = |text: &str| within(text, 1, 60))]
    pub(crate) seconds: usize,
    /// A setting for the nodes, such as `GATECAST_SHARDS=1`; may be given more than once
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    pub(crate) set: Vec<(String, String)>,
    /// Seed of the random ports
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

impl AbuseArgs {
    pub(crate) fn time(&self) -> Duration {
        Duration::from_secs(if self.short { SHORT_SECONDS } else { self.seconds } as u64)
    }
}
