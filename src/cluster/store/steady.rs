//! For how long a server has done at once what it was asked.
//!
//! Pure. What it keeps this node waiting for, it keeps all others waiting for: while it stalls nobody can renew a lease. The time
//! begins anew with every connection, whoever is at its other end, the first as well: a server may have lost its data just before
//! the node starts; after an answer that was slow; and when nothing was asked for long, since then this node has slept, or cannot
//! know.

use std::time::{Duration, Instant};

/// An answer that takes longer than this part of a lease is slow. A node that lives renews its lease every third of it.
const SLOW: u32 = 2;
/// Thirds of a lease in which something has to be asked; heartbeats are.
const SILENT_THIRDS: u32 = 2;

/// See the head of this file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steady {
    lease: Duration,
    /// None without a connection.
    since: Option<Instant>,
    /// When the last answer came.
    heard: Option<Instant>,
}

impl Steady {
    pub(crate) fn new(lease: Duration) -> Self {
        Self { lease, since: None, heard: None }
    }

    /// A connection was made.
    pub(crate) fn connected(&mut self, now: Instant) {
        (self.since, self.heard) = (Some(now), Some(now));
    }

    /// The connection is gone.
    pub(crate) fn lost(&mut self) {
        self.since = None;
    }

    /// What was sent then has been answered.
    pub(crate) fn answered(&mut self, sent: Instant, now: Instant) {
        let is_slow = now.saturating_duration_since(sent) > self.lease / SLOW;
        if is_slow || self.is_silent(now) {
            self.since = self.since.map(|_| now);
        }
        self.heard = self.heard.max(Some(now));
    }

    /// Returns for how long it has been steady.
    pub(crate) fn time(&self, now: Instant) -> Duration {
        let since = self.since.filter(|_| !self.is_silent(now));
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    fn is_silent(&self, now: Instant) -> bool {
        let silence = self.lease * SILENT_THIRDS / 3;
        self.heard.is_none_or(|heard| now.saturating_duration_since(heard) > silence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(12);
    const SECOND: Duration = Duration::from_secs(1);

    /// Has everything answered in no time, every second.
    fn serve(steady: &mut Steady, from: Instant, seconds: u32) -> Instant {
        for second in 1..=seconds {
            steady.answered(from + second * SECOND, from + second * SECOND);
        }
        from + seconds * SECOND
    }

    #[test]
    fn every_connection_has_to_prove_itself_the_first_as_well() {
        let (mut steady, began) = (Steady::new(LEASE), Instant::now());
        assert_eq!(steady.time(began), Duration::ZERO);
        steady.lost();
        for _ in 0..2 {
            steady.connected(began);
            assert_eq!(steady.time(began), Duration::ZERO);
            let now = serve(&mut steady, began, 60);
            assert_eq!(steady.time(now), 60 * SECOND);
            steady.lost();
            assert_eq!(steady.time(now), Duration::ZERO);
        }
    }

    #[test]
    fn a_slow_answer_and_a_silence_begin_it_anew() {
        let (mut steady, began) = (Steady::new(LEASE), Instant::now());
        steady.connected(began);
        let now = serve(&mut steady, began, 3);
        steady.answered(now, now + LEASE / 2);
        assert_eq!(steady.time(now + LEASE / 2), 3 * SECOND + LEASE / 2, "not slow yet");
        let (sent, now) = (now + LEASE / 2, now + LEASE + SECOND);
        steady.answered(sent, now);
        assert_eq!(steady.time(now), Duration::ZERO);
        let now = serve(&mut steady, now, 9);
        assert_eq!(steady.time(now + 8 * SECOND), 17 * SECOND);
        assert_eq!(steady.time(now + 9 * SECOND), Duration::ZERO, "nothing was asked");
        steady.answered(now + 9 * SECOND, now + 9 * SECOND);
        assert_eq!(steady.time(now + 10 * SECOND), SECOND);
    }

    #[test]
    fn an_answer_that_comes_after_the_end_of_its_connection_says_nothing() {
        let (mut steady, began) = (Steady::new(LEASE), Instant::now());
        steady.connected(began);
        steady.lost();
        steady.answered(began, began + LEASE);
        assert_eq!(steady.time(began + LEASE), Duration::ZERO);
    }
}
