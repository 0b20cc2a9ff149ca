//! How many may come in a second.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// What was not used is kept for so long: a burst may be as large as what comes in in this time.
const BURST: Duration = Duration::from_secs(1);

/// A token bucket, kept as the moment at which it would be full again.
#[derive(Debug)]
pub(crate) struct Rate {
    every: Duration,
    full_at: Mutex<Option<Instant>>,
}

impl Rate {
    /// Lets in `a_second`, which is at least 1.
    pub(crate) fn new(a_second: usize) -> Self {
        let every = BURST / u32::try_from(a_second.max(1)).unwrap_or(u32::MAX);
        Self { every, full_at: Mutex::new(None) }
    }

    /// Takes one token; returns false if there is none.
    pub(crate) fn take(&self, now: Instant) -> bool {
        let mut full_at = self.full_at.lock();
        let next = full_at.map_or(now, |at| at.max(now)) + self.every;
        let is_in = next <= now + BURST;
        if is_in {
            *full_at = Some(next);
        }
        is_in
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(rate: &Rate, now: Instant, tries: usize) -> usize {
        (0..tries).filter(|_| rate.take(now)).count()
    }

    #[test]
    fn a_burst_is_one_second_and_comes_back_in_one_second() {
        let (rate, now) = (Rate::new(50), Instant::now());
        assert_eq!(taken(&rate, now, 100), 50);
        assert_eq!(taken(&rate, now + Duration::from_millis(100), 100), 5);
        assert_eq!(taken(&rate, now + Duration::from_secs(60), 100), 50);
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_and_one_burst(
            a_second in 1..5_000_usize,
            steps in prop::collection::vec((0..400_u64, 0..3_000_usize), 1..40),
        ) {
            let (rate, began) = (Rate::new(a_second), Instant::now());
            let (mut elapsed, mut count) = (Duration::ZERO, 0);
            for (pause, tries) in steps {
                elapsed += Duration::from_millis(pause);
                let taken = taken(&rate, began + elapsed, tries);
                count += taken;
                // One more, since a token's time is a whole number of nanoseconds.
                let most = (a_second as f64 * (elapsed.as_secs_f64() + 1.0)).ceil() + 1.0;
                prop_assert!(count as f64 <= most, "{count} of {most} in {elapsed:?}");
                if pause > 1_000 / a_second as u64 && tries > 0 {
                    prop_assert!(taken > 0, "a token comes back in its time");
                }
            }
        }
    }
}
