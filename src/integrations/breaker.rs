//! Keeps calls from a back end that is down, so that they fail at once and it is not run over when
//! it comes back.
//!
//! Pure. It opens after [`FAILURES`] calls in a row that did not get through, for a pause that
//! doubles up to a bound; then one call goes through, and its end decides. What a back end answers,
//! an error included, closes it.

use std::time::Duration;

use tokio::time::Instant;

/// Calls in a row that did not get through until it opens.
const FAILURES: u32 = 5;

/// First and longest pause.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// See the [module documentation](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breaker {
    /// Calls go through; the last `failures` in a row have failed.
    Closed { failures: u32 },
    /// None goes through until then.
    Open { until: Instant, pause: Duration },
    /// One goes through, whose end is awaited.
    HalfOpen { pause: Duration },
}

impl Default for Breaker {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Breaker {
    /// Returns whether a call may go through, and notes that it does.
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        match *self {
            Self::Closed { .. } => true,
            Self::Open { until, pause } if until <= now => {
                *self = Self::HalfOpen { pause };
                true
            }
            Self::Open { .. } | Self::HalfOpen { .. } => false,
        }
    }

    /// Notes that a call has got through, whatever was answered.
    pub(super) fn on_answer(&mut self) {
        *self = Self::default();
    }

    /// Notes that a call has not got through; returns whether that has opened it.
    pub(super) fn on_failure(&mut self, now: Instant) -> bool {
        let (shortest, longest) = PAUSES;
        let pause = match *self {
            Self::Closed { failures } if failures + 1 < FAILURES => {
                *self = Self::Closed { failures: failures + 1 };
                return false;
            }
            Self::Closed { .. } => shortest,
            Self::HalfOpen { pause } => (2 * pause).min(longest),
            // Calls that were under way when it opened.
            Self::Open { .. } => return false,
        };
        *self = Self::Open { until: now + pause, pause };
        true
    }

    /// Returns whether calls are kept away.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self, Self::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_with_an_answer() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for _ in 1..FAILURES {
            assert!(!breaker.on_failure(now));
        }
        breaker.on_answer();
        for _ in 1..FAILURES {
            assert!(!breaker.on_failure(now) && breaker.admit(now));
        }
        assert!(breaker.on_failure(now) && breaker.is_open() && !breaker.admit(now));
        let later = now + PAUSES.0;
        assert!(breaker.admit(later), "one goes through");
        assert!(!breaker.admit(later), "and no other");
        assert!(breaker.on_failure(later) && !breaker.admit(later + PAUSES.0));
        assert!(breaker.admit(later + 2 * PAUSES.0));
        breaker.on_answer();
        assert!(!breaker.is_open() && breaker.admit(later));
    }

    proptest! {
        #[test]
        fn it_never_stays_shut_for_longer_than_the_longest_pause(fails in prop::collection::vec(any::<bool>(), 0..100)) {
            let (mut breaker, mut now) = (Breaker::default(), Instant::now());
            for is_failure in fails {
                if !breaker.admit(now) {
                    now += PAUSES.1;
                    prop_assert!(breaker.admit(now));
                }
                if is_failure {
                    breaker.on_failure(now);
                } else {
                    breaker.on_answer();
                }
            }
        }
    }
}
