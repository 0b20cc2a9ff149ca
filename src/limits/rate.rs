//! Token buckets: how much of something may be had in a time, and how much at once.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Moments are counted from here, which makes a bucket one number: a little before the first that
/// anybody asks with.
static BEGAN: LazyLock<Instant> = LazyLock::new(|| Instant::now() - Duration::from_secs(60));

/// Most that can be owed, in nanoseconds: what one piece of work costs beyond that is forgiven, so
/// that nobody is held back for hours.
const DEBT_MAX: u64 = 60_000_000_000;

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    nanos_each: f64,
    burst_nanos: u64,
}

/// A moment as buckets have it, so that one look at the clock serves several.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(u64);

/// A token bucket, kept as the moment at which it would be full again; a new one is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bucket {
    full_at: u64,
}

/// A bucket that many threads take from.
#[derive(Debug, Default)]
pub(crate) struct Rate(Mutex<Bucket>);

impl Pace {
    /// At most `a_second` a second, at least 1, and at most `burst` of them at once.
    pub(crate) fn new(a_second: usize, burst: usize) -> Self {
        let nanos_each = 1e9 / a_second.max(1) as f64;
        Self { nanos_each, burst_nanos: nanos(burst as f64 * nanos_each) }
    }
}

impl From<Instant> for Moment {
    fn from(now: Instant) -> Self {
        let elapsed = now.saturating_duration_since(*BEGAN);
        Self(elapsed.as_secs() * 1_000_000_000 + u64::from(elapsed.subsec_nanos()))
    }
}

impl Bucket {
    /// Takes `tokens` tokens; returns false, and takes none, if there are fewer.
    pub(crate) fn take(&mut self, pace: &Pace, tokens: u64, now: Moment) -> bool {
        let full_at =
            self.full_at.max(now.0).saturating_add(nanos(tokens as f64 * pace.nanos_each));
        let is_in = full_at <= now.0.saturating_add(pace.burst_nanos);
        if is_in {
            self.full_at = full_at;
        }
        is_in
    }

    /// Takes `tokens` tokens, whether they are there or not: for work that is done already. Returns
    /// how many nanoseconds it takes until they are paid off; no more of that work should be done
    /// before.
    pub(crate) fn charge(&mut self, pace: &Pace, tokens: u64, now: Moment) -> u64 {
        let empty_at = now.0.saturating_add(pace.burst_nanos);
        let full_at =
            self.full_at.max(now.0).saturating_add(nanos(tokens as f64 * pace.nanos_each));
        let owed = full_at.saturating_sub(empty_at).min(DEBT_MAX);
        self.full_at = full_at.min(empty_at.saturating_add(owed));
        owed
    }
}

impl Rate {
    /// Takes one token of `a_second`, and as many at once; returns false if there is none.
    pub(crate) fn take(&self, a_second: usize, now: Instant) -> bool {
        self.0.lock().take(&Pace::new(a_second, a_second), 1, now.into())
    }
}

/// Whole nanoseconds; what is too long for the type is as long as it can say.
fn nanos(time: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, and no time is below zero"
    )]
    let whole = time as u64;
    whole
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn take(bucket: &mut Bucket, pace: &Pace, tokens: u64, now: Instant) -> bool {
        bucket.take(pace, tokens, now.into())
    }

    fn charge(bucket: &mut Bucket, pace: &Pace, tokens: u64, now: Instant) -> Duration {
        Duration::from_nanos(bucket.charge(pace, tokens, now.into()))
    }

    fn taken(rate: &Rate, a_second: usize, now: Instant, tries: usize) -> usize {
        (0..tries).filter(|_| rate.take(a_second, now)).count()
    }

    #[test]
    fn a_burst_is_one_second_and_comes_back_in_one_second() {
        let (rate, now) = (Rate::default(), Instant::now());
        assert_eq!(taken(&rate, 50, now, 100), 50);
        assert_eq!(taken(&rate, 50, now + Duration::from_millis(100), 100), 5);
        assert_eq!(taken(&rate, 50, now + Duration::from_secs(60), 100), 50);
    }

    #[test]
    fn another_rate_counts_at_once_and_what_is_owed_is_owed() {
        let (rate, now) = (Rate::default(), Instant::now());
        assert_eq!(taken(&rate, 50, now, 100), 50);
        assert_eq!(taken(&rate, 10, now + SECOND / 2, 100), 5, "half of its second");
        assert_eq!(taken(&rate, 100, now + SECOND, 200), 50, "a hundred in a second, from then on");
    }

    #[test]
    fn tokens_are_taken_together_or_not_at_all() {
        let (pace, now) = (Pace::new(10, 4), Instant::now());
        let mut bucket = Bucket::default();
        assert!(!take(&mut bucket, &pace, 5, now) && take(&mut bucket, &pace, 3, now));
        assert!(!take(&mut bucket, &pace, 2, now) && take(&mut bucket, &pace, 1, now));
        assert!(take(&mut bucket, &pace, 4, now + SECOND), "no more than a burst has come back");
        assert!(!take(&mut bucket, &pace, 1, now + SECOND));
    }

    #[test]
    fn what_is_done_already_is_owed() {
        let (pace, now) = (Pace::new(100, 50), Instant::now());
        let mut bucket = Bucket::default();
        assert_eq!(charge(&mut bucket, &pace, 50, now), Duration::ZERO);
        assert_eq!(charge(&mut bucket, &pace, 100, now), SECOND);
        assert_eq!(charge(&mut bucket, &pace, 0, now + SECOND / 2), SECOND / 2);
        assert_eq!(charge(&mut bucket, &pace, 0, now + SECOND), Duration::ZERO);
        assert_eq!(charge(&mut bucket, &pace, 1, now + SECOND), Duration::from_millis(10));
    }

    #[test]
    fn a_debt_has_an_end() {
        const DEBT_MAX: Duration = Duration::from_nanos(super::DEBT_MAX);
        let (pace, now) = (Pace::new(1, 1), Instant::now());
        let mut bucket = Bucket::default();
        for _ in 0..3 {
            assert_eq!(charge(&mut bucket, &pace, u64::MAX, now), DEBT_MAX);
        }
        assert_eq!(charge(&mut bucket, &pace, 0, now + DEBT_MAX), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_and_one_burst(
            a_second in 1..5_000_usize,
            steps in prop::collection::vec((0..400_u64, 0..3_000_usize), 1..40),
        ) {
            let (rate, began) = (Rate::default(), Instant::now());
            let (mut elapsed, mut count) = (Duration::ZERO, 0);
            for (pause, tries) in steps {
                elapsed += Duration::from_millis(pause);
                let taken = taken(&rate, a_second, began + elapsed, tries);
                count += taken;
                // One more, since a token's time is a whole number of nanoseconds.
                let most = (a_second as f64 * (elapsed.as_secs_f64() + 1.0)).ceil() + 1.0;
                prop_assert!(count as f64 <= most, "{count} of {most} in {elapsed:?}");
                if pause > 1_000 / a_second as u64 && tries > 0 {
                    prop_assert!(taken > 0, "a token comes back in its time");
                }
            }
        }

        /// Whoever waits when told to, does no more than the rate, a burst, and what was under way
        /// when it was used up.
        #[test]
        fn who_waits_as_told_keeps_the_rate(
            (a_second, burst) in (1..1_000_000_usize, 0..1_000_000_usize),
            works in prop::collection::vec(0..2_000_000_u64, 1..40),
        ) {
            let (pace, began) = (Pace::new(a_second, burst), Instant::now());
            let (mut bucket, mut elapsed, mut done) = (Bucket::default(), Duration::ZERO, 0);
            for work in works {
                prop_assume!(work < a_second as u64 * (DEBT_MAX / 1_000_000_000));
                let most = a_second as f64 * elapsed.as_secs_f64() + burst as f64;
                // A nanosecond's worth, and a share of a token, for each rounding.
                prop_assert!(done as f64 <= most + 40.0 + a_second as f64 * 1e-7, "{done} of {most} in {elapsed:?}");
                done += work;
                elapsed += charge(&mut bucket, &pace, work, began + elapsed);
            }
        }
    }
}
