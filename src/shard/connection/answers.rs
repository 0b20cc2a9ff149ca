//! What one connection is still to be answered: joins whose channels' subscriptions do not stand
//! yet, and behind them the answers to later requests, so that a client has all of its answers in
//! the order in which it asked.
//!
//! It owns no memory while no join waits.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::model::broker::Channel;
use crate::model::id::{ConnectionId, RequestId};
use crate::routing::gateway::frames;
use crate::shard::inbox::{JoinOutcome, answer};
use crate::shard::outbox::{Batch, Load};

/// See the [module documentation](self).
#[derive(Debug, Default)]
pub(crate) struct Answers(Option<Box<Open>>);

#[derive(Debug, Default)]
struct Open {
    joins: HashMap<Channel, Vec<AskedBy>>,
    /// In the order of the requests; the first, if there is any, belongs to a join that waits.
    slots: VecDeque<Slot>,
    /// How many have left `slots`.
    gone: u64,
    /// How many of `slots` belong to joins that wait.
    waiting: usize,
    /// What the others hold.
    load: Load,
}

/// Who is told what became of a join.
#[derive(Debug)]
enum AskedBy {
    /// The connection itself, in the slot with this number, with this reply.
    Client { slot: u64, request: RequestId, reply: Option<Bytes> },
    /// A caller of the management API.
    Caller(oneshot::Sender<JoinOutcome>),
}

#[derive(Debug)]
enum Slot {
    Waiting,
    Ready(Option<Batch>),
}

/// What became of a join that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// Messages came from then on, even if the membership has ended since.
    Yes,
    /// The broker does not bring the channel's messages.
    Refused,
    /// The client has asked for more than can be kept until it is answered.
    TooMany,
}

impl Answers {
    /// Returns whether an answer has to wait for those before it.
    pub(crate) fn is_waiting(&self) -> bool {
        self.0.as_ref().is_some_and(|open| !open.slots.is_empty())
    }

    /// Returns how many joins of the client wait; a wish repeated counts again.
    pub(crate) fn joins(&self) -> usize {
        self.0.as_ref().map_or(0, |open| open.waiting)
    }

    /// Returns the channels whose joins wait.
    pub(crate) fn channels(&self) -> Vec<Channel> {
        self.0.iter().flat_map(|open| open.joins.keys().cloned()).collect()
    }

    /// Returns what the answers hold that wait.
    pub(crate) fn load(&self) -> Load {
        self.0.as_ref().map_or_else(Load::default, |open| open.load)
    }

    /// Adds a join of the client, which is answered with `reply`.
    pub(crate) fn wait(&mut self, channel: Channel, request: RequestId, reply: Option<Bytes>) {
        let open = self.0.get_or_insert_default();
        let slot = open.gone + open.slots.len() as u64;
        open.slots.push_back(Slot::Waiting);
        open.waiting += 1;
        open.joins.entry(channel).or_default().push(AskedBy::Client { slot, request, reply });
    }

    /// Adds a join of a caller, whose answer waits for nothing else.
    pub(crate) fn wait_for_caller(&mut self, channel: Channel, done: oneshot::Sender<JoinOutcome>) {
        let open = self.0.get_or_insert_default();
        open.joins.entry(channel).or_default().push(AskedBy::Caller(done));
    }

    /// Adds an answer that has to wait.
    pub(crate) fn push(&mut self, frame: Bytes) {
        let open = self.0.get_or_insert_default();
        let batch = Batch::from(frame);
        open.load += batch.load(0);
        open.slots.push_back(Slot::Ready(Some(batch)));
    }

    /// Settles all joins of a channel.
    pub(crate) fn settle(&mut self, id: &ConnectionId, channel: &Channel, outcome: Joined) {
        let Some(open) = &mut self.0 else { return };
        for asked_by in open.joins.remove(channel).into_iter().flatten() {
            match asked_by {
                AskedBy::Caller(done) => answer(done, outcome.into()),
                AskedBy::Client { slot, request, reply } => {
                    let frame = match outcome {
                        Joined::Yes => reply,
                        Joined::Refused => Some(frames::internal_server_error(id, &request)),
                        Joined::TooMany => Some(frames::limit_exceeded(id, &request)),
                    };
                    open.fill(slot, frame.map(Batch::from));
                }
            }
        }
    }

    /// Takes out the next answer that waits for none before it.
    pub(crate) fn next(&mut self) -> Option<Batch> {
        let open = self.0.as_mut()?;
        while let Some(Slot::Ready(_)) = open.slots.front()
            && let Some(Slot::Ready(batch)) = open.slots.pop_front()
        {
            open.gone += 1;
            if let Some(batch) = batch {
                open.load -= batch.load(0);
                return Some(batch);
            }
        }
        if open.slots.is_empty() && open.joins.is_empty() {
            self.0 = None;
        }
        None
    }
}

impl Open {
    fn fill(&mut self, slot: u64, batch: Option<Batch>) {
        self.waiting -= 1;
        if let Some(batch) = &batch {
            self.load += batch.load(0);
        }
        let slot = usize::try_from(slot - self.gone).ok().and_then(|at| self.slots.get_mut(at));
        if let Some(slot) = slot {
            *slot = Slot::Ready(batch);
        }
    }
}

impl From<Joined> for JoinOutcome {
    fn from(joined: Joined) -> Self {
        match joined {
            Joined::Yes => Self::Joined,
            Joined::Refused => Self::Refused,
            Joined::TooMany => Self::TooMany,
        }
    }
}
