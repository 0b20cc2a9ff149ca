//! A connection from our close frame on: what waits goes out first, and the client has time to
//! answer.
//!
//! Neither side of the TCP stream is shut before the client's close frame, or the end of its time:
//! load balancers turn half a close into a whole one, and a kernel that gets bytes for a closed
//! socket resets the stream, which takes with it what the client has not read yet. So what the
//! client still sends is read and thrown away, within a bound.

use std::time::{Duration, Instant};

use super::clocks::Clocks;
use super::state::Due;
use crate::config::Limits;
use crate::ops::metrics::Farewell;
use crate::protocol::close::Close;
use crate::protocol::codec::Decoder;

/// What a client may send between our close frame and its own, in bytes.
const THROWN_AWAY_MAX: u64 = 16 << 20;

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Closing {
    pub(super) close: Close,
    began: Instant,
    /// Bytes that waited then, our close frame among them.
    ahead: u64,
    /// When the socket had taken them all.
    handed: Option<Instant>,
    client: Client,
    /// When nothing more was expected from it.
    finished: Option<Instant>,
    half_closed: bool,
    /// Bytes of the client after our close frame was queued.
    thrown_away: u64,
}

/// What the client has done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Silent,
    /// Its close frame has come.
    Closed,
    /// It ended its side of the stream without.
    Ended,
}

impl Closing {
    /// Our close frame has been put behind what waits, `ahead` bytes with it.
    pub(super) fn new(close: Close, now: Instant, ahead: usize) -> Self {
        let is_answer = matches!(close, Close::Client { .. } | Close::ClientNoStatus);
        Self {
            close,
            began: now,
            ahead: ahead as u64,
            handed: None,
            client: if is_answer { Client::Closed } else { Client::Silent },
            finished: is_answer.then_some(now),
            half_closed: false,
            thrown_away: 0,
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished.is_some()
    }

    /// Takes what the client sends, of which only a close frame is of interest; returns whether it
    /// is within the bound.
    pub(super) fn throw_away(&mut self, decoder: &mut Decoder, input: &[u8], now: Instant) -> bool {
        self.thrown_away += input.len() as u64;
        if self.client == Client::Silent && decoder.skip(input) {
            self.finish(Client::Closed, now);
        }
        self.thrown_away <= THROWN_AWAY_MAX
    }

    pub(super) fn on_end_of_stream(&mut self, now: Instant) {
        if self.client == Client::Silent {
            self.finish(Client::Ended, now);
        }
    }

    fn finish(&mut self, client: Client, now: Instant) {
        self.client = client;
        self.finished = Some(now);
    }

    /// To be asked when the socket has taken everything; returns, once, whether our side of the
    /// stream is to be shut, so that the client can read our close frame before the stream ends.
    pub(super) fn is_half_close_due(&mut self, now: Instant) -> bool {
        self.handed.get_or_insert(now);
        let is_due = self.is_finished() && !self.half_closed;
        self.half_closed |= is_due;
        is_due
    }

    /// Returns when the client is given up, and as what.
    pub(super) fn end(&self, clocks: &Clocks, limits: &Limits) -> (Instant, Farewell) {
        if let (Some(handed), Some(finished)) = (self.handed, self.finished) {
            // All is said; only the end of the client's side of the stream is missing.
            return (handed.max(finished) + limits.close_timeout, self.farewell());
        }
        if let Some(handed) = self.handed {
            // It cannot close in the middle of a frame: what it sends counts, as long as it is not
            // a drip.
            let heard = clocks.last_life.clamp(handed, handed + limits.lag(self.thrown_away));
            let lag = limits.lag(clocks.unconfirmed(clocks.taken));
            return (heard + limits.close_timeout + lag, Farewell::Timeout);
        }
        let patience = self.patience(limits);
        let stuck_since = clocks.stuck_since.map_or(self.began, |since| since.max(self.began));
        let slowest = self.began + patience + limits.lag(self.ahead);
        ((stuck_since + patience).min(slowest), Farewell::Stuck)
    }

    /// Returns the longest time without progress: who is told to go is owed what waits, unlike one
    /// who goes, or must.
    fn patience(&self, limits: &Limits) -> Duration {
        match self.close {
            Close::Route | Close::Deleted | Close::Idle | Close::MaxLifetime | Close::Drain => {
                limits.outbox_age
            }
            _ => limits.close_timeout,
        }
    }

    pub(super) fn due(&self, clocks: &Clocks, now: Instant, limits: &Limits) -> Due {
        let (at, farewell) = self.end(clocks, limits);
        if at <= now { Due::Cut(farewell) } else { Due::Nothing }
    }

    /// Returns how it has ended, as far as the client did that.
    pub(super) fn farewell(&self) -> Farewell {
        match self.client {
            Client::Closed => Farewell::Answered,
            Client::Silent | Client::Ended => Farewell::Gone,
        }
    }
}
