//! How a fleet comes to be: as fast as the server lets it, or at a rate.
//!
//! Rule: at a rate a handshake counts from the moment it is due, however late it could begin.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::{Fleet, Opening, TICK};
use crate::shared::conn::Incoming;
use crate::shared::histogram;
use crate::shared::target::Target;

/// Enough to keep a server busy, below any listen backlog.
const DIALS_UNDER_WAY: usize = 128;
/// A server that has not taken all connections by then, or so long after the last was due, never will; 15,000 take about
/// two seconds.
const OPEN_LIMIT: Duration = Duration::from_secs(60);

/// How fast connections are opened.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Pace {
    /// Handshakes at once.
    pub(crate) under_way: usize,
    /// Handshakes a second; without it, the next begins when one is done.
    pub(crate) rate: Option<f64>,
}

/// What opening connections showed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Opened {
    pub(crate) elapsed: Duration,
    /// Nanoseconds from dialling, or from when that was due, until messages may be sent.
    #[serde(with = "histogram")]
    pub(crate) handshakes: Histogram<u64>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { under_way: DIALS_UNDER_WAY, rate: None }
    }
}

impl Pace {
    /// Returns the moment, after the start, at which the `nth` dialling is due; none if any moment is right.
    fn due(&self, nth: usize) -> Option<Duration> {
        self.rate.map(|rate| Duration::from_secs_f64(nth as f64 / rate))
    }
}

impl Fleet {
    /// Opens `n` connections, to the targets in turn, and returns when all of them are open.
    ///
    /// # Errors
    /// The first connection that fails, or the time limit.
    pub(crate) fn open(targets: &[Target], n: usize, opening: Opening) -> Result<Self> {
        let mut fleet = Self::empty()?;
        fleet.add(targets, (n, opening), &Pace::default())?;
        Ok(fleet)
    }

    /// Opens `n` connections more, numbered after those that are there.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn add(
        &mut self,
        targets: &[Target],
        (n, opening): (usize, Opening),
        pace: &Pace,
    ) -> Result<Opened> {
        let (first, last) = (self.conns.len(), self.conns.len() + n);
        let mut targets = targets.iter().cycle();
        let mut begun: Vec<Instant> = Vec::with_capacity(n);
        let mut handshakes = histogram::empty()?;
        let started = Instant::now();
        let limit = OPEN_LIMIT + pace.due(n).unwrap_or_default();
        while self.n_open < last {
            while self.conns.len() < last && self.conns.len() - self.n_open < pace.under_way {
                let now = Instant::now();
                let due = pace.due(self.conns.len() - first).map_or(now, |due| started + due);
                if due > now {
                    self.wake_in(due - now)?;
                    break;
                }
                self.dial(targets.next().context("no target")?, opening)?;
                begun.push(due);
            }
            self.turn(TICK, &mut |nth, incoming| {
                if let (Incoming::Opened, Some(at)) = (incoming, begun.get(nth.wrapping_sub(first))) {
                    histogram::record(&mut handshakes, at.elapsed());
                }
            })?;
            if let Some(reason) = self.first_loss.take() {
                bail!("connection lost after {} of {last} were open: {reason}", self.n_open);
            }
            if started.elapsed() > limit {
                bail!("only {} of {last} connections opened in {limit:?}", self.n_open);
            }
        }
        Ok(Opened { elapsed: started.elapsed(), handshakes })
    }
}
