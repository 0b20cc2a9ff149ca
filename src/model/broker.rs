//! Carries messages between connections, wherever they are.
//!
//! Contract, for every implementation (one suite runs for all, see `conformance`):
//! - *Order*: per channel, every connection sees messages in the one order in which the broker
//!   accepted them.
//! - *Delivery*: a connection that is a member when the broker accepts a message is handed it once,
//!   or is closed with a code that says so. At most once into the socket.
//! - *Answer*: every publication's [`Receipt`] is answered, with what became of it or an error;
//!   never silence.
//! - *Once*: a publication whose key its channel has seen within `limits.idempotency_age` is
//!   answered with the offset of the first, and not handed out again. A group without replay counts
//!   and keeps nothing, so it takes no keys of callers. What `$disconnect` publishes is named by
//!   its connection ([`Key::End`]), on every channel; where an answer can be lost, the name is
//!   remembered for a day, or until [`crate::model::registry::Registry::remove`] says that nobody
//!   will use it again.
//! - *Interest*: a message costs only shards that have members; [`Broker::subscribe`] is done when
//!   the first member is added.
//! - *Never block*: no call waits for a client, or for a full queue; what cannot be taken is
//!   refused and counted.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::model::groups::Groups;
use crate::model::id::{ConnectionId, RequestId};
use crate::model::trace_context::TraceContext;
use crate::model::trouble::{RedisRefusal, Trouble};
use crate::protocol::codec::SENT_HEADER_MAX;

/// Longest key of a publication.
const KEY_MAX: usize = 64;

/// A named stream of messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Channel {
    /// Every connection of the stage.
    Broadcast,
    /// The members of a group.
    Group(Arc<str>),
    /// The connections of a user.
    User(Arc<str>),
}

impl Channel {
    /// Returns what a channel is for; its name is nobody's business.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Broadcast => "broadcast",
            Self::Group(_) => "group",
            Self::User(_) => "user",
        }
    }
}

/// A message on its way to the broker.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) channel: Channel,
    /// The frame as every member gets it, built once.
    pub(crate) frame: Bytes,
    pub(crate) key: Option<Key>,
    pub(crate) receipt: Receipt,
}

/// Names a message among those of its channel, so that it is published once. No two kinds name the
/// same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// As whoever sent it has chosen; see [`is_key`].
    Given(Arc<str>),
    /// What `$disconnect` publishes for a connection. `in_doubt`: it may have been accepted before.
    End { id: ConnectionId, in_doubt: bool },
}

impl Publication {
    /// Returns whether it is the end of a connection. That is tried until it is accepted, so a
    /// failure is no loss.
    pub(crate) fn is_end(&self) -> bool {
        matches!(self.key, Some(Key::End { .. }))
    }
}

/// Asks what became of a publication.
#[derive(Debug)]
pub(crate) struct Receipt {
    pub(crate) to: Recipient,
    pub(crate) since: Instant,
    /// Spans of the caller's request, if it is sampled.
    pub(crate) trace: Option<TraceContext>,
}

/// Who is told.
#[derive(Debug)]
pub(crate) enum Recipient {
    /// Nobody is there to be told: `$connect`.
    Nobody,
    /// The connection that sent the message; it gets an error frame if the broker refused.
    Sender(ConnectionId, RequestId),
    /// A caller of the management API.
    Caller(oneshot::Sender<PublishResult>),
    /// Who acts on it at once.
    Told(Box<dyn Answered>),
}

/// Acts on what became of a publication. Must not wait, nor publish.
pub(crate) trait Answered: fmt::Debug + Send + Sync {
    fn answered(self: Box<Self>, result: PublishResult);
}

impl Receipt {
    /// For a publication that is about to be handed to the broker.
    pub(crate) fn new(to: Recipient) -> Self {
        Self { to, since: Instant::now(), trace: None }
    }
}

/// What became of a publication.
pub(crate) type PublishResult = Result<Accepted, PublishError>;

/// How the broker took a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// At this place of its channel.
    At(Offset),
    /// Its key had been seen; the first message with it is at this place.
    Duplicate(Offset),
    /// On a channel that counts and keeps nothing.
    Unkept,
    /// For the members on this node alone, since the broker cannot be reached.
    Locally,
}

/// Place of a message among those the broker accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Offset(pub(crate) u64);

/// What a channel still holds, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct History {
    /// Offsets that were seen in another epoch may name other messages.
    pub(crate) epoch: String,
    /// Where the channel is.
    pub(crate) last: Offset,
    pub(crate) messages: Vec<(Offset, Bytes)>,
}

/// Why the broker refused a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PublishError {
    /// The queue of a shard with members is full; the same message may be taken a moment later.
    #[error("queues are full")]
    Overload,
    /// The broker cannot be reached, or did not say what became of the message.
    #[error("Redis has not taken the message, or has not said so")]
    Unavailable,
    /// The broker was reached, and did not take the message.
    #[error("{}", Trouble::Refused(*.0))]
    Refused(RedisRefusal),
    /// It has a key, and its channel keeps nothing that it could be found in.
    #[error(
        "the group is configured with replay = \"off\" and remembers no keys; send without one"
    )]
    KeyUnkept,
    /// It is longer than any client may be sent.
    #[error("the message is longer than limits.message_bytes")]
    TooLong,
}

/// Names a shard's wait for a subscription, so that what comes of one that has ended is not taken
/// for the next one's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wait(pub(crate) u64);

/// How far a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Messages come from now on.
    Confirmed,
    /// The shard is told when they do (the inbox event `Subscribed`, with the same).
    Pending(Wait),
    /// They will not come; the shard need not unsubscribe.
    Refused,
}

/// A message on its way from the broker to the members in one shard.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) channel: Channel,
    pub(crate) frame: Bytes,
    pub(crate) accepted_at: Instant,
    /// Spans of the message, if it is sampled.
    pub(crate) trace: Option<TraceContext>,
}

/// What the operator decides about messages.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) groups: Groups,
    /// Longest message, in bytes.
    pub(crate) message_bytes: usize,
}

impl Terms {
    /// Returns whether a message is no longer than any client may be sent; other nodes, too, check
    /// what they read from Redis.
    pub(crate) fn allows(&self, frame: &[u8]) -> bool {
        frame.len() <= self.message_bytes + SENT_HEADER_MAX
    }

    /// Returns whether the messages of a channel are counted, and kept for repairs.
    pub(crate) fn keeps(&self, channel: &Channel) -> bool {
        match channel {
            Channel::Group(name) => self.groups.keeps(name),
            Channel::Broadcast | Channel::User(_) => true,
        }
    }
}

/// Returns whether a text may be a publication's key: 1 to 64 printable ASCII characters.
pub(crate) fn is_key(text: &str) -> bool {
    (1..=KEY_MAX).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// See the [module documentation](self) for the contract.
pub(crate) trait Broker: fmt::Debug + Send + Sync {
    /// Takes publications, in order, and leaves `publications` empty.
    fn publish(&self, publications: &mut Vec<Publication>);

    /// Notes that a shard has its first member of `channel`.
    fn subscribe(&self, shard: usize, channel: &Channel) -> Standing;

    /// Returns whether a connection that comes now is a member of the broadcast channel.
    fn has_begun(&self) -> bool;

    /// Returns at most `limit` messages after an offset; `None` if none are kept. An answer may be
    /// shorter than what there is.
    fn history(
        &self,
        channel: &Channel,
        after: Offset,
        limit: usize,
    ) -> BoxFuture<'_, Result<Option<History>, PublishError>>;

    /// Notes that a shard has lost its last member of `channel`.
    fn unsubscribe(&self, shard: usize, channel: &Channel);
}
