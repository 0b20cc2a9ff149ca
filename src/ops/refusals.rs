//! What is refused appears in the log: each refusal at `debug`, and, when many of one cause come
//! together, one line at `warn`.
//!
//! So an operator sees that something is wrong, and what, and no client can fill the log.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::model::id::ConnectionId;

/// Time in which refusals are counted, and at most one line is written for each cause.
const WINDOW: Duration = Duration::from_secs(10);

/// From this number on, refusals of one cause within a window are many.
const MANY: u64 = 10;

/// Counts refusals by what was refused and why: two closed sets.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<BTreeMap<(&'static str, &'static str), Window>>);

/// One refusal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told<'t> {
    /// What was refused: `request`, `handshake`, `management`, …
    pub(crate) what: &'static str,
    /// The label under which it is counted.
    pub(crate) cause: &'static str,
    /// Of the client, as far as it is known.
    pub(crate) address: IpAddr,
    /// Where there is a connection already.
    pub(crate) conn: Option<ConnectionId>,
    /// What the client was told.
    pub(crate) message: &'t str,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    seen: u64,
    /// Since the last line.
    untold: u64,
}

impl Refusals {
    /// Writes what is to be written.
    pub(crate) fn tell(&self, told: Told<'_>) {
        let Told { what, cause, address, conn, message } = told;
        let conn = conn.map(tracing::field::display);
        tracing::debug!(what, cause, %address, conn.id = conn, message, "refused");
        let now = Instant::now();
        let count =
            self.0.lock().entry((what, cause)).or_insert_with(|| Window::new(now)).count(now);
        if let Some(count) = count {
            tracing::warn!(what, cause, count, %address, message, "many refusals; RUST_LOG=gatecast=debug shows each");
        }
    }
}

impl Window {
    fn new(began: Instant) -> Self {
        Self { began, seen: 0, untold: 0 }
    }

    /// Counts one; returns how many there were since the last line if another is due.
    fn count(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.began) >= WINDOW {
            let untold = if self.seen < MANY { 0 } else { self.untold };
            *self = Self { untold, ..Self::new(now) };
        }
        self.seen += 1;
        self.untold += 1;
        (self.seen == MANY).then(|| std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(window: &mut Window, now: Instant, refusals: usize) -> Vec<u64> {
        (0..refusals).filter_map(|_| window.count(now)).collect()
    }

    #[test]
    fn a_flood_is_one_line_a_window_that_says_how_many_there_were() {
        let began = Instant::now();
        let mut window = Window::new(began);
        assert_eq!(lines(&mut window, began, 1_000), [10]);
        assert_eq!(lines(&mut window, began + WINDOW / 2, 500), [0; 0]);
        assert_eq!(lines(&mut window, began + WINDOW, 9), [0; 0]);
        assert_eq!(lines(&mut window, began + WINDOW, 1), [1_500]);
    }

    #[test]
    fn a_few_are_no_line_and_are_forgotten() {
        let began = Instant::now();
        let mut window = Window::new(began);
        for turn in 0..100 {
            assert_eq!(lines(&mut window, began + WINDOW * turn, 9), [0; 0]);
        }
        assert_eq!(lines(&mut window, began + WINDOW * 100, 10), [10]);
    }
}
