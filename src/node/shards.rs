//! Starts the shards, and has them watched.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::config::{Config, Snapshots};
use crate::limits::budget::Budget;
use crate::ops::lifecycle::Lifecycle;
use crate::ops::metrics::Metrics;
use crate::ops::vitals::{Part, Vitals};
use crate::shard::hub::Hub;
use crate::shard::{EventLoop, Parts, Shard, pressure};

/// Asks the kernel for what shards need.
///
/// # Errors
/// The kernel's: no descriptors left.
pub(super) fn open(
    config: &Config,
    metrics: &Arc<Metrics>,
) -> io::Result<(Vec<EventLoop>, Arc<Hub>)> {
    let shards = config.shard_count();
    let limit = pressure::limit(config.limits.memory_budget, metrics);
    let budget = Arc::new(Budget::new(limit, shards));
    let event_loops = (0..shards).map(|index| EventLoop::open(&budget, index, shards));
    let event_loops = event_loops.collect::<io::Result<Vec<_>>>()?;
    let inboxes = event_loops.iter().map(EventLoop::inbox).collect();
    Ok((event_loops, Arc::new(Hub::new(inboxes, Arc::clone(metrics), budget))))
}

pub(super) fn start(
    loops: Vec<EventLoop>,
    parts: &Parts,
    snapshots: &Snapshots,
    lifecycle: &Lifecycle,
) -> io::Result<Vec<JoinHandle<()>>> {
    let start = |(index, event_loop)| {
        let shard = Shard::new(index, event_loop, parts.clone(), snapshots.latest());
        let name = format!("shard-{index}");
        let vital = lifecycle.vital(&name, lifecycle.ending());
        std::thread::Builder::new().name(name).spawn(move || {
            shard.run();
            drop(vital);
        })
    };
    loops.into_iter().enumerate().map(start).collect()
}

pub(super) fn watch(hub: &Arc<Hub>, lifecycle: &Lifecycle) -> Arc<Vitals> {
    let vitals = Arc::new(Vitals::default());
    for index in 0..hub.shard_count() {
        let (hub, steps) = (Arc::clone(hub), hub.inbox(index).steps.clone());
        let wake = Box::new(move || hub.inbox(index).wake());
        vitals.watch(Part { name: format!("shard-{index}"), steps, wake });
    }
    lifecycle.spawn_until_end("watch over the parts", Arc::clone(&vitals).run());
    vitals
}
