//! What the suite runs on: nodes with a broker and inboxes each, and for Redis a server of their
//! own.
//!
//! Nothing is waited for by time: everything that is to come has a deadline, and what must not come
//! is looked for behind a last message that has to.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::server::RedisServer;
use crate::cluster::backend::{Backend, LocalParts};
use crate::cluster::broker::memory::MemoryBroker;
use crate::config::{Config, Snapshot, Snapshots, Sources};
use crate::limits::budget::Budget;
use crate::limits::places::Places;
use crate::model::broker::{
    Accepted, Broker, Channel, Key, Offset, Publication, PublishError, PublishResult, Receipt,
    Recipient, Standing, Wait,
};
use crate::model::id::{ConnectionId, NodeTag, RequestId};
use crate::ops::lifecycle::Lifecycle;
use crate::ops::telemetry::Telemetry;
use crate::protocol::codec::{Opcode, encode, payload_of};
use crate::shard::EventLoop;
use crate::shard::hub::Hub;
use crate::shard::inbox::{Event, answer};

/// Shards of each node.
pub(super) const SHARDS: usize = 3;
/// Nodes of a bench on Redis.
const NODES: usize = 2;
/// Longest wait for anything; a machine that is busy with other tests is slow, not wrong.
const DEADLINE: Duration = Duration::from_secs(30);
/// Groups whose names begin with "ticks-" are not kept.
const GROUPS: &str = "[[groups]]\npattern = \"ticks-*\"\nreplay = \"off\"\n";
/// Everything a test publishes can be read again, so that nothing may be lost.
const REDIS: &str = "[redis]\nurl = \"URL\"\nlease = \"3s\"\nheartbeat = \"200ms\"\nstream_entries = 1_000_000\n\
     stream_bytes = 1_073_741_824\nstream_age = \"1h\"\n";

/// Nodes and the inboxes that their brokers fill. A *seat* is a shard of a node, counted through
/// all nodes.
pub(super) struct Bench {
    nodes: Vec<Node>,
    heard: Mutex<Vec<Heard>>,
    ends: AtomicUsize,
    /// Ends before the server does, so that no task complains.
    _runtime: Option<Runtime>,
    pub(super) redis: Option<RedisServer>,
}

struct Node {
    broker: Arc<dyn Broker>,
    hub: Arc<Hub>,
    /// They keep the inboxes' wakers alive.
    _event_loops: Vec<EventLoop>,
}

/// What a seat was told and nobody has asked for yet.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) messages: Vec<(Channel, String)>,
    pub(super) subscribed: Vec<(Wait, Result<(), PublishError>)>,
    pub(super) failed: Vec<(ConnectionId, RequestId)>,
}

/// What is answered to a caller later.
pub(super) type Answer = oneshot::Receiver<PublishResult>;

impl fmt::Debug for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last: Vec<_> = self.messages.iter().rev().take(3).collect();
        let (messages, failed) = (self.messages.len(), self.failed.len());
        write!(f, "{messages} messages, the last {last:?}; {:?}; {failed} refused", self.subscribed)
    }
}

fn snapshots(config: &Config, tag: NodeTag, telemetry: &Telemetry) -> Snapshots {
    Snapshots::begin(Snapshot::new(config, tag, &telemetry.metrics)).1
}

impl Bench {
    /// One node that is alone.
    pub(super) fn memory() -> Self {
        let config = config(GROUPS.to_owned());
        let node = Node::new(|hub, telemetry| {
            let snapshots = snapshots(&config, NodeTag::random(), telemetry);
            Arc::new(MemoryBroker::new(
                Arc::clone(hub),
                telemetry.clone(),
                config.terms(),
                snapshots,
            ))
        });
        Self::new(vec![node], None, None)
    }

    /// Nodes that meet in a Redis of their own.
    pub(super) fn redis() -> Self {
        let server = RedisServer::start();
        let config = config(format!("{GROUPS}{}", REDIS.replace("URL", &server.url())));
        let runtime = Runtime::new().expect("a runtime");
        let inside = runtime.enter();
        let make = |hub: &Arc<Hub>, telemetry: &Telemetry| {
            let (places, lifecycle, tag) =
                (Arc::new(Places::default()), Lifecycle::new(), NodeTag::random());
            let backend = Backend::start(LocalParts {
                config: &config,
                snapshots: &snapshots(&config, tag, telemetry),
                tag,
                hub,
                places: &places,
                lifecycle: &lifecycle,
                telemetry,
            });
            backend.expect("a backend").broker
        };
        let nodes = (0..NODES).map(|_| Node::new(make)).collect();
        drop(inside);
        let bench = Self::new(nodes, Some(runtime), Some(server));
        bench.until("all nodes hear broadcasts", |_| {
            bench.nodes.iter().all(|node| node.broker.has_begun())
        });
        bench
    }

    fn new(nodes: Vec<Node>, runtime: Option<Runtime>, redis: Option<RedisServer>) -> Self {
        let heard = (0..nodes.len() * SHARDS).map(|_| Heard::default()).collect();
        Self {
            nodes,
            heard: Mutex::new(heard),
            ends: AtomicUsize::new(0),
            _runtime: runtime,
            redis,
        }
    }

    pub(super) fn seats(&self) -> Vec<usize> {
        (0..self.nodes.len() * SHARDS).collect()
    }

    /// The broker of a seat's node; any number will do where the node does not matter.
    pub(super) fn broker(&self, seat: usize) -> &dyn Broker {
        &*self.nodes[seat / SHARDS % self.nodes.len()].broker
    }

    /// Publishes through one node after the other.
    pub(super) fn publish(
        &self,
        node: usize,
        channel: &Channel,
        text: &str,
    ) -> Result<Offset, PublishError> {
        match self.publish_named(node, channel, text, None)? {
            Accepted::At(offset) => Ok(offset),
            other => panic!("{other:?}"),
        }
    }

    /// The same, with a key.
    pub(super) fn publish_named(
        &self,
        node: usize,
        channel: &Channel,
        text: &str,
        key: Option<&str>,
    ) -> PublishResult {
        self.publish_as(node, channel, text, key.map(|key| Key::Given(key.into())))
    }

    /// The same, as the end of a connection.
    pub(super) fn publish_end(
        &self,
        node: usize,
        channel: &Channel,
        text: &str,
        id: ConnectionId,
    ) -> PublishResult {
        self.publish_as(node, channel, text, Some(Key::End { id, in_doubt: false }))
    }

    fn publish_as(
        &self,
        node: usize,
        channel: &Channel,
        text: &str,
        key: Option<Key>,
    ) -> PublishResult {
        let (caller, answer) = oneshot::channel();
        self.send(
            node,
            Publication { key, ..publication(channel, text, Recipient::Caller(caller)) },
        );
        self.answer(answer)
    }

    pub(super) fn send(&self, node: usize, publication: Publication) {
        self.send_all(node, vec![publication]);
    }

    pub(super) fn send_all(&self, node: usize, mut publications: Vec<Publication>) {
        self.broker(node * SHARDS).publish(&mut publications);
        assert!(publications.is_empty(), "the broker has not taken them all");
    }

    /// Waits for an answer; silence is a fault.
    pub(super) fn answer(&self, mut answer: Answer) -> PublishResult {
        let mut result = None;
        self.until("an answer, never silence", |_| {
            result = match answer.try_recv() {
                Ok(result) => Some(result),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Closed) => panic!("a receipt was dropped without an answer"),
            };
            result.is_some()
        });
        result.expect("it was waited for")
    }

    /// Subscribes without waiting.
    pub(super) fn subscribe(&self, seat: usize, channel: &Channel) -> Standing {
        self.broker(seat).subscribe(seat % SHARDS, channel)
    }

    pub(super) fn unsubscribe(&self, seat: usize, channel: &Channel) {
        self.broker(seat).unsubscribe(seat % SHARDS, channel);
    }

    /// Subscribes, and waits until messages count.
    pub(super) fn join(&self, seat: usize, channel: &Channel) {
        match self.subscribe(seat, channel) {
            Standing::Confirmed => {}
            Standing::Pending(wait) => assert_eq!(self.subscribed(seat, wait), Ok(())),
            Standing::Refused => panic!("{channel:?} was refused"),
        }
    }

    /// Waits until a seat is told what became of a subscription.
    pub(super) fn subscribed(&self, seat: usize, wait: Wait) -> Result<(), PublishError> {
        let mut result = None;
        self.until("a subscription is answered", |heard| {
            result = heard[seat]
                .subscribed
                .iter()
                .find(|(other, _)| *other == wait)
                .map(|(_, result)| *result);
            result.is_some()
        });
        result.expect("it was waited for")
    }

    /// Returns what was sent to a channel until now: all members were given the same, in the same
    /// order, and nobody else any.
    pub(super) fn heard(&self, channel: &Channel, members: &[usize]) -> Vec<String> {
        self.end(channel, members);
        if *channel != Channel::Broadcast {
            self.end(&Channel::Broadcast, &self.seats());
        }
        let mut heard = self.take_inboxes();
        let mut first = None;
        for (seat, heard) in heard.iter_mut().enumerate() {
            let own = heard
                .messages
                .extract_if(.., |(other, text)| other == channel && !text.starts_with("end "));
            let texts: Vec<String> = own.map(|(_, text)| text).collect();
            if !members.contains(&seat) {
                assert_eq!(texts, [""; 0], "seat {seat} is no member of {channel:?}");
                continue;
            }
            let expected = first.get_or_insert_with(|| texts.clone());
            assert_eq!(texts.len(), expected.len(), "seat {seat} against seat {}", members[0]);
            assert_eq!(texts, *expected, "seat {seat} against seat {}", members[0]);
        }
        first.unwrap_or_default()
    }

    /// Sends a last message and waits until all members have it.
    fn end(&self, channel: &Channel, members: &[usize]) {
        let end = format!("end {}", self.ends.fetch_add(1, Ordering::Relaxed));
        // As shards do all the time; otherwise a queue may be full.
        drop(self.take_inboxes());
        self.publish(0, channel, &end).expect("a last message is accepted");
        let mut missing: HashSet<usize> = members.iter().copied().collect();
        self.until(&format!("all members of {channel:?} have its last message"), |heard| {
            missing.retain(|seat| !heard[*seat].messages.iter().any(|(_, text)| *text == end));
            missing.is_empty()
        });
    }

    /// Waits for a condition on what the seats have heard.
    pub(super) fn until(&self, what: &str, mut check: impl FnMut(&mut [Heard]) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let mut heard = self.take_inboxes();
            if check(&mut heard) {
                return;
            }
            assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}; heard: {heard:?}");
            drop(heard);
            thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Empties all inboxes, as shards do.
    pub(super) fn take_inboxes(&self) -> parking_lot::MutexGuard<'_, Vec<Heard>> {
        let mut heard = self.heard.lock();
        for (seat, heard) in heard.iter_mut().enumerate() {
            let mut events = Vec::new();
            self.nodes[seat / SHARDS].hub.inbox(seat % SHARDS).take(&mut events);
            for event in events {
                match event {
                    Event::Deliver(delivery) => {
                        let (_, text) = payload_of(&delivery.frame).expect("a frame");
                        let text = String::from_utf8(text.to_vec()).expect("text");
                        heard.messages.push((delivery.channel, text));
                    }
                    Event::Subscribed { wait, result, .. } => heard.subscribed.push((wait, result)),
                    // Whoever is asked takes what it is told at once.
                    Event::Room { done, .. } => answer(done, true),
                    Event::PublishFailed { id, request } => heard.failed.push((id, request)),
                    other => panic!("{other:?}"),
                }
            }
        }
        heard
    }
}

impl Node {
    fn new(make: impl FnOnce(&Arc<Hub>, &Telemetry) -> Arc<dyn Broker>) -> Self {
        let budget = Arc::new(Budget::new(1 << 32, SHARDS));
        let event_loops: Vec<_> = (0..SHARDS)
            .map(|index| EventLoop::open(&budget, index, SHARDS).expect("an event loop"))
            .collect();
        let telemetry = Telemetry::without_spans().expect("metrics");
        let hub = Arc::new(Hub::new(
            event_loops.iter().map(EventLoop::inbox).collect(),
            Arc::clone(&telemetry.metrics),
            budget,
        ));
        Self { broker: make(&hub, &telemetry), hub, _event_loops: event_loops }
    }
}

pub(super) fn publication(channel: &Channel, text: &str, asked_by: Recipient) -> Publication {
    let (frame, receipt) = (encode(Opcode::Text, text.as_bytes()), Receipt::new(asked_by));
    Publication { channel: channel.clone(), frame, key: None, receipt }
}

pub(super) fn group(name: &str) -> Channel {
    Channel::Group(name.into())
}

fn config(text: String) -> Config {
    let sources = Sources { file: Some(("bench".to_owned(), text)), ..Sources::default() };
    Config::load(&sources).expect("valid settings")
}
