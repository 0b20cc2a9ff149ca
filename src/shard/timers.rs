//! When to look at which connection again.
//!
//! A connection has one valid timer, the one that `timer_at` names; an earlier moment pushes a
//! second, which makes the first stale, and activity that only moves moments back touches nothing:
//! the timer fires, finds nothing due and is set again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Moments, earliest first.
#[derive(Debug, Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(Instant, usize)>>);

impl Timers {
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    pub(super) fn push(&mut self, at: Instant, key: usize) {
        self.0.push(Reverse((at, key)));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn retain(&mut self, mut is_valid: impl FnMut(Instant, usize) -> bool) {
        self.0.retain(|Reverse((at, key))| is_valid(*at, *key));
    }

    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(Instant, usize)> {
        let due = self.next().is_some_and(|at| at <= now);
        due.then(|| self.0.pop().map(|Reverse(timer)| timer)).flatten()
    }
}
