//! Counts what Redis refuses, and says so: once when it begins, and once when it is over. That it
//! is away is said likewise.
//!
//! Over is what has not been met for a while, since a server refuses one thing and does another:
//! only what was refused before can show that it is not any more, and nobody may ask for it again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::error::StoreError;
use crate::model::trouble::RedisRefusal;
use crate::ops::metrics::Metrics;

/// Time without a refusal of its class after which it is over.
const QUIET: Duration = Duration::from_secs(10);

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Refusals {
    metrics: Arc<Metrics>,
    /// By the server's address and the class; `None` for being away.
    known: Mutex<HashMap<TroubleKey, Spell>>,
}

type TroubleKey = (String, Option<RedisRefusal>);

/// A time in which a server refuses something, or is away.
#[derive(Debug)]
struct Spell {
    began: Instant,
    last: Instant,
    count: u64,
}

impl Refusals {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, known: Mutex::default() }
    }

    /// A server has not done what it was asked.
    pub(crate) fn on_error(&self, server: &str, error: &StoreError) {
        self.metrics.redis_errors.inc();
        let Some(class) = error.class() else { return };
        self.metrics.count_redis_refusal(class);
        if self.note(server, Some(class), Instant::now()) {
            let (what, advice) = (class.text(), class.advice());
            tracing::warn!(server, %error, advice, "Redis refuses what it is asked: {what}");
        }
    }

    /// The connection on which messages come from a server has ended, or could not be made.
    pub(crate) fn on_lost(&self, server: &str, error: &StoreError) {
        self.on_error(server, error);
        if error.class().is_none() && self.note(server, None, Instant::now()) {
            tracing::warn!(server, %error, "Redis is away; connections stay, and messages are refused");
        }
    }

    /// Says what is over; to be called now and then.
    pub(crate) fn settle(&self) {
        for ((server, class), spell) in self.take_over(Instant::now()) {
            let seconds = spell.last.saturating_duration_since(spell.began).as_secs();
            let (what, count) = (class.map_or("it was away", RedisRefusal::text), spell.count);
            tracing::info!(server, count, seconds, "this trouble with Redis is over: {what}");
        }
    }

    /// Returns whether this is the first of its kind.
    fn note(&self, server: &str, class: Option<RedisRefusal>, now: Instant) -> bool {
        let mut known = self.known.lock();
        if let Some(spell) = known.get_mut(&(server.to_owned(), class)) {
            spell.last = now;
            spell.count += 1;
            return false;
        }
        known.insert((server.to_owned(), class), Spell { began: now, last: now, count: 1 });
        true
    }

    fn take_over(&self, now: Instant) -> Vec<(TroubleKey, Spell)> {
        let is_over = |spell: &Spell| now.saturating_duration_since(spell.last) >= QUIET;
        self.known.lock().extract_if(|_, spell| is_over(spell)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_once_a_server_until_it_is_over() {
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let (refusals, now) = (Refusals::new(metrics), Instant::now());
        assert!(refusals.note("a:1", Some(RedisRefusal::Oom), now));
        assert!(!refusals.note("a:1", Some(RedisRefusal::Oom), now + QUIET / 2));
        assert!(refusals.note("b:1", Some(RedisRefusal::Oom), now), "another server");
        assert!(refusals.note("a:1", Some(RedisRefusal::Busy), now), "another kind");
        let over = refusals.take_over(now + QUIET);
        assert_eq!(over.len(), 2, "what was refused since goes on");
        let over = refusals.take_over(now + QUIET + QUIET / 2);
        assert_eq!(over.iter().map(|(_, spell)| spell.count).collect::<Vec<_>>(), [2]);
        assert!(refusals.note("a:1", Some(RedisRefusal::Oom), now + 2 * QUIET), "it begins again");
    }
}
