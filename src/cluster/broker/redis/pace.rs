//! How long a repair waits for members who have no room for more of it.
//!
//! Pure. Rule: whoever reads is waited for, and whoever does not holds the channel up for the
//! others for a time that is bounded: by [`PATIENCE`] in all, and then by [`LEAST`] for each page,
//! in which those who do read can take one.

use std::time::{Duration, Instant};

/// How long a repair waits in all.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long it waits for each page nevertheless.
const LEAST: Duration = Duration::from_millis(100);

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct RepairPace {
    left: Duration,
    held_up: Option<Instant>,
}

impl Default for RepairPace {
    fn default() -> Self {
        Self { left: PATIENCE, held_up: None }
    }
}

impl RepairPace {
    /// Returns whether the next page has waited for long enough.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.held_up
            .is_some_and(|since| now.saturating_duration_since(since) >= self.left.max(LEAST))
    }

    /// Notes that members have no room for the next page.
    pub(super) fn hold_up(&mut self, now: Instant) {
        self.held_up.get_or_insert(now);
    }

    /// Notes that a page was delivered.
    pub(super) fn go_on(&mut self, now: Instant) {
        if let Some(since) = self.held_up.take() {
            self.left = self.left.saturating_sub(now.saturating_duration_since(since));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repair_waits_for_a_while_in_all_and_then_for_a_moment_a_page() {
        let (mut pace, mut now) = (RepairPace::default(), Instant::now());
        assert!(!pace.is_over(now), "nobody has been waited for");
        let mut waits = Vec::new();
        for wait in [500, 1_000, 5_000, 5_000, 20, 5_000].map(Duration::from_millis) {
            let began = now;
            pace.hold_up(now);
            while !pace.is_over(now) && now - began < wait {
                now += Duration::from_millis(10);
                pace.hold_up(now);
            }
            waits.push((now - began).as_millis());
            pace.go_on(now);
        }
        assert_eq!(waits, [500, 1_000, 500, 100, 20, 100]);
    }
}
