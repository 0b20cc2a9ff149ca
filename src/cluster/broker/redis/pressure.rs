//! How much of its memory Redis uses, and what of that streams may still have.
//!
//! Nodes do not divide the memory among themselves: all look at the same number, that of the
//! fullest server, and let streams keep less the nearer it comes to the budget. Below half of the
//! budget they keep what is set; from there on less and less, down to a sixtieth. What is kept
//! already goes with the next messages of its channel, or with its age.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use redis::{FromRedisValue as _, Value, cmd};

use crate::cluster::store::Store;
use crate::config::RedisSettings;
use crate::ops::metrics::{Metrics, as_i64};

/// Between two looks while this node publishes, or streams keep less.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// Between two looks of a node that does nothing.
const IDLE_PAUSE: Duration = Duration::from_secs(10);
/// The budget where none is set and Redis has no bound of its own, in bytes.
const DEFAULT_BUDGET: usize = 1 << 30;
/// The whole, where shares are counted.
const WHOLE: u32 = 60_000;
/// The least share.
const LEAST: u32 = WHOLE / 60;

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Pressure {
    store: Store,
    metrics: Arc<Metrics>,
    /// What a stream may keep while there is memory enough.
    bytes: usize,
    age: Duration,
    /// 0 for what Redis itself allows.
    budget: usize,
    /// How much of it a stream may keep now, in parts of [`WHOLE`].
    share: AtomicU32,
    is_busy: AtomicBool,
}

/// What one server says of its memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Memory {
    used: usize,
    /// `maxmemory`; 0 for none.
    limit: usize,
}

impl Memory {
    /// Reads what `INFO memory` answers.
    fn read(answer: Value) -> Option<Self> {
        let text = String::from_redis_value(answer).ok()?;
        let field =
            |name| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        Some(Self { used: field("used_memory:")?, limit: field("maxmemory:")? })
    }

    /// Returns what it may use before streams keep the least.
    fn budget(self, set: usize) -> usize {
        let own = if self.limit == 0 { usize::MAX } else { self.limit / 4 * 3 };
        let set = match (set, self.limit) {
            (0, 0) => DEFAULT_BUDGET,
            (0, _) => own,
            (set, _) => set,
        };
        set.min(own)
    }

    /// Returns how much of what is set streams may keep.
    fn share(self, set: usize) -> u32 {
        let half = (self.budget(set) / 2).max(1);
        let over = self.used.saturating_sub(half).min(half);
        let share = (half - over) as u128 * u128::from(WHOLE) / half as u128;
        u32::try_from(share).unwrap_or(WHOLE).max(LEAST)
    }
}

impl Pressure {
    pub(super) fn new(store: Store, settings: &RedisSettings, metrics: Arc<Metrics>) -> Self {
        let (bytes, age, budget) =
            (settings.stream_bytes, settings.stream_age, settings.stream_budget);
        let (share, is_busy) = (AtomicU32::new(WHOLE), AtomicBool::new(false));
        metrics.stream_age.set(age.as_secs_f64());
        Self { store, metrics, bytes, age, budget, share, is_busy }
    }

    /// Returns what a stream may keep now: bytes and age. Whoever asks is about to publish.
    pub(super) fn allowance(&self) -> (usize, Duration) {
        self.is_busy.store(true, Ordering::Relaxed);
        self.kept()
    }

    fn kept(&self) -> (usize, Duration) {
        let share = self.share.load(Ordering::Relaxed);
        let bytes = self.bytes as u128 * u128::from(share) / u128::from(WHOLE);
        (usize::try_from(bytes).unwrap_or(self.bytes), self.age * share / WHOLE)
    }

    /// Looks at all servers, for ever.
    pub(super) async fn watch(self: Arc<Self>) {
        loop {
            self.look().await;
            let mut waited = Duration::ZERO;
            while waited < IDLE_PAUSE {
                tokio::time::sleep(BUSY_PAUSE).await;
                waited += BUSY_PAUSE;
                if self.is_busy.swap(false, Ordering::Relaxed)
                    || self.share.load(Ordering::Relaxed) < WHOLE
                {
                    break;
                }
            }
        }
    }

    async fn look(&self) {
        let question = cmd("INFO").arg("memory").to_owned();
        let answers = self.store.topology().ask_each(question).await;
        let share = |memory: &Memory| memory.share(self.budget);
        let fullest = answers.into_iter().filter_map(Memory::read).min_by_key(share);
        // A server that does not answer takes no messages either.
        let Some(memory) = fullest else { return };
        let now = share(&memory);
        let before = self.share.swap(now, Ordering::Relaxed);
        self.metrics.redis_memory_used.set(as_i64(memory.used));
        self.metrics.redis_memory_limit.set(as_i64(memory.limit));
        let (_, age) = self.kept();
        self.metrics.stream_age.set(age.as_secs_f64());
        if now < WHOLE / 2 && before >= WHOLE / 2 {
            let (used, budget) = (memory.used, memory.budget(self.budget));
            tracing::warn!(
                used,
                budget,
                ?age,
                "Redis is short of memory; streams keep messages for less time"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: usize = 1 << 30;

    #[test]
    fn the_budget_is_what_is_set_and_never_all_that_redis_has() {
        for (limit, set, budget) in [
            (0, 0, GIB),
            (4 * GIB, 0, 3 * GIB),
            (4 * GIB, GIB, GIB),
            (GIB, 4 * GIB, GIB / 4 * 3),
            (0, 4 * GIB, 4 * GIB),
        ] {
            assert_eq!(Memory { used: 0, limit }.budget(set), budget, "{limit} {set}");
        }
    }

    #[test]
    fn what_redis_says_is_read() {
        let text = "# Memory\r\nused_memory:1024\r\nused_memory_human:1K\r\nmaxmemory:4096\r\n";
        let memory = Memory::read(Value::BulkString(text.into()));
        assert_eq!(memory, Some(Memory { used: 1_024, limit: 4_096 }));
        assert_eq!(
            Memory::read(Value::BulkString("used_memory:lots\r\nmaxmemory:0\r\n".into())),
            None
        );
        assert_eq!(Memory::read(Value::Nil), None);
    }

    proptest! {
        #[test]
        fn the_fuller_the_less(limit in 0..8 * GIB, set in 0..8 * GIB, used in 0..9 * GIB, more in 0..GIB) {
            let share = |used| Memory { used, limit }.share(set);
            let budget = Memory { used, limit }.budget(set);
            prop_assert!(share(used + more) <= share(used));
            prop_assert!((LEAST..=WHOLE).contains(&share(used)));
            prop_assert!(used > budget / 2 || share(used) == WHOLE);
            prop_assert!(used < budget || share(used) == LEAST);
        }
    }
}
