//! The command that makes nodes and Redis fail.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::faults::plan::{Backing, Plan};
use crate::faults::sabotage::Sabotage;
use crate::shared::args::{rounds, setting, within};

/// Subscribers of a short run of faults.
const SHORT_SUBSCRIBERS: usize = 12;

#[derive(Debug, Args)]
pub(crate) struct FaultsArgs {
    /// The gatecast program to start
    #[arg(long, value_name = "PATH")]
    pub(crate) gatecast: PathBuf,
    /// Faults to run; may be given more than once, by default all
    #[arg(long, value_name = "NAME")]
    pub(crate) fault: Vec<String>,
    /// Random plans of several faults at a time: one for each round, the first from `--seed`, the
    /// next from the number after it
    #[arg(long, conflicts_with_all = ["fault", "short", "repeat"])]
    pub(crate) random: bool,
    /// Only those of them with this Redis: durable, forgetful, sentinel or cluster
    #[arg(long, value_name = "NAME", requires = "random", value_parser = Backing::named)]
    pub(crate) redis: Option<Backing>,
    /// A plan to run instead, such as `outage=local redis_cut@1s+5s/0 kill_node@3s/1`; may be given
    /// more than once
    #[arg(long, value_name = "PLAN", value_parser = plan, conflicts_with_all = ["fault", "short", "repeat"])]
    pub(crate) plan: Vec<Plan>,
    /// Run plans for this long, instead of a number of rounds
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=1440))]
    pub(crate) minutes: Option<u32>,
    /// Continue after a plan that broke a promise, and count violations by kind
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// A known kind of violation, which does not count; may be given more than once
    #[arg(long, value_name = "KIND")]
    pub(crate) forgive: Vec<String>,
    /// One round of a few faults with a few clients, for a quick check
    #[arg(long)]
    pub(crate) short: bool,
    /// Rounds of each fault
    #[arg(long, default_value_t = 1, value_parser = rounds)]
    pub(crate) rounds: usize,
    /// How often the fault happens in a round, each time after the previous one is repaired
    #[arg(long, default_value_t = 1, value_parser = |text: &str| within(text, 1, 10))]
    pub(crate) repeat: usize,
    /// Nodes
    #[arg(long, default_value_t = 3, value_parser = |text: &str| within(text, 2, 16))]
    pub(crate) nodes: usize,
    /// Clients of the management API that publish, each one message at a time
    #[arg(long, default_value_t = 4, value_parser = |text: &str| within(text, 1, 64))]
    pub(crate) publishers: usize,
    /// WebSocket clients that receive
    #[arg(long, default_value_t = 30, value_parser = |text: &str| within(text, 1, 1000))]
    pub(crate) subscribers: usize,
    /// How many of them also send
    #[arg(long, default_value_t = 2)]
    pub(crate) senders: usize,
    /// Groups; of every N + 1 subscribers the first is in none, the others are in one each
    #[arg(long, default_value_t = 2, value_parser = |text: &str| within(text, 0, 64))]
    pub(crate) groups: usize,
    /// Messages a second of all publishers together
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rate: u32,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Whether a balancer, `haproxy`, stands in front of the nodes
    #[arg(long, default_value = "yes")]
    pub(crate) haproxy: YesNo,
    /// A setting for the nodes, such as `GATECAST_REDIS_ON_OUTAGE=buffer`; may be given more than
    /// once
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    pub(crate) set: Vec<(String, String)>,
    /// Keep the logs of rounds that failed below this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) keep_logs: Option<PathBuf>,
    /// Falsify the run, to show that it then fails
    #[arg(long)]
    pub(crate) sabotage: Option<Sabotage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum YesNo {
    Yes,
    No,
}

impl FaultsArgs {
    pub(crate) fn subscribers(&self) -> usize {
        if self.short { self.subscribers.min(SHORT_SUBSCRIBERS) } else { self.subscribers }
    }

    pub(crate) fn rounds(&self) -> usize {
        if self.short { 1 } else { self.rounds }
    }
}

fn plan(text: &str) -> Result<Plan, String> {
    text.parse().map_err(|err: anyhow::Error| format!("{err:#}"))
}
