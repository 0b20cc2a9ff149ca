//! One budget for all memory that clients and callers make a node hold: what waits for a client,
//! what has half arrived, what is on its way between threads and to Redis, requests and their
//! answers, and what the kernel holds for the sockets.
//!
//! Whoever holds memory counts it in a [`Gauge`] that is its own; the sum over all is compared with
//! the limit. From 80 % on new work is refused ([`Budget::is_tight`]), from 90 % on what holds
//! memory is closed ([`Budget::is_exhausted`]). Both are looked up in one byte, which shards renew
//! at the end of each turn and the node ten times a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use bytes::Bytes;

/// Percent of the budget from which on handshakes, posts and publications are refused.
const TIGHT: usize = 80;

/// Percent of the budget from which on connections that hold memory are closed.
const EXHAUSTED: usize = 90;

/// Longest queue of one kind where the budget allows it: more would only add delay.
const QUEUE_BYTES: usize = 64 << 20;

/// Counted for shared bytes besides themselves.
const SHARED: usize = 128;

/// What memory is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What waits for clients; bytes that many wait for count once a shard.
    Outboxes,
    /// Messages that have not arrived whole.
    Partial,
    /// What other threads, brokers and callers want of the shards.
    Inboxes,
    /// What is on its way to Redis and not answered.
    Publications,
    /// Calls and answers on their way to other nodes.
    Peers,
    /// HTTP connections, bodies and answers.
    Http,
    /// What the kernel holds for sockets, where a control group counts it.
    Sockets,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::Outboxes,
        Self::Partial,
        Self::Inboxes,
        Self::Publications,
        Self::Peers,
        Self::Http,
        Self::Sockets,
    ];

    /// Returns how many gauges a node with that many shards has.
    fn gauges(self, shards: usize) -> usize {
        match self {
            Self::Outboxes | Self::Partial | Self::Inboxes => shards,
            Self::Publications | Self::Peers | Self::Http | Self::Sockets => 1,
        }
    }

    /// Returns the value of the metric label `kind`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Outboxes => "outboxes",
            Self::Partial => "partial",
            Self::Inboxes => "inboxes",
            Self::Publications => "publications",
            Self::Peers => "peers",
            Self::Http => "http",
            Self::Sockets => "sockets",
        }
    }
}

/// Bytes that one part of the node holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauge(Arc<AtomicUsize>);

impl Gauge {
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes over bytes that are counted already: they are until what is returned ends.
    pub(crate) fn held(&self, bytes: usize) -> Held {
        Held { gauge: self.clone(), bytes }
    }

    /// Counts bytes for as long as what is returned lives.
    pub(crate) fn hold(&self, bytes: usize) -> Held {
        self.add(bytes);
        self.held(bytes)
    }

    /// Counts what many will hold once, as long as any of them does.
    pub(crate) fn share(&self, bytes: Bytes) -> Bytes {
        self.hold(bytes.len() + SHARED).with(bytes)
    }

    /// As [`Gauge::hold`], unless there would be more than `most` then; something always fits into
    /// nothing.
    pub(crate) fn try_hold(&self, bytes: usize, most: usize) -> Option<Held> {
        let before = self.0.fetch_add(bytes, Ordering::Relaxed);
        let held = self.held(bytes);
        (before == 0 || before + bytes <= most).then_some(held)
    }
}

/// Bytes that many hold, counted once, until the last lets go.
struct Shared {
    bytes: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Bytes that are held.
#[derive(Debug)]
pub(crate) struct Held {
    gauge: Gauge,
    bytes: usize,
}

impl Held {
    /// Counts more.
    pub(crate) fn grow(&mut self, bytes: usize) {
        self.gauge.add(bytes);
        self.bytes += bytes;
    }

    /// Counts them as long as anybody holds `bytes`.
    pub(crate) fn with(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Shared { bytes, _held: self })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gauge.sub(self.bytes);
    }
}

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    gauges: Vec<(Kind, Gauge)>,
    /// 0, or 1 when it is tight, or 2 when it is exhausted.
    level: AtomicU8,
}

impl Budget {
    /// A budget of `limit` bytes for a node with `shards` shards.
    pub(crate) fn new(limit: usize, shards: usize) -> Self {
        let kinds = Kind::ALL.into_iter().flat_map(|kind| vec![kind; kind.gauges(shards)]);
        let gauges = kinds.map(|kind| (kind, Gauge::default())).collect();
        Self { limit, gauges, level: AtomicU8::new(0) }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Returns the gauge of a kind; kinds that shards have one each of, by the shard's index,
    /// others at 0.
    pub(crate) fn gauge(&self, kind: Kind, index: usize) -> Gauge {
        let mut own = self.gauges.iter().filter(|(other, _)| *other == kind);
        own.nth(index).map(|(_, gauge)| gauge.clone()).unwrap_or_default()
    }

    /// Returns the bytes of one kind.
    pub(crate) fn used_for(&self, kind: Kind) -> usize {
        self.gauges.iter().filter(|(other, _)| *other == kind).map(|(_, gauge)| gauge.get()).sum()
    }

    /// Returns the bytes of all kinds.
    pub(crate) fn used(&self) -> usize {
        self.gauges.iter().map(|(_, gauge)| gauge.get()).sum()
    }

    /// Returns how long one of `parts` queues of a kind may be, all of which get a quarter of the
    /// budget at most.
    pub(crate) fn queue_bytes(&self, parts: usize) -> usize {
        (self.limit / 4 / parts.max(1)).min(QUEUE_BYTES)
    }

    /// Looks how much is used. To be called by whoever has changed it.
    pub(crate) fn renew(&self) {
        let used = self.used();
        let level = u8::from(used >= self.share(TIGHT)) + u8::from(used >= self.share(EXHAUSTED));
        if level != self.level.load(Ordering::Relaxed) {
            self.level.store(level, Ordering::Relaxed);
        }
    }

    /// Returns whether new work is refused.
    pub(crate) fn is_tight(&self) -> bool {
        self.level.load(Ordering::Relaxed) >= 1
    }

    /// Returns whether what holds memory is closed.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.level.load(Ordering::Relaxed) >= 2
    }

    fn share(&self, percent: usize) -> usize {
        self.limit / 100 * percent
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn work_is_refused_first_and_then_holders_are_closed() {
        let budget = Budget::new(1_000, 2);
        let outbox = budget.gauge(Kind::Outboxes, 1);
        for (used, tight, exhausted) in
            [(799, false, false), (800, true, false), (900, true, true), (10, false, false)]
        {
            outbox.set(used);
            budget.renew();
            assert_eq!((budget.is_tight(), budget.is_exhausted()), (tight, exhausted), "{used}");
        }
    }

    #[test]
    fn one_thing_always_fits_and_others_within_the_bound() {
        let gauge = Gauge::default();
        let large = gauge.try_hold(100, 10).expect("nothing is held");
        assert!(gauge.try_hold(1, 10).is_none());
        drop(large);
        let _small = gauge.try_hold(9, 10).expect("room");
        assert!(gauge.try_hold(2, 10).is_none());
        assert_eq!(gauge.get(), 9, "what is refused does not count");
    }

    proptest! {
        #[test]
        fn the_sum_is_what_is_held_and_returns_to_nothing(
            steps in prop::collection::vec((0..7_usize, 0..3_usize, 1..1_000_usize, any::<bool>()), 0..100),
        ) {
            let budget = Budget::new(1 << 20, 3);
            let (mut held, mut sum) = (Vec::new(), 0);
            for (kind, shard, bytes, keep) in steps {
                let gauge = budget.gauge(Kind::ALL[kind], shard);
                let mut one = gauge.hold(bytes);
                one.grow(bytes);
                if keep {
                    held.push(one);
                    let is_one = kind < 3 || shard == 0;
                    sum += if is_one { 2 * bytes } else { 0 };
                } else {
                    drop(one);
                }
                prop_assert_eq!(budget.used(), sum);
                prop_assert_eq!(Kind::ALL.iter().map(|kind| budget.used_for(*kind)).sum::<usize>(), sum);
            }
            drop(held);
            prop_assert_eq!(budget.used(), 0);
        }
    }
}
