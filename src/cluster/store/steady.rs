//! For how long a server has done at once what it was asked.
//!
//! Pure. What it keeps this node waiting for, it keeps all others waiting for: while it stalls
//! nobody can renew a lease. The time begins anew with every connection, whoever is at its other
//! end; after an answer that was slow; and when nothing was asked for long, since then this node
//! has slept, or cannot know. A node that starts has seen no trouble.

use std::time::{Duration, Instant};

/// An answer that takes longer than this part of a lease is slow. A node that lives renews its
/// lease every third of it.
const SLOW: u32 = 2;
/// Thirds of a lease in which something has to be asked; heartbeats are.
const SILENT_THIRDS: u32 = 2;

/// See the [module documentation](self).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steady {
    lease: Duration,
    since: Since,
    /// When the last answer came.
    heard: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum Since {
    /// No connection has been made yet.
    Start,
    /// Over the first connection of this node.
    Ever,
    Then(Instant),
    /// There is no connection.
    Not,
}

impl Steady {
    /// `is_first`: whether the server is one that the node finds when it starts.
    pub(crate) fn new(lease: Duration, is_first: bool) -> Self {
        Self { lease, since: if is_first { Since::Start } else { Since::Not }, heard: None }
    }

    /// A connection was made.
    pub(crate) fn connected(&mut self, now: Instant) {
        let is_first = matches!(self.since, Since::Start);
        self.since = if is_first { Since::Ever } else { Since::Then(now) };
        self.heard = Some(now);
    }

    /// The connection is gone.
    pub(crate) fn lost(&mut self) {
        if !matches!(self.since, Since::Start) {
            self.since = Since::Not;
        }
    }

    /// What was sent then has been answered.
    pub(crate) fn answered(&mut self, sent: Instant, now: Instant) {
        let is_slow = now.saturating_duration_since(sent) > self.lease / SLOW;
        if (is_slow || self.is_silent(now)) && matches!(self.since, Since::Ever | Since::Then(_)) {
            self.since = Since::Then(now);
        }
        self.heard = self.heard.max(Some(now));
    }

    /// Returns for how long it has been steady.
    pub(crate) fn time(&self, now: Instant) -> Duration {
        match self.since {
            Since::Ever if !self.is_silent(now) => Duration::MAX,
            Since::Then(since) if !self.is_silent(now) => now.saturating_duration_since(since),
            _ => Duration::ZERO,
        }
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
    fn a_node_that_starts_has_seen_no_trouble_and_then_counts_from_what_it_sees() {
        let (mut steady, began) = (Steady::new(LEASE, true), Instant::now());
        assert_eq!(steady.time(began), Duration::ZERO);
        steady.lost();
        steady.connected(began);
        assert_eq!(steady.time(began), Duration::MAX);
        let now = serve(&mut steady, began, 60);
        assert_eq!(steady.time(now), Duration::MAX);
        steady.lost();
        assert_eq!(steady.time(now), Duration::ZERO);
        steady.connected(now);
        let now = serve(&mut steady, now, 5);
        assert_eq!(steady.time(now), 5 * SECOND);
    }

    #[test]
    fn a_server_that_comes_later_has_to_prove_itself() {
        let (mut steady, began) = (Steady::new(LEASE, false), Instant::now());
        steady.connected(began);
        assert_eq!(steady.time(began + SECOND), SECOND);
    }

    #[test]
    fn a_slow_answer_and_a_silence_begin_it_anew() {
        let (mut steady, began) = (Steady::new(LEASE, true), Instant::now());
        steady.connected(began);
        let now = serve(&mut steady, began, 3);
        steady.answered(now, now + LEASE / 2);
        assert_eq!(steady.time(now + LEASE / 2), Duration::MAX, "not slow yet");
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
        let (mut steady, began) = (Steady::new(LEASE, true), Instant::now());
        steady.connected(began);
        steady.lost();
        steady.answered(began, began + LEASE);
        assert_eq!(steady.time(began + LEASE), Duration::ZERO);
    }
}
