//! Looks at the node's memory ten times a second, shows what is held, and wakes the shards when it
//! runs out.

use std::sync::Arc;
use std::time::Duration;

use crate::limits::budget::{Budget, Kind};
use crate::ops::metrics::{Metrics, as_i64, memory};
use crate::shard::hub::Hub;

/// Between two looks. Shards look at the end of each turn, so only what is held elsewhere waits for
/// this.
const EVERY: Duration = Duration::from_millis(100);

/// Returns how much clients and callers may make the node hold: what is set, or half of what the
/// process may use, in bytes.
pub(crate) fn limit(setting: usize, metrics: &Metrics) -> usize {
    let process = usize::try_from(metrics.memory_limit.get()).unwrap_or(usize::MAX);
    if setting > process {
        tracing::warn!(setting, process, "limits.memory_budget is more than the process may use");
    }
    let limit = if setting == 0 { process / 2 } else { setting };
    metrics.memory_budget.set(as_i64(limit));
    limit
}

/// Runs for ever.
pub(crate) async fn watch(hub: Arc<Hub>, metrics: Arc<Metrics>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut was_tight = false;
    loop {
        ticks.tick().await;
        let budget = hub.budget();
        budget.gauge(Kind::Sockets, 0).set(memory::sockets());
        budget.renew();
        show(budget, &metrics);
        if budget.is_exhausted() {
            hub.relieve();
        }
        if budget.is_tight() != was_tight {
            was_tight = !was_tight;
            say(was_tight, budget);
        }
    }
}

fn show(budget: &Budget, metrics: &Metrics) {
    for kind in Kind::ALL {
        metrics.memory_used.with_label_values(&[kind.label()]).set(as_i64(budget.used_for(kind)));
    }
}

fn say(is_tight: bool, budget: &Budget) {
    let (used, limit) = (budget.used(), budget.limit());
    if is_tight {
        tracing::warn!(
            used,
            limit,
            "memory runs out: handshakes, posts and publications are refused; gatecast_memory_used_bytes says what for"
        );
    } else {
        tracing::info!(used, limit, "there is memory again");
    }
}
