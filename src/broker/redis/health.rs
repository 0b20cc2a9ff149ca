//! Whether messages go through Redis right now.
//!
//! Up means that a heartbeat of this node has come back over its subscriber connection, after all subscriptions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::metrics::Metrics;

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Health {
    is_up: AtomicBool,
    /// Since when it is down; `None` while up.
    down_since: Mutex<Option<Instant>>,
    began: Instant,
    has_been_up: AtomicBool,
    grace: Duration,
    metrics: Arc<Metrics>,
}

impl Health {
    /// `grace`: how long a node that has been up counts as ready while Redis is away.
    pub(crate) fn new(grace: Duration, metrics: Arc<Metrics>) -> Self {
        let now = Instant::now();
        Self {
            is_up: AtomicBool::new(false),
            down_since: Mutex::new(Some(now)),
            began: now,
            has_been_up: AtomicBool::new(false),
            grace,
            metrics,
        }
    }

    /// Returns whether the node should be sent new clients: a short outage changes nothing, since all nodes share it.
    pub(crate) fn is_ready(&self) -> bool {
        let within_grace = || self.down_since.lock().is_none_or(|since| since.elapsed() < self.grace);
        self.has_been_up.load(Ordering::Acquire) && within_grace()
    }

    /// Returns what a heartbeat carries.
    pub(crate) fn stamp(&self) -> u128 {
        self.began.elapsed().as_nanos()
    }

    /// A heartbeat has come back.
    pub(crate) fn on_beat(&self, stamp: &[u8]) {
        let sent =
            str::from_utf8(stamp).ok().and_then(|text| text.parse::<u64>().ok()).map(Duration::from_nanos);
        if let Some(round_trip) = sent.and_then(|sent| self.began.elapsed().checked_sub(sent)) {
            self.metrics.redis_round_trip.observe(round_trip.as_secs_f64());
        }
        if !self.is_up.swap(true, Ordering::AcqRel) {
            *self.down_since.lock() = None;
            self.metrics.redis_up.set(1);
            self.has_been_up.store(true, Ordering::Release);
            tracing::info!("messages go through Redis");
        }
    }

    /// The connection is gone; returns whether it was up, or has never been.
    pub(crate) fn lost(&self) -> bool {
        self.metrics.redis_up.set(0);
        let was_up = self.is_up.swap(false, Ordering::AcqRel);
        if was_up {
            *self.down_since.lock() = Some(Instant::now());
        }
        was_up || !self.has_been_up.load(Ordering::Acquire)
    }
}
