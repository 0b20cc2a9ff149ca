//! One client socket, as its shard holds it: the stream, what is half read and half written, and the clocks that run.
//!
//! No decisions about other connections are taken here, and no system call except on this socket.

use std::io;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::net::TcpStream;

use crate::admission::Ticket;
use crate::close::Close;
use crate::codec::Decoder;
use crate::config::Limits;
use crate::outbox::{Outbox, Written};

/// The socket of a connection whose handshake is done, on its way to its shard.
#[derive(Debug)]
pub(crate) struct NewSocket {
    /// Non-blocking, and in no event loop.
    pub(crate) stream: TcpStream,
    /// What the client sent right behind its handshake.
    pub(crate) early: Bytes,
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Connection {
    /// `None` while the answer to the handshake is on its way: what is sent meanwhile waits in the outbox, since a client
    /// that has seen the answer may rely on being a member.
    pub(crate) stream: Option<TcpStream>,
    pub(crate) ticket: Ticket,
    pub(crate) decoder: Decoder,
    pub(crate) outbox: Outbox,
    pub(crate) reading: Reading,
    /// Whether it is in the shard's list of connections to write to.
    pub(crate) dirty: bool,
    /// Whether events tell when the socket takes more.
    pub(crate) writes_watched: bool,
    /// Whether the client has shut down its side; seen with an event, before the last bytes are read.
    pub(crate) hung_up: bool,
    /// Joins it has asked for whose channels' subscriptions do not stand yet; a wish repeated counts again.
    pub(crate) joining: u16,
    /// When the shard's timer for this connection fires; others for it are stale.
    pub(crate) timer_at: Instant,
    phase: Phase,
    opened: Instant,
    /// Last message in either direction; control frames do not count.
    last_message: Instant,
    /// Last bytes from the client.
    last_heard: Instant,
    next_ping: Option<Instant>,
    ping_sent: Option<Instant>,
    /// Since when the socket has taken nothing although something waits.
    stuck_since: Option<Instant>,
}

/// Where a connection stands with reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// The next readiness event tells when there is more.
    OnEvent,
    /// There is more; the shard will read in its next turn.
    Queued,
    /// There may be more; it is left in the kernel until the client has taken what waits for it.
    Held,
}

#[derive(Debug)]
enum Phase {
    Open,
    /// Our close frame is in the outbox or sent.
    Closing {
        close: Close,
        /// When the client is given up.
        deadline: Instant,
        /// Whether nothing more is expected from the client: its close frame came, or it broke the protocol.
        finished: bool,
        half_closed: bool,
    },
}

/// What a timer leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    Ping,
    Close(Close),
    /// Give the client up.
    Cut,
}

impl Connection {
    pub(crate) fn new(ticket: Ticket, now: Instant, limits: &Limits) -> Self {
        Self {
            stream: None,
            ticket,
            decoder: Decoder::default(),
            outbox: Outbox::default(),
            reading: Reading::OnEvent,
            dirty: false,
            writes_watched: false,
            hung_up: false,
            joining: 0,
            timer_at: now,
            phase: Phase::Open,
            opened: now,
            last_message: now,
            last_heard: now,
            next_ping: limits.ping_interval.map(|interval| now + jittered(interval)),
            ping_sent: None,
            stuck_since: None,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Returns whether what the client sends is of no interest any more.
    pub(crate) fn is_deaf(&self) -> bool {
        matches!(self.phase, Phase::Closing { finished: true, .. })
    }

    /// Returns whether the socket took no more when it was last written to.
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck_since.is_some()
    }

    pub(crate) fn last_message(&self) -> Instant {
        self.last_message
    }

    /// Notes a message in either direction.
    pub(crate) fn on_active(&mut self, now: Instant) {
        self.last_message = now;
    }

    /// Notes bytes from the client.
    pub(crate) fn on_heard(&mut self, now: Instant) {
        self.last_heard = now;
    }

    /// Notes a pong; returns the round-trip time if a ping was under way.
    pub(crate) fn on_pong(&mut self, now: Instant) -> Option<Duration> {
        self.ping_sent.take().map(|sent| now.saturating_duration_since(sent))
    }

    /// Notes a ping of ours; the oldest that is unanswered is the one that counts.
    pub(crate) fn on_ping_sent(&mut self, now: Instant, limits: &Limits) {
        self.ping_sent.get_or_insert(now);
        self.next_ping = limits.ping_interval.map(|interval| now + jittered(interval));
    }

    /// Notes that our close frame is in the outbox.
    pub(crate) fn on_closing(&mut self, close: Close, now: Instant, limits: &Limits) {
        let finished =
            !matches!(close, Close::Route | Close::Deleted | Close::Idle | Close::MaxLifetime | Close::Drain);
        let deadline = now + limits.close_timeout;
        self.phase = Phase::Closing { close, deadline, finished, half_closed: false };
    }

    /// Notes the client's answer to our close frame.
    pub(crate) fn on_close_answered(&mut self) {
        if let Phase::Closing { finished, .. } = &mut self.phase {
            *finished = true;
        }
    }

    /// Writes what the socket takes.
    ///
    /// # Errors
    /// The socket is broken.
    pub(crate) fn write(&mut self, now: Instant) -> io::Result<Written> {
        let written = match &mut self.stream {
            Some(stream) => self.outbox.write_to(stream)?,
            None => Written { bytes: 0, all: false },
        };
        self.on_written(written, now);
        Ok(written)
    }

    /// Notes what a write achieved; half-closes once everything is out and nothing more is expected, so that the client
    /// can read our close frame before the stream ends.
    fn on_written(&mut self, Written { bytes, all }: Written, now: Instant) {
        self.stuck_since = match (all, bytes > 0) {
            (true, _) => None,
            (false, true) => Some(now),
            (false, false) => self.stuck_since.or(Some(now)),
        };
        if let Phase::Closing { finished: true, half_closed: half_closed @ false, .. } = &mut self.phase
            && all
        {
            *half_closed = true;
            // The client may be gone already; then the next read says so.
            let _gone = self.stream.as_ref().is_some_and(|stream| stream.shutdown(Shutdown::Write).is_err());
        }
    }

    /// Returns when to look again.
    pub(crate) fn deadline(&self, limits: &Limits) -> Instant {
        match &self.phase {
            Phase::Closing { deadline, .. } => *deadline,
            Phase::Open => {
                let ends = (self.last_message + limits.idle_timeout).min(self.opened + limits.max_lifetime);
                let others = [
                    self.next_ping,
                    self.ping_sent.map(|sent| sent + limits.pong_timeout),
                    self.stuck_since.map(|since| since + limits.outbox_age),
                ];
                others.into_iter().flatten().fold(ends, Instant::min)
            }
        }
    }

    /// Returns what is due; call again until it is nothing.
    pub(crate) fn due(&mut self, now: Instant, limits: &Limits) -> Due {
        match &self.phase {
            Phase::Closing { deadline, .. } if *deadline <= now => return Due::Cut,
            Phase::Closing { .. } => return Due::Nothing,
            Phase::Open => {}
        }
        if self.opened + limits.max_lifetime <= now {
            return Due::Close(Close::MaxLifetime);
        }
        if self.last_message + limits.idle_timeout <= now {
            return Due::Close(Close::Idle);
        }
        if self.stuck_since.is_some_and(|since| since + limits.outbox_age <= now) {
            return Due::Close(Close::SlowConsumer);
        }
        if let Some(sent) = self.ping_sent.filter(|sent| *sent + limits.pong_timeout <= now) {
            if self.last_heard < sent {
                return Due::Close(Close::PingTimeout);
            }
            self.ping_sent = None;
        }
        if self.next_ping.is_some_and(|at| at <= now) { Due::Ping } else { Due::Nothing }
    }

    /// Ends the connection: closes the socket and returns the ticket with the reason.
    pub(crate) fn into_end(self) -> (Ticket, Close) {
        let close = match self.phase {
            Phase::Open => Close::Lost,
            Phase::Closing { close, .. } => close,
        };
        (self.ticket, close)
    }
}

/// Spreads a time by a tenth to either side, so that connections of one moment do not act at once for ever.
pub(crate) fn jittered(time: Duration) -> Duration {
    time.mul_f64(rand::random_range(0.9..1.1))
}
