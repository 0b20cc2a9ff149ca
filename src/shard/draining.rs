//! When which connection of a shard that drains is to be closed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::model::id::ConnectionId;

/// What is still to be closed. The time is cut into slots of the same length, one for each
/// connection, which is closed at some moment in its slot: so neither the clients of one shard nor
/// those of all act in step.
#[derive(Debug)]
pub(super) struct Draining {
    queue: VecDeque<ConnectionId>,
    /// Length of a slot.
    every: Duration,
    /// Start of the slot of the first in the queue.
    slot: Instant,
    /// Its moment in there.
    next: Instant,
}

impl Draining {
    pub(super) fn new(queue: VecDeque<ConnectionId>, now: Instant, within: Duration) -> Self {
        let mut draining = Self { queue, every: Duration::ZERO, slot: now, next: now };
        draining.spread(now, within);
        draining
    }

    /// Spreads what is left over `within`.
    pub(super) fn spread(&mut self, now: Instant, within: Duration) {
        self.every = within / u32::try_from(self.queue.len()).unwrap_or(u32::MAX).max(1);
        self.begin_slot(now);
    }

    fn begin_slot(&mut self, slot: Instant) {
        self.slot = slot;
        self.next = slot + self.every.mul_f64(rand::random_range(0.0..1.0));
    }

    /// Leaves out those that have left by themselves.
    pub(super) fn retain(&mut self, is_open: impl Fn(&ConnectionId) -> bool) {
        self.queue.retain(is_open);
    }

    /// Adds one that came in at the last moment.
    pub(super) fn add(&mut self, id: ConnectionId) {
        self.queue.push_back(id);
    }

    /// Returns when the next is to be closed.
    pub(super) fn next(&self) -> Option<Instant> {
        (!self.queue.is_empty()).then_some(self.next)
    }

    /// Takes the next whose moment has come; those that have left by themselves (`!is_open`) cost
    /// no slot.
    pub(super) fn pop_due(
        &mut self,
        now: Instant,
        is_open: impl Fn(&ConnectionId) -> bool,
    ) -> Option<ConnectionId> {
        while self.next <= now {
            let id = self.queue.pop_front()?;
            if is_open(&id) {
                self.begin_slot(self.slot + self.every);
                return Some(id);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::model::id::NodeTag;

    fn ids(count: usize) -> VecDeque<ConnectionId> {
        let tag = NodeTag::random();
        (0..count).map(|_| ConnectionId::mint(tag)).collect()
    }

    /// Pops all that is due at `now`.
    fn due(draining: &mut Draining, now: Instant) -> Vec<ConnectionId> {
        std::iter::from_fn(|| draining.pop_due(now, |_| true)).collect()
    }

    proptest! {
        #[test]
        fn all_are_closed_in_order_each_in_its_slot(count in 1..300_usize, within in 1..60_000_u64) {
            let (queue, began, within) = (ids(count), Instant::now(), Duration::from_millis(within));
            let mut draining = Draining::new(queue.clone(), began, within);
            let every = within / u32::try_from(count).expect("small");
            let mut closed = Vec::new();
            while let Some(next) = draining.next() {
                let slot = u32::try_from(closed.len()).expect("small");
                prop_assert!(next >= began + every * slot && next <= began + every * (slot + 1));
                prop_assert!(next <= began + within);
                let due = due(&mut draining, next);
                prop_assert!(!due.is_empty());
                closed.extend(due);
            }
            prop_assert_eq!(closed, Vec::from(queue));
        }

        #[test]
        fn another_plan_takes_effect_at_once_and_loses_nobody(
            count in 1..300_usize,
            plans in prop::collection::vec((0..10_000_u64, 0..20_000_u64), 1..8),
        ) {
            let (queue, mut now) = (ids(count), Instant::now());
            let mut draining = Draining::new(queue.clone(), now, Duration::from_secs(30));
            let (mut closed, mut end) = (Vec::new(), now + Duration::from_secs(30));
            for (pause, within) in plans {
                now += Duration::from_millis(pause);
                closed.extend(due(&mut draining, now));
                prop_assert!(now < end || draining.next().is_none(), "a plan that had time is done");
                end = now + Duration::from_millis(within);
                draining.spread(now, Duration::from_millis(within));
                prop_assert!(draining.next().is_none_or(|next| now <= next && next <= end));
            }
            closed.extend(due(&mut draining, end));
            prop_assert_eq!(closed, Vec::from(queue));
        }

        #[test]
        fn who_has_left_takes_no_time_from_the_others(stayed in prop::collection::vec(any::<bool>(), 1..100)) {
            let (queue, now, within) = (ids(stayed.len()), Instant::now(), Duration::from_secs(10));
            let open: HashSet<_> =
                queue.iter().zip(&stayed).filter(|(_, stays)| **stays).map(|(id, _)| *id).collect();
            let mut draining = Draining::new(queue.clone(), now, within);
            let every = draining.every;
            let mut slots = 0;
            while draining.next().is_some_and(|next| next <= now + every * slots + every) {
                if draining.pop_due(now + every * (slots + 1), |id| open.contains(id)).is_some() {
                    slots += 1;
                }
            }
            prop_assert_eq!(slots as usize, open.len());
            prop_assert!(draining.next().is_none());
        }
    }
}
