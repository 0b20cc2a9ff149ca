//! One client socket, as its shard holds it: the stream, what is half read and half written, and
//! the clocks that run.
//!
//! No decisions about other connections are taken here, and no system call except on this socket.
//!
//! # When each clock starts, what restarts it, and what pauses it
//! A frame is *handed over* when the socket has taken its last byte, not when it is queued. What
//! the kernel and the proxies on the way hold of it cannot be seen; [`Limits::lag`] is the time
//! that a client has for it.
//!
//! | clock | starts | restarts | is paused | then |
//! |---|---|---|---|---|
//! | `max_lifetime` | with the handshake's answer | never | never | 1001 |
//! | `idle_timeout` | with the handshake's answer | a message in either direction; bytes of a message under way, in either direction; the end of being slowed | while it is slowed | 1001 |
//! | `ping_interval` | with the handshake's answer | each ping | while something waits for the socket: that is the test, then; while it is slowed | a ping |
//! | `pong_timeout`, and the lag of what was sent since the last ping that was answered | a ping is handed over | bytes from the client; room in a socket that was full | while the client is not read from | 1011 |
//! | `outbox_age` | the socket takes nothing although something waits | the socket takes a byte | never | 1008 |
//! | closing: `outbox_age` where the client is owed what waits, else `close_timeout` | our close frame is queued | the socket takes a byte, within that and the lag of what waited | never | cut |
//! | closing: `close_timeout`, and the lag of what was sent since the last ping that was answered | our close frame is handed over | bytes from the client, within the lag of all of them since then | never | cut |
//! | closing: `close_timeout` | both close frames are out; our side of the stream is shut | never | never | cut |
//!
//! A drain bounds them all (`drain.window` and `drain.grace`).

use std::io;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use mio::net::TcpStream;

use self::answers::Answers;
use self::clocks::Clocks;
use self::closing::Closing;
use self::meter::Meter;
pub(crate) use self::state::{Due, Reading};
use crate::config::Limits;
use crate::limits::ticket::Ticket;
use crate::ops::metrics::Farewell;
use crate::protocol::close::Close;
use crate::protocol::codec::Decoder;
use crate::shard::outbox::{Outbox, Written};

pub(crate) mod answers;
mod clocks;
mod closing;
pub(crate) mod meter;
mod state;
#[cfg(test)]
mod tests;

/// Without progress for this long, what a connection holds is the first to be given up when memory
/// runs out.
const STALLED: Duration = Duration::from_secs(1);

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Connection {
    /// `None` while the answer to the handshake is on its way: what is sent meanwhile waits in the
    /// outbox, since a client that has seen the answer may rely on being a member.
    pub(crate) stream: Option<TcpStream>,
    pub(crate) ticket: Ticket,
    pub(crate) decoder: Decoder,
    pub(crate) outbox: Outbox,
    pub(crate) reading: Reading,
    pub(crate) meter: Meter,
    /// Whether it is in the shard's list of connections to write to.
    pub(crate) dirty: bool,
    /// Whether events tell when the socket takes more.
    pub(crate) writes_watched: bool,
    /// Whether the client has shut down its side; seen with an event, before the last bytes are
    /// read.
    pub(crate) hung_up: bool,
    pub(crate) answers: Answers,
    /// Calls of back ends that are under way.
    pub(crate) calls: usize,
    /// What is counted of a message that has not arrived whole.
    pub(crate) partial_bytes: u32,
    /// When the shard's timer for this connection fires; others for it are stale.
    pub(crate) timer_at: Instant,
    clocks: Clocks,
    /// Once our close frame is in the outbox.
    closing: Option<Box<Closing>>,
}

impl Connection {
    pub(crate) fn new(ticket: Ticket, now: Instant, limits: &Limits) -> Self {
        Self {
            stream: None,
            ticket,
            decoder: Decoder::default(),
            outbox: Outbox::default(),
            reading: Reading::OnEvent,
            meter: Meter::default(),
            dirty: false,
            writes_watched: false,
            hung_up: false,
            answers: Answers::default(),
            calls: 0,
            partial_bytes: 0,
            timer_at: now,
            clocks: Clocks::new(now, limits),
            closing: None,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.closing.is_none()
    }

    /// Returns whether nothing more is expected from the client.
    pub(crate) fn is_finished(&self) -> bool {
        self.closing.as_ref().is_some_and(|closing| closing.is_finished())
    }

    /// Returns whether the socket took no more when it was last written to.
    pub(crate) fn is_stuck(&self) -> bool {
        self.clocks.stuck_since.is_some()
    }

    /// Returns whether what it holds has been there for some time without any progress: nothing of
    /// it was taken, or nothing more of an unfinished message came.
    pub(crate) fn is_stalled(&self, now: Instant) -> bool {
        let is_old = |since: Instant| since + STALLED <= now;
        match self.clocks.stuck_since {
            Some(since) => is_old(since),
            None => is_old(self.clocks.last_life),
        }
    }

    pub(crate) fn last_message(&self) -> Instant {
        self.clocks.last_message
    }

    /// Notes a message in either direction, or part of one.
    pub(crate) fn on_active(&mut self, now: Instant) {
        self.clocks.last_message = now;
    }

    /// Notes bytes from the client.
    pub(crate) fn on_heard(&mut self, now: Instant) {
        self.clocks.last_life = now;
    }

    /// Has it read again after a pause, in which no sign of life could be seen.
    pub(crate) fn resume_reading(&mut self, now: Instant) {
        self.reading = Reading::OnEvent;
        self.clocks.last_life = now;
    }

    /// Notes that it has been slowed for long enough. Its silence meanwhile was not its own.
    pub(crate) fn end_slowing(&mut self, now: Instant) {
        self.reading = Reading::Queued;
        self.on_active(now);
    }

    /// Notes a pong; returns the round-trip time if it answers the oldest ping.
    pub(crate) fn on_pong(&mut self, payload: &[u8], now: Instant) -> Option<Duration> {
        self.clocks.on_pong(payload, now)
    }

    /// Notes that a ping will be the first in the outbox; returns its payload.
    pub(crate) fn plan_pong(&mut self, now: Instant, limits: &Limits) -> [u8; 8] {
        self.clocks.plan_pong(now, limits)
    }

    /// Draws anew when it is pinged next, after a change of the interval.
    pub(crate) fn replan_ping(&mut self, now: Instant, limits: &Limits) {
        self.clocks.replan_ping(now, limits);
    }

    /// Returns whether a clock runs for something that has been handed over.
    pub(crate) fn awaits_answer(&self) -> bool {
        self.clocks.ping.is_some() || self.closing.is_some()
    }

    /// Notes that our close frame is in the outbox.
    pub(crate) fn on_closing(&mut self, close: Close, now: Instant) {
        self.closing = Some(Box::new(Closing::new(close, now, self.outbox.bytes())));
    }

    /// Takes what the client sends while we close; returns whether that is within its bound.
    pub(crate) fn throw_away(&mut self, input: &[u8], now: Instant) -> bool {
        self.closing
            .as_mut()
            .is_some_and(|closing| closing.throw_away(&mut self.decoder, input, now))
    }

    /// Notes that the client has ended its side of the TCP stream while we close.
    pub(crate) fn on_end_of_stream(&mut self, now: Instant) {
        self.hung_up = true;
        if let Some(closing) = &mut self.closing {
            closing.on_end_of_stream(now);
        }
    }

    /// Writes what the socket takes.
    ///
    /// # Errors
    /// The socket is broken.
    pub(crate) fn write(&mut self, now: Instant) -> io::Result<Written> {
        let Some(stream) = &mut self.stream else { return Ok(Written { bytes: 0, all: false }) };
        let written = self.outbox.write_to(stream)?;
        self.clocks.on_written(written, now);
        if written.all
            && let Some(closing) = &mut self.closing
            && closing.is_half_close_due(now)
        {
            // The client may be gone already; then the next read says so.
            let _gone = stream.shutdown(Shutdown::Write).is_err();
        }
        Ok(written)
    }

    /// Returns when to look again.
    pub(crate) fn deadline(&self, limits: &Limits) -> Instant {
        match (&self.closing, self.reading) {
            (Some(closing), _) => closing.end(&self.clocks, limits).0,
            (None, Reading::Slowed { until }) => self.clocks.slowed_deadline(until, limits),
            (None, _) => self.clocks.deadline(limits),
        }
    }

    /// Returns what is due; call again until it is nothing.
    pub(crate) fn due(&mut self, now: Instant, limits: &Limits) -> Due {
        match (&self.closing, self.reading) {
            (Some(closing), _) => closing.due(&self.clocks, now, limits),
            (None, Reading::Slowed { .. }) => self.clocks.slowed_due(now, limits),
            (None, reading) => self.clocks.due(now, limits, reading, self.outbox.is_empty()),
        }
    }

    /// Ends the connection: closes the socket and returns the ticket with the reason, and how our
    /// close frame fared.
    pub(crate) fn into_end(self) -> (Ticket, Close, Option<Farewell>) {
        match self.closing {
            None => (self.ticket, Close::Lost, None),
            Some(closing) => {
                let farewell = closing.farewell();
                (self.ticket, closing.close, Some(farewell))
            }
        }
    }
}
