//! The broker of a node that is alone: hands messages to the shards that have members.
//!
//! One lock orders everything: it is held while a message is put into the shards' inboxes, so that
//! all see the same order. Lock order: this one, then an inbox.

use std::collections::HashMap;
use std::future::ready;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use uuid::Uuid;

use self::keys::Keys;
use crate::config::Snapshots;
use crate::model::broker::{
    Accepted, Broker, Channel, Delivery, History, Key, Offset, Publication, PublishError,
    PublishResult, Standing, Terms,
};
use crate::ops::metrics::DropReason;
use crate::ops::telemetry::Telemetry;
use crate::shard::hub::Hub;
use crate::shard::inbox::Event;

mod keys;

/// See [`crate::model::broker::Broker`].
#[derive(Debug)]
pub(crate) struct MemoryBroker {
    hub: Arc<Hub>,
    telemetry: Telemetry,
    terms: Terms,
    snapshots: Snapshots,
    /// Tells the traces of this process' messages from those of others.
    epoch: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Shards with members, for every channel that has any; all shards take broadcasts.
    interest: HashMap<Channel, Vec<usize>>,
    accepted: u64,
    keys: Keys,
}

impl MemoryBroker {
    pub(crate) fn new(
        hub: Arc<Hub>,
        telemetry: Telemetry,
        terms: Terms,
        snapshots: Snapshots,
    ) -> Self {
        let (epoch, state) = (Uuid::new_v4().to_string(), Mutex::default());
        Self { hub, telemetry, terms, snapshots, epoch, state }
    }

    /// Takes a message, unless its key says that it was taken before.
    fn take(&self, state: &mut State, key: Option<&Key>, delivery: &mut Delivery) -> PublishResult {
        let (channel, now) = (&delivery.channel, delivery.accepted_at);
        if !self.terms.allows(&delivery.frame) {
            return Err(PublishError::TooLong);
        }
        let key = match key {
            Some(Key::Given(key)) => Some(key),
            // No answer is lost here, so what was accepted is not sent again.
            Some(Key::End { .. }) | None => None,
        };
        if !self.terms.keeps(channel) {
            let result = if key.is_some() {
                Err(PublishError::KeyUnkept)
            } else {
                self.accept(state, delivery)
            };
            return result.map(|_| Accepted::Unkept);
        }
        if let Some(first) = key.and_then(|key| state.keys.find(channel, key, now)) {
            return Ok(Accepted::Duplicate(first));
        }
        let offset = self.accept(state, delivery)?;
        if let Some(key) = key {
            let until = now + self.snapshots.latest().limits.idempotency_age;
            state.keys.add((delivery.channel.clone(), Arc::clone(key)), offset, until);
        }
        Ok(Accepted::At(offset))
    }

    /// Puts a message into the inbox of every shard with members, or into none.
    fn accept(&self, state: &mut State, delivery: &mut Delivery) -> Result<Offset, PublishError> {
        let all: Vec<usize>;
        let shards = match &delivery.channel {
            Channel::Broadcast => {
                all = (0..self.hub.shard_count()).collect();
                all.as_slice()
            }
            channel => state.interest.get(channel).map_or(&[][..], Vec::as_slice),
        };
        if shards.iter().any(|shard| self.hub.inbox(*shard).is_full()) {
            return Err(PublishError::Overload);
        }
        state.accepted += 1;
        delivery.trace = self.telemetry.tracer.message("", &self.epoch, state.accepted);
        for shard in shards {
            self.hub.inbox(*shard).push(Event::Deliver(delivery.clone()));
        }
        Ok(Offset(state.accepted))
    }
}

impl Broker for MemoryBroker {
    fn publish(&self, publications: &mut Vec<Publication>) {
        let accepted_at = Instant::now();
        let (mut accepted, mut repeated, mut refused) = (0, 0, 0);
        if self.hub.budget().is_tight() {
            return self.hub.refuse_for_memory(publications);
        }
        let mut state = self.state.lock();
        for publication in publications.drain(..) {
            let is_end = publication.is_end();
            let Publication { channel, frame, key, receipt } = publication;
            let mut delivery = Delivery { channel, frame, accepted_at, trace: None };
            let result = self.take(&mut state, key.as_ref(), &mut delivery);
            if result.is_ok() {
                let kind = delivery.channel.kind();
                self.telemetry.tracer.published(delivery.trace, receipt.trace, kind, receipt.since);
            }
            match result {
                Ok(Accepted::Duplicate(_)) => repeated += 1,
                Ok(_) => accepted += 1,
                Err(PublishError::Overload) => refused += usize::from(!is_end),
                Err(_) => {}
            }
            self.hub.answer(receipt, result);
        }
        drop(state);
        self.telemetry.metrics.published.inc_by(accepted);
        self.telemetry.metrics.duplicates.inc_by(repeated);
        if refused > 0 {
            self.telemetry.metrics.count_dropped(DropReason::Overload, refused);
        }
    }

    fn subscribe(&self, shard: usize, channel: &Channel) -> Standing {
        let mut state = self.state.lock();
        let shards = state.interest.entry(channel.clone()).or_default();
        if !shards.contains(&shard) {
            shards.push(shard);
        }
        self.telemetry.metrics.channels.set(crate::ops::metrics::as_i64(state.interest.len()));
        Standing::Confirmed
    }

    fn has_begun(&self) -> bool {
        true
    }

    fn history(
        &self,
        _channel: &Channel,
        _after: Offset,
        _limit: usize,
    ) -> BoxFuture<'_, Result<Option<History>, PublishError>> {
        Box::pin(ready(Ok(None)))
    }

    fn unsubscribe(&self, shard: usize, channel: &Channel) {
        let mut state = self.state.lock();
        if let Some(shards) = state.interest.get_mut(channel) {
            shards.retain(|other| *other != shard);
            if shards.is_empty() {
                state.interest.remove(channel);
            }
        }
        self.telemetry.metrics.channels.set(crate::ops::metrics::as_i64(state.interest.len()));
    }
}
