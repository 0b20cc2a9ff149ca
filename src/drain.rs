//! How fast a node that shuts down closes its connections: as fast as the nodes that stay can take
//! the clients.
//!
//! Those say in their leases how many handshakes they let in a second and how many places they
//! have; the arithmetic is in [`Capacity::of`] and [`Plan::new`]. The shards close
//! ([`Hub::drain`]): they are told a time for all that is left, and another as things change. While
//! Redis is away they go on as they were told last.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::limits::places::Places;
use crate::model::phase::Phase;
use crate::model::registry::{Lease, Registry};
use crate::ops::metrics::{Metrics, as_i64};
use crate::shard::hub::Hub;

#[cfg(test)]
mod tests;

/// Part of the handshakes of those who stay that a drain uses, so that new clients find room too.
const SHARE: f64 = 0.5;

/// Time between two looks at the others, and the longest a look may take. Nodes that are told to
/// end at the same moment may miss each other once, for so long.
const LOOK: Duration = Duration::from_secs(1);

/// Closes all connections of a node.
#[derive(Debug)]
pub(crate) struct Drainer {
    pub(crate) hub: Arc<Hub>,
    pub(crate) places: Arc<Places>,
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) metrics: Arc<Metrics>,
    /// Time between two renewals of a lease.
    pub(crate) renewal: Duration,
    /// Closes a second at least where no other node takes the clients.
    pub(crate) min_rate: usize,
}

/// What those who stay can take from this node.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Capacity {
    /// Handshakes a second.
    rate: f64,
    /// Places.
    places: usize,
}

/// How fast what is left is closed.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Plan {
    left: usize,
    /// Time in which all are closed.
    within: Duration,
    /// Time that it would take without a window; longer than any if nobody can take them.
    needed: Duration,
}

impl Drainer {
    /// Closes all connections within `window`; returns when none is left.
    pub(crate) async fn run(&self, window: Duration) {
        tokio::select! {
            () = self.emptied() => return,
            () = self.pace(window) => {}
        }
        self.emptied().await;
    }

    /// Tells the shards how fast to close, again and again until the window is over.
    async fn pace(&self, window: Duration) {
        let end = Instant::now() + window;
        // A window of nothing is for a node that must not wait for Redis.
        let mut capacity = if window.is_zero() { None } else { self.look().await.flatten() };
        let (mut lowest, mut has_warned) = (f64::INFINITY, false);
        loop {
            let time = end.saturating_duration_since(Instant::now());
            let rate = capacity.map_or(self.min_rate as f64, |capacity| capacity.rate);
            let plan = Plan::new(self.places.taken(), time, rate);
            self.hub.drain(plan.within);
            self.metrics.drain_rate.set(plan.rate());
            tracing::debug!(?plan, ?capacity, "drain");
            // Only news count: towards the end, what is left are clients that do not answer their
            // close frames.
            if let Some(capacity) =
                capacity.filter(|_| rate < lowest && plan.is_forced() && !has_warned)
            {
                plan.warn(capacity);
                has_warned = true;
            }
            lowest = lowest.min(rate);
            if time.is_zero() {
                return;
            }
            capacity = self.news().await;
        }
    }

    /// Waits for the next look that Redis answers.
    async fn news(&self) -> Option<Capacity> {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Some(capacity) = self.look().await {
                return capacity;
            }
        }
    }

    /// Asks what those who stay can take; the inner `None` is for nobody stays, the outer one for
    /// Redis is away.
    async fn look(&self) -> Option<Option<Capacity>> {
        let others = tokio::time::timeout(LOOK, self.registry.others()).await.ok()?.ok()?;
        Some(Capacity::of(&others, self.renewal))
    }

    /// Waits until no connection is left.
    async fn emptied(&self) {
        loop {
            let freed = self.places.freed();
            let left = self.places.taken();
            self.metrics.drain_remaining.set(as_i64(left));
            if left == 0 {
                return;
            }
            freed.await;
        }
    }
}

impl Capacity {
    /// Adds up what those who stay offer, and takes this node's part of it; `None` if nobody stays.
    fn of(others: &[Lease], renewal: Duration) -> Option<Self> {
        let is_sharer = |lease: &&Lease| lease.phase == Phase::Draining && lease.connections > 0;
        let sharers = 1 + others.iter().filter(is_sharer).count();
        // What a lease says may be one renewal old, and has to do until the next look.
        let horizon = (renewal + LOOK).as_secs_f64();
        let offer = |lease: &Lease| {
            let places = lease.max_connections.saturating_sub(lease.connections);
            Self {
                rate: (lease.handshake_rate as f64 * SHARE).min(places as f64 / horizon),
                places,
            }
        };
        let staying = others.iter().filter(|lease| lease.phase == Phase::Ready).map(offer);
        let all =
            staying.reduce(|a, b| Self { rate: a.rate + b.rate, places: a.places + b.places })?;
        Some(Self { rate: all.rate / sharers as f64, places: all.places / sharers })
    }
}

impl Plan {
    /// Closes `left` connections at `rate` a second, or faster, so that all are closed within
    /// `time`.
    fn new(left: usize, time: Duration, rate: f64) -> Self {
        let needed = Duration::try_from_secs_f64(left as f64 / rate).unwrap_or(Duration::MAX);
        Self { left, within: needed.min(time), needed }
    }

    /// Returns closes a second; all at once counts as in a millisecond.
    fn rate(&self) -> f64 {
        self.left as f64 / self.within.as_secs_f64().max(0.001)
    }

    /// Returns whether there is no time to be as slow as it should be.
    fn is_forced(&self) -> bool {
        self.left > 0 && self.needed > self.within
    }

    /// Says what an operator can do about it.
    fn warn(&self, Capacity { rate, places }: Capacity) {
        let (connections, window, forced) = (self.left, self.within.as_secs_f64(), self.rate());
        if places < connections {
            tracing::warn!(
                connections,
                places,
                "the nodes that stay have fewer places than this one has connections; start another, or raise \
                 limits.max_connections"
            );
        } else {
            tracing::warn!(
                connections,
                window,
                rate = forced,
                accepted = rate,
                needed = self.needed.as_secs_f64().ceil(),
                "the drain window is too short: it forces more closes a second than the nodes that stay accept; needed \
                 is the window in seconds that would do"
            );
        }
    }
}
