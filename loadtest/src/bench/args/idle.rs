//! Commands of connections that send nothing.

use clap::Args;

use super::common::{DialectArgs, TargetArgs, WorkersArgs, connections};
use crate::shared::args::{rate, rounds, within};

/// Handshakes a second: above what any server here takes.
const MAX_RATE: f64 = 1e6;

/// Connections, and where to.
#[derive(Debug, Args)]
pub(crate) struct CrowdArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Connections to open
    #[arg(long, value_parser = connections)]
    pub(crate) connections: usize,
    #[command(flatten)]
    pub(crate) workers: WorkersArgs,
    #[command(flatten)]
    pub(crate) dialect: DialectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    pub(crate) crowd: CrowdArgs,
    /// Rounds of opening and closing all of them
    #[arg(long, default_value_t = 1, value_parser = rounds)]
    pub(crate) rounds: usize,
    /// Groups that each connection joins; 50 connections have the same
    #[arg(long, default_value_t = 0, value_parser = |text: &str| within(text, 0, 1000))]
    pub(crate) groups: usize,
}

#[derive(Debug, Args)]
pub(crate) struct ChurnArgs {
    #[command(flatten)]
    pub(crate) crowd: CrowdArgs,
    /// How often all of them are opened; they are closed before each but the first
    #[arg(long, default_value_t = 11, value_parser = |text: &str| within(text, 2, 100))]
    pub(crate) openings: usize,
}

#[derive(Debug, Args)]
pub(crate) struct StormArgs {
    #[command(flatten)]
    pub(crate) crowd: CrowdArgs,
    /// Rounds; the table has their median and spread
    #[arg(long, default_value_t = 5, value_parser = rounds)]
    pub(crate) rounds: usize,
    /// Handshakes a second; as many as the server takes, if not given
    #[arg(long, value_parser = |text: &str| rate(text, MAX_RATE))]
    pub(crate) rate: Option<f64>,
    /// Handshakes at once
    #[arg(long, default_value_t = 128, value_parser = |text: &str| within(text, 1, 4096))]
    pub(crate) under_way: usize,
}
