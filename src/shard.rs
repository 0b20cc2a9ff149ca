//! A shard: one thread, one event loop, and the connections that are its own.
//!
//! This is the hot path, in reading order: [`Shard::turn`], `read.rs` (bytes → messages → routes),
//! `deliver.rs` (the inbox → outboxes), `write.rs` (outboxes → sockets), `timers.rs`, `members.rs`.
//!
//! Rules: a turn first reads, then hands what it read to the broker, then empties the inbox, and
//! only then writes, each connection once, so that whatever is pending for a connection leaves in
//! one system call. Nothing here waits except [`Poll::poll`]. No connection is known to two shards,
//! hence no locks.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Event as Readiness;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use tokio::sync::oneshot;

use self::draining::Draining;
pub(crate) use self::event_loop::EventLoop;
use self::event_loop::WAKER;
use self::members::Members;
use self::tally::Tally;
use self::timers::Timers;
use crate::config::{Limits, Snapshot};
use crate::limits::names::Names;
use crate::limits::ticket::Ticket;
use crate::model::broker::{Broker, Channel, Publication, Wait};
use crate::model::call::{Backends, Call};
use crate::model::id::ConnectionId;
use crate::ops::telemetry::Telemetry;
use crate::protocol::codec;
use crate::shard::connection::meter::{Paces, Used};
use crate::shard::connection::{Connection, Reading};
use crate::shard::hub::Hub;
use crate::shard::inbox::{Event, Inbox, JoinOutcome};
use crate::shard::socket::NewSocket;

mod access;
mod answer;
#[cfg(feature = "bench")]
pub mod bench;
mod calls;
mod clock;
mod close;
pub(crate) mod connection;
mod deliver;
mod drain;
mod draining;
mod event_loop;
pub(crate) mod hub;
pub(crate) mod inbox;
mod manage;
mod members;
pub(crate) mod outbox;
pub(crate) mod pressure;
mod read;
mod relief;
pub(crate) mod socket;
mod tally;
mod timers;
mod write;

/// Readiness events taken from the kernel at once.
const EVENTS: usize = 1_024;

/// What one read may take; shared by all connections of the shard, since it is empty again after
/// every read.
const SCRATCH_BYTES: usize = 64 << 10;

/// Room for events that is kept from turn to turn.
const WORK: usize = 4_096;

/// While another shard is behind, how long to wait before reading from clients again.
const CONGESTION_PAUSE: Duration = Duration::from_millis(1);

/// What a shard works with.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) hub: Arc<Hub>,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) backends: Arc<dyn Backends>,
    pub(crate) telemetry: Telemetry,
    /// Channels that clients have named.
    pub(crate) names: Arc<Names>,
}

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Shard {
    index: usize,
    poll: Poll,
    inbox: Arc<Inbox>,
    parts: Parts,
    /// What the operator has set; of this the next two are made.
    snapshot: Arc<Snapshot>,
    frame_limits: codec::FrameLimits,
    paces: Paces,
    /// What the read under way has brought so far.
    used: Used,
    connections: Slab<Connection>,
    by_id: HashMap<ConnectionId, usize>,
    members: Members,
    timers: Timers,
    /// Connections with something in their outbox that was not there at the last write.
    dirty: Vec<usize>,
    /// Connections to read from without waiting for an event.
    unread: Vec<usize>,
    /// Channels whose subscription does not stand yet, and what the broker calls it; the members'
    /// connections know who is to be told.
    joining: HashMap<Channel, Wait>,
    /// The members of the channel that is being served: a write that fails changes the channel's
    /// own list.
    audience: Vec<usize>,
    /// What this turn's messages send to channels.
    publications: Vec<Publication>,
    /// Their bytes.
    publishing: usize,
    /// What this turn's messages ask of back ends.
    calls: Vec<Call>,
    scratch: Vec<u8>,
    /// Bytes of this turn from connections that are being closed.
    thrown_away: usize,
    /// Start of this turn.
    now: Instant,
    /// Connections still to be closed, while draining.
    draining: Option<Draining>,
    tally: Tally,
    /// When to look again for connections whose end would give memory back: there were none.
    relief_at: Option<Instant>,
    stopped: bool,
}

impl Shard {
    pub(crate) fn new(
        index: usize,
        event_loop: EventLoop,
        parts: Parts,
        snapshot: Arc<Snapshot>,
    ) -> Self {
        Self {
            index,
            poll: event_loop.poll,
            inbox: event_loop.inbox,
            frame_limits: frame_limits(&snapshot.limits),
            paces: Paces::new(&snapshot.limits),
            snapshot,
            used: Used::default(),
            connections: Slab::new(),
            by_id: HashMap::new(),
            members: Members::default(),
            timers: Timers::default(),
            dirty: Vec::new(),
            unread: Vec::new(),
            joining: HashMap::new(),
            audience: Vec::new(),
            publications: Vec::new(),
            publishing: 0,
            calls: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES],
            thrown_away: 0,
            now: Instant::now(),
            draining: None,
            tally: Tally::new(index, &parts.telemetry, parts.hub.budget()),
            relief_at: None,
            stopped: false,
            parts,
        }
    }

    /// Runs until it is told to stop.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        let mut work = Vec::new();
        while !self.stopped {
            let timeout = self.timeout();
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::error!(shard = self.index, %error, "the event loop cannot wait for events");
                    return;
                }
            }
            self.turn(&events, &mut work);
        }
        self.cut_all();
    }

    fn turn(&mut self, events: &Events, work: &mut Vec<Event>) {
        self.now = Instant::now();
        self.thrown_away = 0;
        self.inbox.woke();
        self.inbox.steps.step();
        for event in events {
            self.on_ready(event);
        }
        self.read_rest();
        self.publish();
        let held = self.inbox.take(work);
        self.on_events(work);
        drop(held);
        work.shrink_to(WORK);
        self.fire_timers();
        self.continue_drain();
        self.flush();
        self.tally.report(self.now);
        self.relieve();
    }

    /// Returns how long to wait for events; not at all if there is work left.
    fn timeout(&mut self) -> Option<Duration> {
        // A client may have sent messages with its handshake; they come with its socket, out of the
        // inbox.
        let unpublished = !self.publications.is_empty() || !self.calls.is_empty();
        if !self.inbox.may_sleep() || !self.dirty.is_empty() || unpublished {
            return Some(Duration::ZERO);
        }
        if !self.unread.is_empty() {
            let pause =
                if self.parts.hub.is_congested() { CONGESTION_PAUSE } else { Duration::ZERO };
            return Some(pause);
        }
        let drain = self.draining.as_ref().and_then(Draining::next);
        let next = self.timers.next().into_iter().chain(drain).min()?;
        // The kernel counts in milliseconds and rounds down; one more, so as not to spin until the
        // moment is there.
        Some(next.saturating_duration_since(Instant::now()) + Duration::from_millis(1))
    }

    fn on_ready(&mut self, event: &Readiness) {
        if event.token() == WAKER {
            return;
        }
        let Token(key) = event.token();
        let Some(connection) = self.connections.get_mut(key) else { return };
        if event.is_writable() && !connection.outbox.is_empty() && !connection.dirty {
            connection.dirty = true;
            self.dirty.push(key);
        }
        if event.is_read_closed() || event.is_error() {
            connection.hung_up = true;
        }
        let is_gone = event.is_error() || event.is_write_closed();
        match connection.reading {
            Reading::OnEvent if event.is_readable() || connection.hung_up => self.read(key),
            // What it had sent is gone with it; the read says so.
            Reading::Slowed { .. } if is_gone => self.read(key),
            _ => {}
        }
    }

    /// Goes by other settings from now on, for the connections that are open, too.
    fn adopt(&mut self, snapshot: Arc<Snapshot>) {
        let old = std::mem::replace(&mut self.snapshot, snapshot).limits;
        let limits = &self.snapshot.limits;
        if *limits == old {
            return;
        }
        self.frame_limits = frame_limits(limits);
        self.paces = Paces::new(limits);
        let asks_otherwise = limits.ping_interval != old.ping_interval;
        for key in 0..self.connections.capacity() {
            if asks_otherwise && let Some(connection) = self.connections.get_mut(key) {
                connection.replan_ping(self.now, &self.snapshot.limits);
            }
            self.schedule(key);
        }
    }

    /// Makes room for a connection whose handshake is about to be answered; `done` is told once it
    /// is a member of its user.
    fn expect(&mut self, ticket: Ticket, done: Option<oneshot::Sender<JoinOutcome>>) {
        let id = ticket.record().id;
        let user = ticket.record().user.clone();
        let key = self.connections.insert(Connection::new(ticket, self.now, &self.snapshot.limits));
        self.by_id.insert(id, key);
        self.schedule(key);
        if let (Some(user), Some(done)) = (user, done) {
            self.join_and_tell(key, Channel::User(user), done);
        }
        if let Some(draining) = &mut self.draining {
            draining.add(id);
        }
    }

    /// Takes over the socket of a connection whose handshake has been answered.
    fn attach(&mut self, id: &ConnectionId, NewSocket { mut stream, early }: NewSocket) {
        let Some(key) = self.by_id.get(id).copied() else { return };
        if let Err(error) =
            self.poll.registry().register(&mut stream, Token(key), Interest::READABLE)
        {
            tracing::warn!(conn.id = %id, %error, "the event loop cannot take a connection");
            return self.remove(key);
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.stream = Some(stream);
        }
        self.write_soon(key);
        if !early.is_empty() {
            self.on_bytes(key, &mut Vec::from(early));
        }
    }
}

fn frame_limits(limits: &Limits) -> codec::FrameLimits {
    codec::FrameLimits {
        frame_bytes: limits.frame_bytes,
        message_bytes: limits.message_bytes,
        binary: limits.allow_binary,
    }
}
