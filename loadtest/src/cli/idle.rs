//! Commands of connections that send nothing.

use clap::Args;

use super::{TargetArgs, connections, rounds};

#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Connections to open
    #[arg(long, value_parser = connections)]
    pub(crate) connections: usize,
    /// Rounds of opening and closing all of them
    #[arg(long, default_value_t = 1, value_parser = rounds)]
    pub(crate) rounds: usize,
}
