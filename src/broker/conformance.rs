//! The contract of [`super::Broker`], as one suite that every implementation has to pass.

use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::sync::oneshot;

use super::memory::MemoryBroker;
use super::{Accepted, Broker, Channel, Offset, Publication, PublishError, PublishResult, Receipt, Terms};
use crate::config::{Config, Sources};
use crate::hub::Hub;
use crate::id::{ConnectionId, NodeTag, RequestId};
use crate::inbox::Event;
use crate::metrics::Metrics;
use crate::shard::Door;

const SHARDS: usize = 3;

/// A broker and the inboxes it fills; the doors keep the inboxes' wakers alive.
struct Bench {
    broker: Arc<dyn Broker>,
    hub: Arc<Hub>,
    _doors: Vec<Door>,
}

impl Bench {
    fn new(make: fn(Arc<Hub>) -> Arc<dyn Broker>) -> Self {
        let doors: Vec<_> = (0..SHARDS).map(|_| Door::open().expect("an event loop")).collect();
        let hub = Arc::new(Hub::new(doors.iter().map(Door::inbox).collect()));
        Self { broker: make(Arc::clone(&hub)), hub, _doors: doors }
    }

    fn publish(&self, channel: &Channel, text: &str) -> Result<Offset, PublishError> {
        let (caller, answer) = oneshot::channel();
        self.send(channel, text, Receipt::Caller(caller));
        match answer.blocking_recv().expect("an answer, never silence")? {
            Accepted::At(offset) => Ok(offset),
            other => panic!("{other:?}"),
        }
    }

    fn publish_once(&self, channel: &Channel, text: &str, key: &str) -> PublishResult {
        let (caller, answer) = oneshot::channel();
        self.send_with(channel, text, Some(key), Receipt::Caller(caller));
        answer.blocking_recv().expect("an answer, never silence")
    }

    fn send(&self, channel: &Channel, text: &str, receipt: Receipt) {
        self.send_with(channel, text, None, receipt);
    }

    fn send_with(&self, channel: &Channel, text: &str, key: Option<&str>, receipt: Receipt) {
        let frame = Bytes::copy_from_slice(text.as_bytes());
        let (channel, key) = (channel.clone(), key.map(Into::into));
        self.broker.publish(&mut vec![Publication { channel, frame, key, receipt }]);
    }

    /// Empties an inbox; returns the texts of the messages in it.
    fn taken(&self, shard: usize) -> Vec<String> {
        let mut events = Vec::new();
        self.hub.inbox(shard).take(&mut events);
        let text = |event| match event {
            Event::Deliver(delivery) => String::from_utf8(delivery.frame.to_vec()).expect("text"),
            other => panic!("{other:?}"),
        };
        events.into_iter().map(text).collect()
    }
}

fn memory(hub: Arc<Hub>) -> Arc<dyn Broker> {
    Arc::new(MemoryBroker::new(hub, Arc::new(Metrics::new().expect("metrics")), terms()))
}

/// Groups whose names begin with "ticks-" are not kept.
fn terms() -> Terms {
    let text = "[[groups]]\npattern = \"ticks-*\"\nreplay = \"off\"\n";
    let sources = Sources { file: Some(("test.toml".to_owned(), text.to_owned())), ..Sources::default() };
    let config = Config::load(&sources).expect("valid");
    Terms { groups: config.groups, idempotency_age: config.limits.idempotency_age }
}

fn group(name: &str) -> Channel {
    Channel::Group(name.into())
}

fn only_shards_with_members_are_given_a_message(make: fn(Arc<Hub>) -> Arc<dyn Broker>) {
    let bench = Bench::new(make);
    bench.broker.subscribe(1, &group("moon"));
    bench.broker.subscribe(2, &Channel::User("moon".into()));
    bench.publish(&group("moon"), "to the group").expect("accepted");
    bench.publish(&Channel::User("moon".into()), "to the user").expect("accepted");
    bench.publish(&Channel::Broadcast, "to all").expect("accepted");
    bench.publish(&group("sun"), "to nobody").expect("accepted");
    assert_eq!(bench.taken(0), ["to all"]);
    assert_eq!(bench.taken(1), ["to the group", "to all"]);
    assert_eq!(bench.taken(2), ["to the user", "to all"]);
    bench.broker.unsubscribe(1, &group("moon"));
    bench.publish(&group("moon"), "to nobody any more").expect("accepted");
    assert_eq!(bench.taken(1), [""; 0]);
}

fn offsets_grow(make: fn(Arc<Hub>) -> Arc<dyn Broker>) {
    let bench = Bench::new(make);
    let offsets: Vec<_> = (0..10).map(|_| bench.publish(&group("moon"), "x").expect("accepted")).collect();
    assert!(offsets.is_sorted_by(|a, b| a < b), "{offsets:?}");
}

fn all_shards_see_one_order(make: fn(Arc<Hub>) -> Arc<dyn Broker>) {
    let bench = Bench::new(make);
    let publishers = 4;
    let each = 500;
    thread::scope(|scope| {
        for publisher in 0..publishers {
            let bench = &bench;
            scope.spawn(move || {
                for number in 0..each {
                    bench.send(&Channel::Broadcast, &format!("{publisher}:{number}"), Receipt::Nobody);
                }
            });
        }
    });
    let first = bench.taken(0);
    assert_eq!(first.len(), publishers * each, "none lost, none doubled");
    for shard in 1..SHARDS {
        assert_eq!(bench.taken(shard), first);
    }
    for publisher in 0..publishers {
        let own: Vec<_> = first.iter().filter(|text| text.starts_with(&format!("{publisher}:"))).collect();
        let expected: Vec<_> = (0..each).map(|number| format!("{publisher}:{number}")).collect();
        assert_eq!(own, expected.iter().collect::<Vec<_>>(), "a publisher's own order is kept");
    }
}

fn refused_messages_reach_nobody_and_their_senders_know(make: fn(Arc<Hub>) -> Arc<dyn Broker>) {
    let bench = Bench::new(make);
    let large = "x".repeat(8 << 20);
    let mut accepted = 0;
    while bench.publish(&Channel::Broadcast, &large).is_ok() {
        accepted += 1;
        assert!(accepted < 1_000, "an inbox without a bound");
    }
    let id = ConnectionId::mint(NodeTag::random());
    let request = RequestId::mint();
    bench.send(&Channel::Broadcast, "refused", Receipt::Sender(id, request));
    let mut told = 0;
    for shard in 0..SHARDS {
        let mut events = Vec::new();
        bench.hub.inbox(shard).take(&mut events);
        let delivered = events.iter().filter(|event| matches!(event, Event::Deliver(_))).count();
        assert_eq!(delivered, accepted, "every shard has what was accepted, and nothing else");
        told += events
            .iter()
            .filter(|event| matches!(event, Event::PublishFailed { id: to, request: run } if *to == id && *run == request))
            .count();
    }
    assert_eq!(told, 1);
    bench.publish(&Channel::Broadcast, "again").expect("there is room again");
}

fn a_key_is_published_once_on_each_channel(make: fn(Arc<Hub>) -> Arc<dyn Broker>) {
    let bench = Bench::new(make);
    bench.broker.subscribe(1, &group("moon"));
    let Ok(Accepted::At(first)) = bench.publish_once(&group("moon"), "one", "key") else { panic!("refused") };
    bench.publish(&group("moon"), "two").expect("accepted");
    assert_eq!(bench.publish_once(&group("moon"), "three", "key"), Ok(Accepted::Duplicate(first)));
    let on_another = bench.publish_once(&group("sun"), "one", "key");
    assert!(matches!(on_another, Ok(Accepted::At(_))), "{on_another:?}");
    assert_eq!(bench.taken(1), ["one", "two"]);
}

fn a_group_without_replay_is_delivered_and_not_counted(make: fn(Arc<Hub>) -> Arc<dyn Broker>) {
    let bench = Bench::new(make);
    let ticks = group("ticks-eur");
    bench.broker.subscribe(1, &ticks);
    let (caller, answer) = oneshot::channel();
    bench.send(&ticks, "one", Receipt::Caller(caller));
    assert_eq!(answer.blocking_recv().expect("an answer"), Ok(Accepted::Unkept));
    assert_eq!(bench.publish_once(&ticks, "two", "key"), Err(PublishError::KeyUnkept));
    assert_eq!(bench.taken(1), ["one"]);
}

#[test]
fn memory_broker_keeps_the_contract() {
    only_shards_with_members_are_given_a_message(memory);
    offsets_grow(memory);
    a_key_is_published_once_on_each_channel(memory);
    a_group_without_replay_is_delivered_and_not_counted(memory);
    all_shards_see_one_order(memory);
    refused_messages_reach_nobody_and_their_senders_know(memory);
}

proptest! {
    #[test]
    fn interest_is_what_subscriptions_say(steps in prop::collection::vec((any::<bool>(), 0..SHARDS, 0..3_u8), 0..60)) {
        let bench = Bench::new(memory);
        let mut model = std::collections::BTreeSet::new();
        for (subscribe, shard, number) in steps {
            let channel = group(&number.to_string());
            if subscribe {
                bench.broker.subscribe(shard, &channel);
                model.insert((shard, number));
            } else {
                bench.broker.unsubscribe(shard, &channel);
                model.remove(&(shard, number));
            }
        }
        for number in 0..3 {
            bench.publish(&group(&number.to_string()), "x").expect("accepted");
            for shard in 0..SHARDS {
                prop_assert_eq!(bench.taken(shard).len(), usize::from(model.contains(&(shard, number))));
            }
        }
    }
}
