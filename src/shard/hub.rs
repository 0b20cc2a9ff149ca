//! This node's connections, as seen from outside the shards: a handle that knows which shard has
//! which connection.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::config::Snapshot;
use crate::limits::budget::Budget;
use crate::limits::ticket::Ticket;
use crate::model::broker::{
    Accepted, Publication, PublishError, PublishResult, Receipt, Recipient,
};
use crate::model::id::ConnectionId;
use crate::model::listing::Functions;
use crate::ops::metrics::{DropReason, Metrics, PublishOutcome};
use crate::protocol::close::Close;
use crate::shard::inbox::{Event, Inbox, JoinOutcome, PostOutcome, answer};
use crate::shard::socket::NewSocket;

mod listing;

/// The inboxes of all shards.
#[derive(Debug)]
pub(crate) struct Hub {
    inboxes: Vec<Arc<Inbox>>,
    metrics: Arc<Metrics>,
    budget: Arc<Budget>,
    /// Of this node, once they run.
    functions: OnceLock<Arc<dyn Functions>>,
}

impl Hub {
    pub(crate) fn new(
        inboxes: Vec<Arc<Inbox>>,
        metrics: Arc<Metrics>,
        budget: Arc<Budget>,
    ) -> Self {
        Self { inboxes, metrics, budget, functions: OnceLock::new() }
    }

    /// Lists these functions from now on.
    pub(crate) fn show(&self, functions: Arc<dyn Functions>) {
        // There are none before: a node starts its functions once.
        _ = self.functions.set(functions);
    }

    /// Returns what all that this node holds is counted in.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    pub(crate) fn shard_count(&self) -> usize {
        self.inboxes.len()
    }

    /// Returns the inbox of a shard by its index, which is below [`Hub::shard_count`].
    pub(crate) fn inbox(&self, shard: usize) -> &Inbox {
        #[expect(
            clippy::indexing_slicing,
            reason = "indexes come from `shard_count` and `ConnectionId::shard`"
        )]
        &self.inboxes[shard]
    }

    /// Returns the inbox of the shard that holds a connection.
    pub(crate) fn inbox_of(&self, id: &ConnectionId) -> &Inbox {
        self.inbox(id.shard(self.inboxes.len()))
    }

    /// Returns whether some shard is behind, so that no more should be read from clients.
    pub(crate) fn is_congested(&self) -> bool {
        self.inboxes.iter().any(|inbox| inbox.is_congested())
    }

    /// Tells whoever sent a message what became of it; a sender hears only of failures.
    pub(crate) fn answer(&self, receipt: Receipt, result: PublishResult) {
        let outcome = match result {
            Ok(Accepted::Locally) => PublishOutcome::Local,
            Ok(_) => PublishOutcome::Ok,
            Err(PublishError::Overload) => PublishOutcome::Overload,
            Err(PublishError::Unavailable) => PublishOutcome::Unavailable,
            Err(PublishError::Refused(_)) => PublishOutcome::Refused,
            Err(PublishError::KeyUnkept) => PublishOutcome::KeyUnkept,
            Err(PublishError::TooLong) => PublishOutcome::TooLong,
        };
        self.metrics.observe_publish(outcome, receipt.since.elapsed());
        match (receipt.to, result) {
            (Recipient::Nobody | Recipient::Sender(..), Ok(_)) | (Recipient::Nobody, Err(_)) => {}
            (Recipient::Sender(id, request), Err(_)) => {
                self.inbox_of(&id).push(Event::PublishFailed { id, request });
            }
            (Recipient::Caller(caller), result) => answer(caller, result),
            (Recipient::Told(who), result) => who.answered(result),
        }
    }

    /// Refuses messages since memory runs out.
    pub(crate) fn refuse_for_memory(&self, publications: &mut Vec<Publication>) {
        if publications.is_empty() {
            return;
        }
        let lost = publications.iter().filter(|publication| !publication.is_end()).count();
        self.metrics.count_dropped(DropReason::Memory, lost);
        for Publication { receipt, .. } in publications.drain(..) {
            self.answer(receipt, Err(PublishError::Overload));
        }
    }

    /// Announces a connection to its shard, before its handshake is answered. Its socket, or that
    /// there is none to come, has to follow, whatever happens. What is sent to the connection from
    /// now on arrives; where it has a user, what is sent to the user arrives once the shard tells
    /// that it has joined.
    pub(crate) fn expect(&self, ticket: Ticket) -> Option<oneshot::Receiver<JoinOutcome>> {
        let (done, outcome) = ticket.record().user.is_some().then(oneshot::channel).unzip();
        let inbox = self.inbox_of(&ticket.record().id);
        let event = Event::Expect { ticket, done };
        match &outcome {
            Some(_) => inbox.push(event),
            // Its socket will wake the shard, or whatever is sent to it before.
            None => inbox.push_asleep(event),
        }
        outcome
    }

    /// Hands the socket of an announced connection to its shard; `None` if there is none to come.
    pub(crate) fn attach(&self, id: ConnectionId, socket: Option<NewSocket>) {
        self.inbox_of(&id).push(Event::Attach { id, socket });
    }

    /// Sends a frame to one connection.
    pub(crate) async fn post(&self, id: ConnectionId, frame: Bytes) -> PostOutcome {
        let inbox = self.inbox_of(&id);
        if inbox.is_full() {
            return PostOutcome::Full;
        }
        let (done, outcome) = oneshot::channel();
        inbox.push(Event::Post { id, frame, done });
        outcome.await.unwrap_or(PostOutcome::Gone)
    }

    /// Returns when a connection was last active, `None` if it is gone.
    pub(crate) async fn last_active(&self, id: ConnectionId) -> Option<SystemTime> {
        let (done, answer) = oneshot::channel();
        self.inbox_of(&id).push(Event::LastActive { id, done });
        answer.await.ok()
    }

    /// Starts to close a connection; returns false if it is gone.
    pub(crate) async fn close(&self, id: ConnectionId, close: Close) -> bool {
        let (done, answer) = oneshot::channel();
        self.inbox_of(&id).push(Event::Close { id, close, done });
        answer.await.is_ok()
    }

    /// Makes a connection a member of a group; done when the group's messages come.
    pub(crate) async fn join(&self, id: ConnectionId, group: Arc<str>) -> JoinOutcome {
        let (done, outcome) = oneshot::channel();
        self.inbox_of(&id).push(Event::Join { id, group, done });
        outcome.await.unwrap_or(JoinOutcome::Gone)
    }

    /// Ends a connection's membership in a group; returns false if the connection is gone.
    pub(crate) async fn leave(&self, id: ConnectionId, group: Arc<str>) -> bool {
        let (done, answer) = oneshot::channel();
        self.inbox_of(&id).push(Event::Leave { id, group, done });
        answer.await.is_ok()
    }

    /// Returns a connection's groups by name, `None` if it is gone.
    pub(crate) async fn groups_of(&self, id: ConnectionId) -> Option<Vec<Arc<str>>> {
        let (done, answer) = oneshot::channel();
        self.inbox_of(&id).push(Event::Groups { id, done });
        answer.await.ok()
    }

    /// Has every shard look for connections to close, since memory runs out.
    pub(crate) fn relieve(&self) {
        for inbox in &self.inboxes {
            inbox.push(Event::Relieve);
        }
    }

    /// Has every shard go by other settings.
    pub(crate) fn adopt(&self, snapshot: &Arc<Snapshot>) {
        for inbox in &self.inboxes {
            inbox.push(Event::Adopt { snapshot: Arc::clone(snapshot) });
        }
    }

    /// Closes all connections that are left, spread over `within`, whatever was said before.
    pub(crate) fn drain(&self, within: Duration) {
        for inbox in &self.inboxes {
            inbox.push(Event::Drain { within });
        }
    }

    /// Ends all shards; what they still hold is cut.
    pub(crate) fn stop(&self) {
        for inbox in &self.inboxes {
            inbox.push(Event::Stop);
        }
    }
}
