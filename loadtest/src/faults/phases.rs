//! What a round of one fault and a run of a plan have in common: their times, their end, the counters of the nodes.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::judge::{Terms, judge};
use super::log::Log;
use super::sabotage::Sabotage;
use super::scene::Scene;
use crate::shared::node::Counters;

/// Traffic before the first fault.
pub(crate) const BEFORE: Duration = Duration::from_millis(500);
/// All clients are there within this time.
pub(crate) const OPEN_LIMIT: Duration = Duration::from_secs(20);
/// Repair that takes longer is none.
pub(crate) const REPAIR_LIMIT: Duration = Duration::from_secs(30);
/// What was accepted last arrives within this time of the end of all publishing.
const ARRIVE_LIMIT: Duration = Duration::from_secs(5);
/// How long to listen for duplicates after that.
const SETTLE: Duration = Duration::from_millis(200);
/// What Redis has accepted so shortly before it dies may be under way to the nodes.
pub(crate) const UNDER_WAY: Duration = Duration::from_millis(500);

/// What the nodes' own metrics tell, all nodes together.
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

/// Waits until nothing is missing any more, and a little longer for what comes too often; returns what was noted.
pub(crate) fn settle(scene: &Scene, terms: &Terms, sabotage: Option<Sabotage>) -> Result<Log> {
    let until = Instant::now() + ARRIVE_LIMIT;
    while Instant::now() < until && judge(&scene.clients.log(), terms).lost > 0 {
        scene.hold(SETTLE)?;
    }
    scene.hold(SETTLE)?;
    let mut log = scene.clients.log();
    if let Some(sabotage) = sabotage {
        sabotage.falsify(&mut log);
    }
    Ok(log)
}
