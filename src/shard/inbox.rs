//! A shard's inbox: what other threads want of its connections.
//!
//! Bounded in messages and bytes. The bound is asked for before a message is taken
//! ([`Inbox::is_full`]) and, earlier, before more is read from clients ([`Inbox::is_congested`]),
//! so that a flood is held back in its senders' sockets. Pushing never waits; a sleeping shard is
//! woken once.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use mio::Waker;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use crate::config::Snapshot;
use crate::limits::budget::{Gauge, Held};
use crate::limits::ticket::Ticket;
use crate::model::broker::{Channel, Delivery, PublishError, Wait};
use crate::model::call::{Answer, CallResult};
use crate::model::id::{ConnectionId, RequestId};
use crate::model::listing::{Listed, Query};
use crate::ops::vitals::Steps;
use crate::protocol::close::Close;
use crate::shard::socket::NewSocket;

/// Counted for every event besides its frame, in bytes: so that tiny messages are bounded too.
const EVENT_WEIGHT: usize = 1 << 10;

/// What a shard is asked to do.
#[derive(Debug)]
pub(crate) enum Event {
    /// Make room for a connection whose handshake is about to be answered; tell, if it has a user,
    /// once the user's messages come.
    Expect { ticket: Ticket, done: Option<oneshot::Sender<JoinOutcome>> },
    /// Take over its socket; without one, the client went away during the answer.
    Attach { id: ConnectionId, socket: Option<NewSocket> },
    /// Hand a message to the members of its channel.
    Deliver(Delivery),
    /// A subscription stands, or will not.
    Subscribed { channel: Channel, wait: Wait, result: Result<(), PublishError> },
    /// Tell a sender that its message was refused.
    PublishFailed { id: ConnectionId, request: RequestId },
    /// A back end's call has ended: send its sender the reply, or tell that there is none.
    Called { id: ConnectionId, request: RequestId, result: CallResult, wants_reply: bool },
    /// Send a frame to one connection.
    Post { id: ConnectionId, frame: Bytes, done: oneshot::Sender<PostOutcome> },
    /// Tell when a connection was last active; no answer if it is gone.
    LastActive { id: ConnectionId, done: oneshot::Sender<SystemTime> },
    /// Close a connection; no answer if it is gone.
    Close { id: ConnectionId, close: Close, done: oneshot::Sender<()> },
    /// Make a connection a member of a group.
    Join { id: ConnectionId, group: Arc<str>, done: oneshot::Sender<JoinOutcome> },
    /// End a membership; no answer if the connection is gone.
    Leave { id: ConnectionId, group: Arc<str>, done: oneshot::Sender<()> },
    /// Tell the groups of a connection; no answer if it is gone.
    Groups { id: ConnectionId, done: oneshot::Sender<Vec<Arc<str>>> },
    /// Tell whether all members of a channel have room for that many bytes more.
    Room { channel: Channel, bytes: usize, done: oneshot::Sender<bool> },
    /// Tell a page of what there is.
    List { query: Query, done: oneshot::Sender<Listed> },
    /// Look for connections to close, since memory runs out.
    Relieve,
    /// Go by other settings from now on.
    Adopt { snapshot: Arc<Snapshot> },
    /// Close all connections that are left, spread over a time, which may be given anew.
    Drain { within: Duration },
    /// End the shard.
    Stop,
}

/// What became of a frame for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PostOutcome {
    /// Written, or in the outbox.
    Sent,
    /// The connection is not there, or is closing.
    Gone,
    /// The outbox is full; nothing was sent.
    Full,
}

/// What became of a wish to join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JoinOutcome {
    /// A member: what is sent to the group from now on arrives.
    Joined,
    /// The connection is not there, or is closing.
    Gone,
    /// It is in as many groups as it may be.
    TooMany,
    /// The broker does not bring the group's messages.
    Refused,
}

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Inbox {
    queue: Mutex<Queue>,
    /// A shard empties its inbox every turn; what it works on counts until that is done.
    weight: Gauge,
    /// Bound of `weight`. At 65,536 short messages to 15,000 connections an inbox holds work for
    /// minutes.
    max_weight: usize,
    waker: Arc<Waker>,
    /// What the shard has done so far.
    pub(crate) steps: Steps,
}

#[derive(Debug, Default)]
struct Queue {
    events: Vec<Event>,
    /// Whether the shard will look into the queue without being woken.
    awake: bool,
}

impl Inbox {
    pub(crate) fn new(waker: Arc<Waker>, weight: Gauge, max_weight: usize) -> Self {
        Self { queue: Mutex::default(), weight, max_weight, waker, steps: Steps::default() }
    }

    /// Adds an event. Whoever adds messages asks [`Inbox::is_full`] first; everything else is
    /// bounded by its own source (connections, requests under way).
    pub(crate) fn push(&self, event: Event) {
        let mut queue = self.append(event);
        let wake = !std::mem::replace(&mut queue.awake, true);
        drop(queue);
        if wake {
            self.wake();
        }
    }

    /// Makes the shard take a turn, be there something to do or not.
    pub(crate) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "a shard cannot be woken");
        }
    }

    /// Adds an event that can wait for the next that wakes the shard.
    pub(crate) fn push_asleep(&self, event: Event) {
        drop(self.append(event));
    }

    fn append(&self, event: Event) -> MutexGuard<'_, Queue> {
        self.weight.add(event.weight());
        let mut queue = self.queue.lock();
        queue.events.push(event);
        queue
    }

    /// Returns whether no more messages are taken.
    pub(crate) fn is_full(&self) -> bool {
        self.weight.get() >= self.max_weight
    }

    /// Returns whether shards should stop reading from clients until this one has caught up.
    pub(crate) fn is_congested(&self) -> bool {
        self.weight.get() >= self.max_weight / 2
    }

    /// Moves all events to `events`, which must be empty; they count until what is returned is
    /// dropped.
    pub(crate) fn take(&self, events: &mut Vec<Event>) -> Held {
        std::mem::swap(&mut self.queue.lock().events, events);
        self.weight.held(events.iter().map(Event::weight).sum())
    }

    /// Says that the shard is about to sleep; returns false, and it must not, if there is something
    /// to do.
    pub(crate) fn may_sleep(&self) -> bool {
        let mut queue = self.queue.lock();
        queue.awake = !queue.events.is_empty();
        !queue.awake
    }

    /// Says that the shard is up and will look into the queue before it sleeps.
    pub(crate) fn woke(&self) {
        self.queue.lock().awake = true;
    }
}

/// Answers a caller; one that went away does not want the answer any more.
pub(crate) fn answer<T>(caller: oneshot::Sender<T>, value: T) {
    if caller.send(value).is_err() {
        tracing::trace!("the caller is gone");
    }
}

impl Event {
    fn weight(&self) -> usize {
        EVENT_WEIGHT
            + match self {
                Self::Deliver(delivery) => delivery.frame.len(),
                Self::Post { frame, .. } => frame.len(),
                Self::Called { result, .. } => result.as_ref().map_or(0, Answer::len),
                Self::Expect { .. }
                | Self::Attach { .. }
                | Self::Subscribed { .. }
                | Self::PublishFailed { .. }
                | Self::LastActive { .. }
                | Self::Close { .. }
                | Self::Join { .. }
                | Self::Leave { .. }
                | Self::Groups { .. }
                | Self::Room { .. }
                | Self::List { .. }
                | Self::Relieve
                | Self::Adopt { .. }
                | Self::Drain { .. }
                | Self::Stop => 0,
            }
    }
}
