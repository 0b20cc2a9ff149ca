//! Times that differ a little each time, so that what began together does not stay in step.

use std::time::Duration;

/// Spreads a time by a tenth to either side, so that connections of one moment do not act at once
/// for ever.
pub(crate) fn jittered(time: Duration) -> Duration {
    time.mul_f64(rand::random_range(0.9..1.1))
}
