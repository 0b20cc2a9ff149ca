//! Commands of connections that send nothing.

use clap::Args;

use super::common::{DialectArgs, TargetArgs, WorkersArgs, connections};
use crate::shared::args::{rate, rounds, within};

/// Handshakes a second: more than any server here accepts.
const MAX_RATE: f64 = 1e6;

/// Connections and their target.
#[derive(Debug, Args)]
pub(crate) struct ClientsArgs {
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
    pub(crate) clients: ClientsArgs,
    /// Rounds of opening and closing all connections
    #[arg(long, default_value_t = 1, value_parser = rounds)]
    pub(crate) rounds: usize,
    /// Groups that each connection joins; 50 connections share the same ones
    #[arg(long, default_value_t = 0, value_parser = |text: &str| within(text, 0, 1000))]
    pub(crate) groups: usize,
}

#[derive(Debug, Args)]
pub(crate) struct ChurnArgs {
    #[command(flatten)]
    pub(crate) clients: ClientsArgs,
    /// How often all connections are opened; they are closed before each opening except the first
    #[arg(long, default_value_t = 11, value_parser = |text: &str| within(text, 2, 100))]
    pub(crate) openings: usize,
}

#[derive(Debug, Args)]
pub(crate) struct StormArgs {
    #[command(flatten)]
    pub(crate) clients: ClientsArgs,
    /// Rounds; the table has their median and spread
    #[arg(long, default_value_t = 5, value_parser = rounds)]
    pub(crate) rounds: usize,
    /// Handshakes a second; by default as many as the server accepts
    #[arg(long, value_parser = |text: &str| rate(text, MAX_RATE))]
    pub(crate) rate: Option<f64>,
    /// Handshakes at once
    #[arg(long, default_value_t = 128, value_parser = |text: &str| within(text, 1, 4096))]
    pub(crate) under_way: usize,
}
