//! Asks the node that holds a connection to do something with it.
//!
//! A connection's id names its node, so nothing is looked up: the request goes to that node's own
//! channel, and the answer comes back on ours. Who does not listen and is marked as gone, or of
//! whom there is nothing though Redis has not forgotten it ([`known`]), is gone; who does not
//! answer in time may be alive, and the caller is told just that.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::Cmd;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

pub(crate) use self::call::{Answer, DEADLINE, Operation};
use self::known::Known;
use self::lanes::{Lanes, PeerBatch, PeerMessage, open};
pub(crate) use self::own::OwnNode;
use crate::cluster::store::{Store, StoreError};
use crate::limits::budget::Kind;
use crate::model::id::{ConnectionId, NodeTag};
use crate::model::listing::{Listed, Query};
use crate::ops::lifecycle::Lifecycle;
use crate::ops::metrics::{Foreign, Metrics};
use crate::protocol::codec;
use crate::routing::gateway::is_group_name;

mod call;
mod known;
mod lanes;
mod own;

/// Counted for a message besides its head and its frame, in bytes.
const MESSAGE_OVERHEAD: usize = 256;
/// Between two looks for nodes to greet while this one is being made known, and after a look that
/// failed or a greeting that was not answered for this long.
const GREETING_PAUSES: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_millis(500));

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Peers {
    store: Store,
    own: OwnNode,
    bounds: PeerBounds,
    lifecycle: Lifecycle,
    metrics: Arc<Metrics>,
    next_call: AtomicU64,
    calls: Mutex<HashMap<u64, oneshot::Sender<Result<Answer, PeerError>>>>,
    lanes: Mutex<Lanes>,
    known: Mutex<Known>,
}

/// What bounds calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerBounds {
    /// For how long a node that is not heard of may be there.
    pub(crate) lease: Duration,
    /// Longest message, in bytes.
    pub(crate) message_bytes: usize,
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum PeerError {
    /// Redis is away.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node is not listening, but holds its lease.
    #[error("the connection's node cannot be reached")]
    Unreachable,
    /// Too much is on its way to other nodes.
    #[error("too many calls wait for other nodes; try again later")]
    Overload,
    /// It did not answer in time; it may have done what it was asked.
    #[error("the connection's node did not answer in time")]
    Timeout,
}

/// The head of what goes over a node's channel; a frame may follow.
#[derive(Debug, Serialize, Deserialize)]
enum Envelope {
    Request { from: String, call: u64, operation: Operation, id: String },
    List { from: String, call: u64, query: Query },
    Answer { call: u64, answer: Answer },
}

impl Peers {
    pub(crate) fn new(
        store: Store,
        own: OwnNode,
        bounds: PeerBounds,
        lifecycle: Lifecycle,
        metrics: Arc<Metrics>,
    ) -> Self {
        let known = Mutex::new(Known::new(bounds.lease));
        let (next_call, calls, lanes) = (AtomicU64::new(0), Mutex::default(), Mutex::default());
        Self { store, own, bounds, lifecycle, metrics, next_call, calls, lanes, known }
    }

    /// Returns this node's tag.
    pub(crate) fn tag(&self) -> NodeTag {
        self.own.tag
    }

    /// Does something with a connection, wherever it is.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        operation: Operation,
        id: ConnectionId,
        frame: Bytes,
    ) -> Result<Answer, PeerError> {
        match id.node() {
            None => Ok(Answer::Gone),
            Some(node) if node == self.own.tag => {
                Ok(self.own.carry_out(operation, id, frame).await)
            }
            Some(node) => self.ask_node(node, operation, id, frame).await,
        }
    }

    async fn ask_node(
        self: &Arc<Self>,
        node: NodeTag,
        operation: Operation,
        id: ConnectionId,
        frame: Bytes,
    ) -> Result<Answer, PeerError> {
        let id = id.to_string();
        let request = |from, call| Envelope::Request { from, call, operation, id };
        self.call(node, request, frame, DEADLINE).await
    }

    /// Asks a node what it holds.
    ///
    /// # Errors
    /// As for a connection; a node that is gone holds nothing.
    pub(crate) async fn list(
        self: &Arc<Self>,
        node: NodeTag,
        query: Query,
        within: Duration,
    ) -> Result<Option<Listed>, PeerError> {
        if node == self.own.tag {
            return Ok(Some(self.own.hub.list(query).await));
        }
        let request = |from, call| Envelope::List { from, call, query };
        match self.call(node, request, Bytes::new(), within).await? {
            Answer::Listed(listed) => Ok(Some(listed)),
            _ => Ok(None),
        }
    }

    /// Returns the tags of all nodes, those of the dead among them that nobody has removed yet, in
    /// order.
    pub(crate) async fn nodes(&self) -> Result<Vec<NodeTag>, StoreError> {
        let nodes = self.store.nodes();
        let tags: Vec<String> = self.store.ask(&nodes, Cmd::smembers(&nodes)).await?;
        Ok(self.see(&tags))
    }

    /// Takes whom the set of all nodes names now; returns all that are known, in order, this one
    /// among them: a Redis that has forgotten everything knows nobody before the next renewals.
    pub(crate) fn see(&self, named: &[String]) -> Vec<NodeTag> {
        let named = named.iter().filter_map(|tag| NodeTag::parse(tag));
        let named: Vec<NodeTag> = named.chain([self.own.tag]).collect();
        self.known.lock().see(&named, Instant::now())
    }

    /// Makes this node and those that are there known to each other: what they would learn with
    /// their next looks may be forgotten by then. Of any two the one that comes later sees the
    /// other, so it is over once the set names this node.
    pub(crate) async fn greet(self: Arc<Self>) {
        let (nodes, own, mut greeted) =
            (self.store.nodes(), self.own.tag.to_string(), vec![self.own.tag]);
        loop {
            let named: Result<Vec<String>, _> = self.store.ask(&nodes, Cmd::smembers(&nodes)).await;
            let Ok(named) = named else {
                tokio::time::sleep(GREETING_PAUSES.1).await;
                continue;
            };
            let mut others = self.see(&named);
            others.retain(|node| !greeted.contains(node));
            let greet = async |node: NodeTag| {
                let answer = self.list(node, Query::Counts, GREETING_PAUSES.1).await;
                answer.is_ok().then_some(node)
            };
            greeted.extend(
                join_all(others.iter().map(|node| greet(*node))).await.into_iter().flatten(),
            );
            if named.contains(&own) && others.iter().all(|node| greeted.contains(node)) {
                return;
            }
            tokio::time::sleep(GREETING_PAUSES.0).await;
        }
    }

    /// Sends a request to a node and waits for the answer.
    async fn call(
        self: &Arc<Self>,
        node: NodeTag,
        request: impl FnOnce(String, u64) -> Envelope,
        frame: Bytes,
        within: Duration,
    ) -> Result<Answer, PeerError> {
        let call = self.next_call.fetch_add(1, Ordering::Relaxed);
        let (caller, answer) = oneshot::channel();
        self.calls.lock().insert(call, caller);
        let _forgotten = Forget { peers: self, call };
        self.send(node, &request(self.own.tag.to_string(), call), frame, Some(call));
        match tokio::time::timeout(within, answer).await {
            Ok(Ok(Err(error @ PeerError::Unreachable))) => self.judge(node, error).await,
            Ok(Ok(result)) => result,
            // It listens as far as Redis knows, but perhaps it is dead to the others already.
            Ok(Err(_)) | Err(_) => self.judge(node, PeerError::Timeout).await,
        }
    }

    /// A node does not answer: its connections are gone if it has left or others end them, which
    /// its mark says; otherwise it may be about to come back. A node of which there is nothing was
    /// never there, or long ago, unless Redis has forgotten it: who knows it waits for the mark,
    /// and nobody can tell before all have had the time to say that they are there.
    async fn judge(&self, node: NodeTag, otherwise: PeerError) -> Result<Answer, PeerError> {
        let tag = node.to_string();
        let (lease, mark) = (self.store.lease(&tag), self.store.reaped(&tag));
        let is_marked: bool = self.store.ask(&mark, Cmd::exists(&mark)).await?;
        if is_marked {
            return Ok(Answer::Gone);
        }
        let holds_lease: bool = self.store.ask(&lease, Cmd::exists(&lease)).await?;
        self.nodes().await?;
        let is_known = self.known.lock().knows(node);
        if holds_lease || is_known || self.store.steady_time(&lease) < self.bounds.lease {
            return Err(otherwise);
        }
        Ok(Answer::Gone)
    }

    /// Takes what came over this node's channel.
    pub(crate) fn on_message(self: &Arc<Self>, payload: &[u8]) {
        let mut rest = payload;
        while let Some((head, frame, more)) = open(rest) {
            rest = more;
            self.on_part(head, frame);
        }
        if !rest.is_empty() {
            self.refuse_message("its parts are not as long as it says");
        }
    }

    /// Notes a message that no node of this version writes; whatever is asked in it is not done.
    fn refuse_message(&self, reason: &str) {
        self.metrics.count_foreign(Foreign::PeerMessage, 1);
        tracing::debug!(reason, "another node's message cannot be read; do the versions differ?");
    }

    fn on_part(self: &Arc<Self>, head: &[u8], frame: &[u8]) {
        match serde_json::from_slice(head) {
            Ok(Envelope::Answer { call, answer }) => self.settle(call, Ok(answer)),
            Ok(Envelope::Request { from, call, operation, id }) => {
                let is_whole = match &operation {
                    Operation::Post => codec::is_message(frame, self.bounds.message_bytes),
                    Operation::Join(group) | Operation::Leave(group) => is_group_name(group),
                    Operation::Get | Operation::Delete | Operation::Groups => true,
                };
                let Some(id) = ConnectionId::parse(&id).filter(|_| is_whole) else {
                    return self.refuse_message("what it asks cannot be done");
                };
                let (own, frame) = (self.own.clone(), Bytes::copy_from_slice(frame));
                self.serve(&from, call, async move { own.carry_out(operation, id, frame).await });
            }
            Ok(Envelope::List { from, call, query }) => {
                let hub = Arc::clone(&self.own.hub);
                self.serve(&from, call, async move { Answer::Listed(hub.list(query).await) });
            }
            Err(error) => self.refuse_message(&error.to_string()),
        }
    }

    /// Gives a caller the result, if they still wait for it.
    fn settle(&self, call: u64, result: Result<Answer, PeerError>) {
        if let Some(caller) = self.calls.lock().remove(&call) {
            crate::shard::inbox::answer(caller, result);
        }
    }

    /// Sends an answer to the node that called, once it is known.
    fn serve(
        self: &Arc<Self>,
        from: &str,
        call: u64,
        answer: impl Future<Output = Answer> + Send + 'static,
    ) {
        let Some(from) = NodeTag::parse(from) else { return };
        self.known.lock().hear(from);
        let peers = Arc::clone(self);
        self.lifecycle.spawn(async move {
            let answer = answer.await;
            peers.send(from, &Envelope::Answer { call, answer }, Bytes::new(), None);
        });
    }

    /// Sends to a node's channel; a call whose message reaches nobody is settled.
    fn send(self: &Arc<Self>, node: NodeTag, envelope: &Envelope, frame: Bytes, call: Option<u64>) {
        let head = serde_json::to_vec(envelope).unwrap_or_default();
        let budget = self.own.hub.budget();
        let held = budget
            .gauge(Kind::Peers, 0)
            .try_hold(head.len() + frame.len() + MESSAGE_OVERHEAD, budget.queue_bytes(1));
        let Some(held) = held else {
            tracing::debug!(%node, "too much is on its way to other nodes");
            return call.into_iter().for_each(|call| self.settle(call, Err(PeerError::Overload)));
        };
        if self.lanes.lock().add(node, PeerMessage { head, frame, call, _held: held }) {
            let (peers, carried) = (Arc::clone(self), self.lifecycle.ending().child_token());
            // Whoever sends there next relies on this task: it may end only when it has nothing
            // more.
            self.lifecycle.spawn_vital("lane to a node", carried.clone(), async move {
                peers.carry(node).await;
                carried.cancel();
            });
        }
    }

    /// Publishes what is for a node, until there is nothing more.
    async fn carry(&self, node: NodeTag) {
        let channel = self.store.node_channel(node);
        loop {
            // Whoever is about to send there as well comes first, and shares the trip.
            tokio::task::yield_now().await;
            let Some(batch) = self.next_batch(node) else { return };
            let error = match self.store.publish(&channel, &batch.payload).await {
                Ok(0) => PeerError::Unreachable,
                Ok(_) => continue,
                Err(error) => PeerError::Store(error),
            };
            tracing::debug!(%error, "calling or answering another node");
            for call in batch.calls {
                self.settle(call, Err(error.clone()));
            }
        }
    }

    fn next_batch(&self, node: NodeTag) -> Option<PeerBatch> {
        let calls = self.calls.lock();
        self.lanes.lock().next(node, |call| calls.contains_key(&call))
    }
}

/// Forgets a call that nobody waits for any more.
struct Forget<'a> {
    peers: &'a Peers,
    call: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.peers.calls.lock().remove(&self.call);
    }
}
