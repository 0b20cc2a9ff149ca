//! Whether Redis takes this node's writes and messages go through it, and whether the node should
//! be sent new clients.
//!
//! Up means that the last heartbeat was written, has come back over the subscriber connection,
//! after all subscriptions, and that the lease is renewed. Readiness is slower, both ways: a short
//! outage changes nothing, since all nodes share it; and what comes and goes has not come back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::cluster::store::StoreError;
use crate::model::trouble::Trouble;
use crate::ops::metrics::Metrics;

/// Heartbeats' time for which messages have to go through before Redis is back for good.
const STEADY_BEATS: u32 = 2;

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Health {
    signs: Mutex<Signs>,
    /// What was wrong last.
    trouble: Mutex<Option<Trouble>>,
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
    /// Whether the last renewal of the lease was refused.
    is_lease_refused: bool,
}

impl Signs {
    /// Returns whether it is up steadily as of now, and was not before.
    fn on_beat(&mut self, now: Instant) -> bool {
        let since = *self.up_since.get_or_insert(now);
        // A node that starts has seen no trouble.
        let is_first = self.last_beat.is_none();
        let is_steady = now.saturating_duration_since(since) >= self.steady || is_first;
        self.last_beat = Some(now);
        let was_unsteady = is_steady && self.unsteady_since.take().is_some();
        was_unsteady || is_first
    }

    fn lost(&mut self, now: Instant) {
        self.up_since = None;
        self.unsteady_since.get_or_insert(now);
    }

    fn is_ready(&self, now: Instant) -> bool {
        let is_over = |since, grace| now.saturating_duration_since(since) >= grace;
        let is_away =
            self.unsteady_since.zip(self.grace).is_some_and(|(since, grace)| is_over(since, grace));
        self.last_beat.is_some() && !is_away
    }
}

impl Health {
    /// `grace`: how long a node that has been up counts as ready while Redis is away; `None` for
    /// ever.
    pub(crate) fn new(grace: Option<Duration>, heartbeat: Duration, metrics: Arc<Metrics>) -> Self {
        let steady = heartbeat * STEADY_BEATS;
        let signs = Signs {
            grace,
            steady,
            last_beat: None,
            up_since: None,
            unsteady_since: None,
            is_lease_refused: false,
        };
        Self { signs: Mutex::new(signs), trouble: Mutex::default(), began: Instant::now(), metrics }
    }

    /// Returns whether the node should be sent new clients.
    pub(crate) fn is_ready(&self) -> bool {
        self.signs.lock().is_ready(Instant::now())
    }

    /// Returns what is wrong, as far as it is known.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        *self.trouble.lock()
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
        let sent = str::from_utf8(stamp)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
            .map(Duration::from_nanos);
        if let Some(round_trip) = sent.and_then(|sent| self.began.elapsed().checked_sub(sent)) {
            self.metrics.redis_round_trip.observe(round_trip.as_secs_f64());
        }
        let mut signs = self.signs.lock();
        if signs.is_lease_refused {
            return;
        }
        let is_news = signs.on_beat(Instant::now());
        drop(signs);
        *self.trouble.lock() = None;
        self.metrics.redis_up.set(1);
        if is_news {
            tracing::info!("messages go through Redis");
        }
    }

    /// The connection is gone, or the heartbeat was refused.
    pub(crate) fn lost(&self, error: &StoreError) {
        self.metrics.redis_up.set(0);
        self.signs.lock().lost(Instant::now());
        *self.trouble.lock() = Some(error.into());
    }

    /// The lease was renewed, or not. No answer says nothing: heartbeats show what is away.
    pub(crate) fn on_renewal(&self, error: Option<&StoreError>) {
        let refused = error.filter(|error| error.class().is_some());
        if refused.is_some() || error.is_none() {
            self.signs.lock().is_lease_refused = refused.is_some();
        }
        if let Some(error) = refused {
            self.lost(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::trouble::RedisRefusal;

    const SECOND: Duration = Duration::from_secs(1);
    const GRACE: Duration = Duration::from_secs(30);

    fn starting() -> Signs {
        Signs {
            grace: Some(GRACE),
            steady: 2 * SECOND,
            last_beat: None,
            up_since: None,
            unsteady_since: None,
            is_lease_refused: false,
        }
    }

    #[test]
    fn a_node_that_starts_is_ready_with_its_first_heartbeat() {
        let (mut signs, now) = (starting(), Instant::now());
        assert!(!signs.is_ready(now));
        signs.lost(now);
        assert!(!signs.is_ready(now));
        assert!(signs.on_beat(now + 5 * SECOND), "told");
        assert!(signs.is_ready(now + GRACE));
        assert!(!signs.on_beat(now + 6 * SECOND), "told once");
    }

    #[test]
    fn a_short_outage_changes_nothing_and_a_long_one_does() {
        let (mut signs, now) = (starting(), Instant::now());
        signs.on_beat(now);
        signs.lost(now);
        assert!(signs.is_ready(now + GRACE - SECOND));
        assert!(!signs.is_ready(now + GRACE));
        for beat in 0..2 {
            assert!(!signs.on_beat(now + GRACE + beat * SECOND));
            assert!(!signs.is_ready(now + GRACE + beat * SECOND), "not steady after {beat} s");
        }
        assert!(signs.on_beat(now + GRACE + 2 * SECOND), "told once it is steady");
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
            assert!(!signs.on_beat(now), "no news");
            now += SECOND;
            assert!(!signs.on_beat(now), "no news");
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
            assert_eq!(signs.on_beat(now + SECOND + beat * SECOND), beat == 2);
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

    #[test]
    fn a_lease_that_is_refused_is_a_loss_until_it_is_renewed() {
        let health = Health::new(Some(GRACE), SECOND, Arc::new(Metrics::new().expect("metrics")));
        health.on_beat(b"0");
        assert_eq!((health.metrics.redis_up.get(), health.trouble()), (1, None));
        health.on_renewal(Some(&StoreError::Timeout));
        assert_eq!(health.metrics.redis_up.get(), 1, "heartbeats show whether it is away");
        health.on_renewal(Some(&StoreError::Replica));
        health.on_beat(b"0");
        assert_eq!(health.metrics.redis_up.get(), 0);
        assert_eq!(health.trouble(), Some(Trouble::Refused(RedisRefusal::ReadOnly)));
        health.on_renewal(None);
        health.on_beat(b"0");
        assert_eq!((health.metrics.redis_up.get(), health.trouble()), (1, None));
    }
}
