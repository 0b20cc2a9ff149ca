//! All connections of a run, driven by one thread through one epoll.
//!
//! Rule: the client must stay cheap, since it shares the cores with the server it measures: one
//! shared read buffer, no task, timer or buffer per connection.

use std::io::ErrorKind;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hdrhistogram::Histogram;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use serde::{Deserialize, Serialize};

use crate::shared::conn::{Conn, Incoming, Protocol, State};
use crate::shared::envelope::Envelope;
use crate::shared::frame::{self, Opcode};
use crate::shared::handshake;
use crate::shared::histogram;
use crate::shared::progress;
use crate::shared::target::Target;

/// How long a server may take to answer our close frames.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);
/// Longest sleep between two checks of the clock.
const TICK: Duration = Duration::from_millis(50);
/// Below what any server takes for abuse.
const REQUESTS_UNDER_WAY: usize = 256;
const EVENTS_PER_TURN: usize = 1024;
/// The token of the timer; no connection has it.
const ALARM: Token = Token(usize::MAX);
/// One read takes all frames that a flood leaves in a socket.
const SCRATCH_BYTES: usize = 128 << 10;

/// Enough to keep a server busy, below any listen backlog.
const DIALS_UNDER_WAY: usize = 128;
/// A server that has not accepted all connections by then, counted from when the last is due, never
/// will; 15,000 take about two seconds.
const OPEN_LIMIT: Duration = Duration::from_secs(60);

/// How connections begin, and what they carry then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    Handshake(Envelope),
    /// Frames from the first byte on, as from the floor.
    Bare,
    /// Requests and answers.
    Http,
}

/// Many connections to one server, which may have several nodes.
#[derive(Debug)]
pub(crate) struct Fleet {
    poll: Poll,
    events: Events,
    /// Ends a turn to the microsecond; the timeout of a poll has milliseconds.
    alarm: OwnedFd,
    /// Index, token and number of a connection are the same for the whole life of the fleet.
    conns: Vec<Conn>,
    n_open: usize,
    n_closed: usize,
    /// Why the first connection was lost, for the error message.
    first_loss: Option<String>,
    scratch: Vec<u8>,
    outgoing: Vec<u8>,
}

/// Connections that the server closed or that broke.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Losses {
    pub(crate) n: usize,
    pub(crate) first: Option<String>,
}

/// How fast connections are opened.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Pace {
    /// Handshakes at once.
    pub(crate) under_way: usize,
    /// Handshakes a second; without it, the next begins when one is done.
    pub(crate) rate: Option<f64>,
}

/// What was measured while connections opened.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Opened {
    pub(crate) elapsed: Duration,
    /// Nanoseconds from when dialling is due until messages may be sent.
    #[serde(with = "histogram")]
    pub(crate) handshakes: Histogram<u64>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { under_way: DIALS_UNDER_WAY, rate: None }
    }
}

impl Pace {
    /// Returns how long after the start connection `nth` is due, if there is a rate.
    fn due(&self, nth: usize) -> Option<Duration> {
        self.rate.map(|rate| Duration::from_secs_f64(nth as f64 / rate))
    }
}

impl Fleet {
    /// Returns a fleet without connections.
    pub(crate) fn empty() -> Result<Self> {
        let poll = Poll::new().context("cannot open an epoll")?;
        let alarm = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        // Edge-triggered: it need not be read, each expiry is an event of its own.
        poll.registry().register(&mut SourceFd(&alarm.as_raw_fd()), ALARM, Interest::READABLE)?;
        Ok(Self {
            poll,
            alarm,
            events: Events::with_capacity(EVENTS_PER_TURN),
            conns: Vec::new(),
            n_open: 0,
            n_closed: 0,
            first_loss: None,
            scratch: vec![0; SCRATCH_BYTES],
            outgoing: Vec::new(),
        })
    }

    /// Opens `n` connections, to the targets in turn, and returns when all of them are open.
    pub(crate) fn open(targets: &[Target], n: usize, opening: Opening) -> Result<Self> {
        let mut fleet = Self::empty()?;
        fleet.add(targets, (n, opening), &Pace::default())?;
        Ok(fleet)
    }

    /// Opens `n` more connections, numbered after the existing ones; at a rate, a handshake counts
    /// from when it is due.
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
                if let (Incoming::Opened, Some(at)) = (incoming, begun.get(nth.wrapping_sub(first)))
                {
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

    /// Returns the connections lost since the fleet opened.
    pub(crate) fn losses(&self) -> Losses {
        Losses { n: self.n_closed, first: self.first_loss.clone() }
    }

    /// Sends a text message on connection `nth`; never waits for the socket.
    pub(crate) fn send_text(&mut self, nth: usize, text: &str) -> Result<()> {
        let mut wire = mem::take(&mut self.outgoing);
        wire.clear();
        frame::encode_client(&mut wire, Opcode::Text, text.as_bytes());
        let res = self.send_bytes(nth, &wire);
        self.outgoing = wire;
        res
    }

    /// Sends bytes as they are; never waits for the socket.
    pub(crate) fn send_bytes(&mut self, nth: usize, bytes: &[u8]) -> Result<()> {
        let conn =
            self.conns.get_mut(nth).with_context(|| format!("there is no connection {nth}"))?;
        if let Err(err) = conn.send(bytes) {
            self.lose(nth, &err);
        }
        Ok(())
    }

    /// Waits up to `wait` for sockets and driver each message, and each loss, to `handler` with the
    /// number of its connection.
    pub(crate) fn turn(
        &mut self,
        wait: Duration,
        handler: &mut impl FnMut(usize, Incoming<'_>),
    ) -> Result<()> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(err) if err.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other.context("cannot poll")?,
        }
        for event in &self.events {
            let nth = event.token().0;
            let Some(conn) = self.conns.get_mut(nth).filter(|conn| conn.state() != State::Closed)
            else {
                continue;
            };
            let was_open = conn.state() == State::Open;
            let mut res = Ok(());
            if event.is_writable() {
                res = conn.on_writable();
            }
            let hung_up = event.is_read_closed() || event.is_error();
            if res.is_ok() && (event.is_readable() || hung_up) {
                res = conn.on_readable(&mut self.scratch, hung_up, &mut |incoming| {
                    handler(nth, incoming);
                });
            }
            if !was_open && conn.state() == State::Open {
                self.n_open += 1;
                handler(nth, Incoming::Opened);
            }
            if let Err(err) = res {
                conn.set_closed();
                self.n_closed += 1;
                self.first_loss.get_or_insert_with(|| format!("{err:#}"));
                handler(nth, Incoming::Closed);
            }
        }
        Ok(())
    }

    /// Sends requests, some at once, and waits until `answer` has taken an answer to each.
    pub(crate) fn ask_all(
        &mut self,
        (total, done): (usize, &str),
        limit: Duration,
        request: impl Fn(usize) -> (usize, String),
        answer: &mut impl FnMut(usize, &Incoming<'_>) -> Result<()>,
    ) -> Result<()> {
        let (mut asked, mut answered) = (0, 0);
        let started = Instant::now();
        while answered < total {
            while asked < total && asked - answered < REQUESTS_UNDER_WAY {
                let (conn, text) = request(asked);
                self.send_text(conn, &text)?;
                asked += 1;
            }
            let mut taken = Ok(());
            self.turn(TICK, &mut |conn, incoming| {
                if taken.is_ok() {
                    taken = answer(conn, &incoming);
                    answered += 1;
                }
            })?;
            taken?;
            ensure!(started.elapsed() < limit, "only {answered} of {total} {done} in {limit:?}");
        }
        Ok(())
    }

    /// Makes a turn that waits return after `time`.
    pub(crate) fn wake_in(&self, time: Duration) -> Result<()> {
        // Zero would switch the timer off.
        let it_value = Timespec::try_from(time.max(Duration::from_nanos(1)))?;
        let once = Itimerspec { it_interval: Timespec::default(), it_value };
        timerfd_settime(&self.alarm, TimerfdTimerFlags::empty(), &once)
            .context("cannot set a timer")?;
        Ok(())
    }

    /// Answers pings for `time`, and drops messages.
    pub(crate) fn linger(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            self.turn(left.min(TICK), &mut |_, _| {})?;
        }
        Ok(())
    }

    /// Closes every connection with a close frame, and waits for the server to answer; if it does
    /// not, says so.
    pub(crate) fn close(mut self) -> Result<()> {
        let mut goodbye = Vec::new();
        frame::encode_client(&mut goodbye, Opcode::Close, &1000_u16.to_be_bytes());
        for nth in 0..self.conns.len() {
            let Some(conn) = self.conns.get_mut(nth) else {
                continue;
            };
            if !conn.has_frames() && conn.state() != State::Closed {
                conn.set_closed();
                self.n_closed += 1;
            }
            if let Err(err) = conn.send(&goodbye) {
                self.lose(nth, &err);
            }
        }
        let started = Instant::now();
        while self.n_closed < self.conns.len() && started.elapsed() < CLOSE_LIMIT {
            self.turn(TICK, &mut |_, _| {})?;
        }
        let unanswered = self.conns.len() - self.n_closed;
        if unanswered > 0 {
            progress::say(format!(
                "{unanswered} close frames were not answered in {CLOSE_LIMIT:?}"
            ));
        }
        Ok(())
    }

    fn dial(&mut self, target: &Target, opening: Opening) -> Result<()> {
        let nth = self.conns.len();
        let stream = target.dial(nth)?;
        let (request, protocol) = match opening {
            Opening::Handshake(envelope) => {
                (Some(handshake::request(target).into_bytes()), Protocol::WebSocket(envelope))
            }
            Opening::Bare => (None, Protocol::WebSocket(Envelope::Plain)),
            Opening::Http => (None, Protocol::Http),
        };
        let mut conn = Conn::new(stream, request, protocol);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(conn.stream_mut(), Token(nth), interest)
            .context("cannot register a socket")?;
        self.conns.push(conn);
        Ok(())
    }

    /// Marks a connection to which nothing can be sent; [`Self::losses`] reports it.
    fn lose(&mut self, nth: usize, err: &anyhow::Error) {
        let Some(conn) = self.conns.get_mut(nth).filter(|conn| conn.state() != State::Closed)
        else {
            return;
        };
        conn.set_closed();
        self.n_closed += 1;
        self.first_loss.get_or_insert_with(|| anyhow!("sending: {err:#}").to_string());
    }
}

impl Losses {
    /// Describes losses as a fault, if there are any.
    pub(crate) fn fault(self) -> Option<String> {
        let Self { n, first } = self;
        (n > 0).then(|| format!("{n} connections lost: {}", first.unwrap_or_default()))
    }
}
