//! One channel this node subscribes to.

use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::cluster::broker::redis::pace::RepairPace;
use crate::cluster::broker::redis::track::Track;
use crate::model::broker::{Channel, Delivery, PublishError, Wait};
use crate::model::trace_context::TraceContext;
use crate::ops::metrics::GaugeGuard;
use crate::shard::hub::Hub;
use crate::shard::inbox::Event;

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) channel: Channel,
    /// Whether its messages are counted and kept.
    pub(super) is_kept: bool,
    pub(super) shards: Vec<usize>,
    /// Shards to be told once the subscription stands.
    pub(super) waiting: Vec<(usize, Wait)>,
    pub(super) track: Track,
    /// Whether members have been told that messages come although nobody knew from which place on.
    pub(super) is_promised: bool,
    /// Whether it waits to be read.
    pub(super) is_unread: bool,
    /// The number of the last reading that was asked for.
    pub(super) reading: u64,
    /// Of its repair.
    pub(super) pace: RepairPace,
    /// Broadcasts are nothing to be a member of.
    pub(super) _counted: Option<GaugeGuard>,
}

impl Entry {
    /// Hands a message to all shards, or, if one is full, to none.
    pub(super) fn deliver(&self, hub: &Hub, frame: &Bytes, trace: Option<TraceContext>) -> bool {
        if self.shards.iter().any(|shard| hub.inbox(*shard).is_full()) {
            return false;
        }
        self.push(hub, frame, trace);
        true
    }

    /// Hands a message to those shards that have room; returns how many have none.
    pub(super) fn pass(&self, hub: &Hub, frame: &Bytes) -> usize {
        let delivery = self.delivery(frame, None);
        let mut missed = 0;
        for inbox in self.shards.iter().map(|shard| hub.inbox(*shard)) {
            if inbox.is_full() {
                missed += 1;
            } else {
                inbox.push(Event::Deliver(delivery.clone()));
            }
        }
        missed
    }

    pub(super) fn tell_waiting(&mut self, hub: &Hub, result: Result<(), PublishError>) {
        for (shard, wait) in self.waiting.drain(..) {
            hub.inbox(shard).push(Event::Subscribed {
                channel: self.channel.clone(),
                wait,
                result,
            });
        }
    }

    fn delivery(&self, frame: &Bytes, trace: Option<TraceContext>) -> Delivery {
        let (channel, frame) = (self.channel.clone(), frame.clone());
        Delivery { channel, frame, accepted_at: Instant::now(), trace }
    }

    pub(super) fn push(&self, hub: &Hub, frame: &Bytes, trace: Option<TraceContext>) {
        let delivery = self.delivery(frame, trace);
        for shard in &self.shards {
            hub.inbox(*shard).push(Event::Deliver(delivery.clone()));
        }
    }

    /// Asks all shards whether the members have room for that many bytes more, behind what they
    /// were handed before.
    pub(super) fn ask_for_room(&self, hub: &Hub, bytes: usize) -> Vec<oneshot::Receiver<bool>> {
        let ask = |shard: &usize| {
            let (done, answer) = oneshot::channel();
            hub.inbox(*shard).push(Event::Room { channel: self.channel.clone(), bytes, done });
            answer
        };
        self.shards.iter().map(ask).collect()
    }
}
