//! What a round of one fault and a run of a plan have in common: time limits, their end, the
//! metrics of the nodes.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::judge::{Allowances, judge};
use super::log::Log;
use super::sabotage::Sabotage;
use super::testbed::Testbed;
use crate::shared::node::Counters;

/// Traffic before the first fault.
pub(crate) const BEFORE: Duration = Duration::from_millis(500);
/// All clients are connected within this time.
pub(crate) const OPEN_LIMIT: Duration = Duration::from_secs(20);
/// A repair that takes longer has failed.
pub(crate) const REPAIR_LIMIT: Duration = Duration::from_secs(30);
/// The last messages arrive within this time of the end of publishing.
const ARRIVE_LIMIT: Duration = Duration::from_secs(5);
/// How long to listen for duplicates after that.
const SETTLE: Duration = Duration::from_millis(200);
/// What Redis accepted this shortly before it died may not have reached the nodes.
pub(crate) const UNDER_WAY: Duration = Duration::from_millis(500);

/// The metrics of all nodes together.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Metrics {
    pub(crate) recoveries_repaired: u64,
    pub(crate) recoveries_lost: u64,
    pub(crate) messages_repaired: u64,
    pub(crate) messages_lost: u64,
    pub(crate) redis_reconnects: u64,
}

impl Metrics {
    pub(crate) fn of(counters: &Counters) -> Self {
        Self {
            recoveries_repaired: counters.sum("gatecast_recoveries_total{result=\"repaired\"}"),
            recoveries_lost: counters.sum("gatecast_recoveries_total{result=\"lost\"}"),
            messages_repaired: counters.sum("gatecast_messages_repaired_total"),
            messages_lost: counters.sum("gatecast_messages_lost_total"),
            redis_reconnects: counters.sum("gatecast_redis_reconnects_total"),
        }
    }
}

/// Waits until nothing is missing, and a little longer for duplicates; returns what was noted.
pub(crate) fn settle(
    testbed: &Testbed,
    allowances: &Allowances,
    sabotage: Option<Sabotage>,
) -> Result<Log> {
    let until = Instant::now() + ARRIVE_LIMIT;
    while Instant::now() < until && judge(&testbed.clients.log(), allowances).lost > 0 {
        testbed.sleep(SETTLE)?;
    }
    testbed.sleep(SETTLE)?;
    let mut log = testbed.clients.log();
    if let Some(sabotage) = sabotage {
        sabotage.falsify(&mut log);
    }
    Ok(log)
}
