//! Whether messages go through Redis right now, and whether the node should be sent new clients.
//!
//! Up means that a heartbeat of this node has come back over its subscriber connection, after all subscriptions. Readiness
//! is slower, both ways: a short outage changes nothing, since all nodes share it; and what comes and goes has not come back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::metrics::Metrics;

/// Heartbeats' time for which messages have to go through before Redis is back for good.
const STEADY_BEATS: u32 = 2;

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Health {
    signs: Mutex<Signs>,
    began: Instant,
    metrics: Arc<Metrics>,
}

/// What was seen of Redis.
#[derive(Debug)]
struct Signs {
    /// How long a node that has been up counts as ready while Redis is away; `None` for ever.
    grace: Option<Duration>,
    last_beat: Option<Instant>,
    /// How long it has to be up to count as back.
    steady: Duration,
    /// Since when it is up; `None` while it is down.
    up_since: Option<Instant>,
    /// When it went down first since it was up steadily.
    unsteady_since: Option<Instant>,
}

impl Signs {
    /// Returns whether this is the first since it was down.
    fn on_beat(&mut self, now: Instant) -> bool {
        let is_first = self.up_since.is_none();
        let since = *self.up_since.get_or_insert(now);
        // A node that starts has seen no trouble.
        if now.saturating_duration_since(since) >= self.steady || self.last_beat.is_none() {
            self.unsteady_since = None;
        }
        self.last_beat = Some(now);
        is_first
    }

    /// Returns whether it was up, or has never been.
    fn lost(&mut self, now: Instant) -> bool {
        let was_up = self.up_since.take().is_some();
        self.unsteady_since.get_or_insert(now);
        was_up || self.last_beat.is_none()
    }

    fn is_ready(&self, now: Instant) -> bool {
        let is_over = |since, grace| now.saturating_duration_since(since) >= grace;
        let is_away = self.unsteady_since.zip(self.grace).is_some_and(|(since, grace)| is_over(since, grace));
        self.last_beat.is_some() && !is_away
    }
}

impl Health {
    /// `grace`: how long a node that has been up counts as ready while Redis is away; `None` for ever.
    pub(crate) fn new(grace: Option<Duration>, heartbeat: Duration, metrics: Arc<Metrics>) -> Self {
        let steady = heartbeat * STEADY_BEATS;
        let signs = Signs { grace, steady, last_beat: None, up_since: None, unsteady_since: None };
        Self { signs: Mutex::new(signs), began: Instant::now(), metrics }
    }

    /// Returns whether the node should be sent new clients.
    pub(crate) fn is_ready(&self) -> bool {
        self.signs.lock().is_ready(Instant::now())
    }

    /// Returns whether messages have ever gone through Redis.
    pub(crate) fn has_been_up(&self) -> bool {
        self.last_beat().is_some()
    }

    /// Returns when the last heartbeat came back.
    pub(crate) fn last_beat(&self) -> Option<Instant> {
        self.signs.lock().last_beat
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
        if self.signs.lock().on_beat(Instant::now()) {
            self.metrics.redis_up.set(1);
            tracing::info!("messages go through Redis");
        }
    }

    /// The connection is gone; returns whether it was up, or has never been.
    pub(crate) fn lost(&self) -> bool {
        self.metrics.redis_up.set(0);
        self.signs.lock().lost(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const GRACE: Duration = Duration::from_secs(30);

    fn starting() -> Signs {
        Signs {
            grace: Some(GRACE),
            steady: 2 * SECOND,
            last_beat: None,
            up_since: None,
            unsteady_since: None,
        }
    }

    #[test]
    fn a_node_that_starts_is_ready_with_its_first_heartbeat() {
        let (mut signs, now) = (starting(), Instant::now());
        assert!(!signs.is_ready(now));
        assert!(signs.lost(now), "an attempt that failed is told");
        assert!(!signs.is_ready(now));
        assert!(signs.on_beat(now + 5 * SECOND));
        assert!(signs.is_ready(now + GRACE));
    }

    #[test]
    fn a_short_outage_changes_nothing_and_a_long_one_does() {
        let (mut signs, now) = (starting(), Instant::now());
        signs.on_beat(now);
        assert!(signs.lost(now) && !signs.lost(now + SECOND), "told once an outage");
        assert!(signs.is_ready(now + GRACE - SECOND));
        assert!(!signs.is_ready(now + GRACE));
        for beat in 0..2 {
            assert_eq!(signs.on_beat(now + GRACE + beat * SECOND), beat == 0);
            assert!(!signs.is_ready(now + GRACE + beat * SECOND), "not steady after {beat} s");
        }
        signs.on_beat(now + GRACE + 2 * SECOND);
        assert!(signs.is_ready(now + GRACE + 2 * SECOND));
    }

    #[test]
    fn readiness_does_not_flap_with_redis() {
        let (mut signs, mut now) = (starting(), Instant::now());
        signs.on_beat(now);
        let mut seen = vec![signs.is_ready(now)];
        for _ in 0..100 {
            signs.lost(now);
            now += SECOND;
            signs.on_beat(now);
            now += SECOND;
            signs.on_beat(now);
            seen.push(signs.is_ready(now));
        }
        seen.dedup();
        assert_eq!(seen, [true, false], "once the grace is over it stays down");
    }

    #[test]
    fn an_outage_after_a_steady_time_has_the_whole_grace() {
        let (mut signs, now) = (starting(), Instant::now());
        signs.on_beat(now);
        signs.lost(now);
        for beat in 0..3 {
            assert_eq!(signs.on_beat(now + SECOND + beat * SECOND), beat == 0);
        }
        signs.lost(now + GRACE);
        assert!(signs.is_ready(now + GRACE + GRACE - SECOND));
    }

    #[test]
    fn without_a_grace_a_node_stays_ready() {
        let (mut signs, now) = (Signs { grace: None, ..starting() }, Instant::now());
        assert!(!signs.is_ready(now), "not before it has been up");
        signs.on_beat(now);
        signs.lost(now);
        assert!(signs.is_ready(now + 1_000 * GRACE));
    }
}
