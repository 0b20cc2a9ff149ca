//! Carries messages between connections, wherever they are.
//!
//! Contract, for every implementation (one suite runs for all, see `conformance`):
//! - *Order*: per channel, every connection sees messages in the one order in which the broker accepted them.
//! - *Delivery*: a connection that is a member when the broker accepts a message is handed it once, or is closed with a code
//!   that says so. At most once into the socket.
//! - *Answer*: every publication's [`Receipt`] is answered, with an offset or an error; never silence.
//! - *Interest*: a message costs only shards that have members; [`Broker::subscribe`] is done when the first member is added.
//! - *Never block*: no call waits for a client, or for a full queue; what cannot be taken is refused and counted.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::id::{ConnectionId, RequestId};

pub(crate) mod memory;
pub(crate) mod redis;

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

/// A message on its way to the broker.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) channel: Channel,
    /// The frame as every member gets it, built once.
    pub(crate) frame: Bytes,
    pub(crate) receipt: Receipt,
}

/// Who is told what became of a publication.
#[derive(Debug)]
pub(crate) enum Receipt {
    /// Nobody is left to be told: `$disconnect`.
    Nobody,
    /// The connection that sent the message; it gets an error frame if the broker refused.
    Sender(ConnectionId, RequestId),
    /// A caller of the management API.
    Caller(oneshot::Sender<Result<Offset, PublishError>>),
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
    #[error("the broker is not available")]
    Unavailable,
}

/// How far a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Messages come from now on.
    Confirmed,
    /// The shard is told when they do (the inbox event `Subscribed`).
    Pending,
    /// They will not come; the shard need not unsubscribe.
    Refused,
}

/// A message on its way from the broker to the members in one shard.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) channel: Channel,
    pub(crate) frame: Bytes,
    pub(crate) accepted_at: Instant,
}

/// See the head of this file for the contract.
pub(crate) trait Broker: fmt::Debug + Send + Sync {
    /// Takes publications, in order, and leaves `publications` empty.
    fn publish(&self, publications: &mut Vec<Publication>);

    /// Notes that a shard has its first member of `channel`.
    fn subscribe(&self, shard: usize, channel: &Channel) -> Standing;

    /// Returns whether a connection that comes now is a member of the broadcast channel.
    fn has_begun(&self) -> bool;

    /// Returns at most `limit` messages after an offset; `None` if none are kept. An answer may be shorter than what there is.
    fn history(
        &self,
        channel: &Channel,
        after: Offset,
        limit: usize,
    ) -> BoxFuture<'_, Result<Option<History>, PublishError>>;

    /// Notes that a shard has lost its last member of `channel`.
    fn unsubscribe(&self, shard: usize, channel: &Channel);
}

#[cfg(test)]
mod conformance;
