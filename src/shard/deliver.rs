//! From the inbox to outboxes.

use std::iter::Peekable;
use std::time::SystemTime;
use std::vec::Drain;

use bytes::{Bytes, BytesMut};

use super::Shard;
use crate::model::broker::{Channel, Delivery};
use crate::model::id::ConnectionId;
use crate::ops::metrics::DropReason;
use crate::routing::gateway::frames;
use crate::shard::connection::Connection;
use crate::shard::inbox::{Event, PostOutcome, answer};
use crate::shard::outbox::Batch;

/// Longest batch of several messages. Longer ones gain nothing, and a slow client is sent one as a
/// whole.
const BATCH_BYTES: usize = 64 << 10;

/// Whether frames stay in an outbox for the end of the turn, since more may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stay {
    UntilFlush,
    /// They are the last of the inbox, and written while their connection is in the cache.
    No,
}

impl Shard {
    /// Acts on everything that other threads, and this one's own messages, ask for.
    pub(super) fn on_events(&mut self, work: &mut Vec<Event>) {
        let mut events = work.drain(..).peekable();
        while let Some(event) = events.next() {
            self.inbox.steps.step();
            match event {
                Event::Deliver(delivery) => self.deliver_run(delivery, &mut events),
                Event::Expect { ticket, done } => self.expect(ticket, done),
                Event::Attach { id, socket: Some(socket) } => self.attach(&id, socket),
                Event::Attach { id, socket: None } => {
                    if let Some(key) = self.by_id.get(&id).copied() {
                        self.remove(key);
                    }
                }
                Event::Subscribed { channel, wait, result } => {
                    self.on_subscribed(&channel, wait, result);
                }
                Event::PublishFailed { id, request } => {
                    if let Some(key) = self.key_of(&id) {
                        self.reply(key, frames::internal_server_error(&id, &request));
                    }
                }
                Event::Called { id, request, result, wants_reply } => {
                    self.on_called(&id, &request, result, wants_reply);
                }
                Event::Post { id, frame, done } => answer(done, self.post(&id, frame)),
                Event::LastActive { id, done } => {
                    let key = self.key_of(&id);
                    if let Some(connection) = key.and_then(|key| self.connections.get(key)) {
                        let age = self.now.saturating_duration_since(connection.last_message());
                        answer(done, SystemTime::now() - age);
                    }
                }
                Event::Close { id, close, done } => {
                    if let Some(key) = self.key_of(&id) {
                        self.close(key, close);
                        answer(done, ());
                    }
                }
                Event::Join { id, group, done } => self.join_by_call(&id, group, done),
                Event::Leave { id, group, done } => {
                    if let Some(key) = self.key_of(&id) {
                        self.leave(key, &Channel::Group(group));
                        answer(done, ());
                    }
                }
                Event::Groups { id, done } => {
                    if let Some(key) = self.key_of(&id) {
                        answer(done, self.members.groups_of(key));
                    }
                }
                Event::Room { channel, bytes, done } => {
                    answer(done, self.has_room(&channel, bytes));
                }
                Event::List { query, done } => answer(done, self.list(&query)),
                Event::Relieve => self.relieve(),
                Event::Adopt { snapshot } => self.adopt(snapshot),
                Event::Drain { within } => self.drain(within),
                Event::Stop => self.stopped = true,
            }
        }
    }

    /// Sends a frame to one connection.
    fn post(&mut self, id: &ConnectionId, frame: Bytes) -> PostOutcome {
        match self.key_of(id) {
            None => PostOutcome::Gone,
            Some(key) if !self.make_room(key, frame.len()) => PostOutcome::Full,
            Some(key) => {
                self.hand_over(key, frame.into());
                self.write_soon(key);
                PostOutcome::Sent
            }
        }
    }

    /// Hands a message to every member of its channel, together with those for the same members
    /// that follow it.
    fn deliver_run(&mut self, first: Delivery, rest: &mut Peekable<Drain<'_, Event>>) {
        let (channel, batch) = self.gather(first, rest);
        let stay = if rest.peek().is_some() { Stay::UntilFlush } else { Stay::No };
        let mut slow = Vec::new();
        match &channel {
            Channel::Broadcast => {
                for key in 0..self.connections.capacity() {
                    self.deliver_to(key, &batch, stay, &mut slow);
                }
            }
            channel => {
                let mut audience = std::mem::take(&mut self.audience);
                audience.extend_from_slice(self.members.of(channel));
                for key in audience.drain(..) {
                    self.deliver_to(key, &batch, stay, &mut slow);
                }
                self.audience = audience;
            }
        }
        for key in slow {
            self.parts
                .telemetry
                .metrics
                .count_dropped(DropReason::SlowConsumer, batch.frames as usize);
            self.close_slow(key);
        }
        self.settle_memory();
    }

    /// Joins messages that go to the same members into one batch. It is a copy of this shard's own
    /// even of a single message, because a reference count that all shards change costs more than
    /// the copy.
    fn gather(
        &mut self,
        first: Delivery,
        rest: &mut Peekable<Drain<'_, Event>>,
    ) -> (Channel, Batch) {
        let Delivery { channel, frame, accepted_at, trace } = first;
        self.tally.delivered(accepted_at, trace, self.now);
        if frame.len() > BATCH_BYTES {
            return (channel, Batch::shared(self.tally.share(frame), 1));
        }
        let mut frames = 1;
        let mut wire = BytesMut::from(frame.as_ref());
        while let Some(Event::Deliver(next)) = rest.next_if(|event| {
            matches!(event, Event::Deliver(next) if next.channel == channel && wire.len() + next.frame.len() <= BATCH_BYTES)
        }) {
            self.tally.delivered(next.accepted_at, next.trace, self.now);
            wire.extend_from_slice(&next.frame);
            frames += 1;
        }
        (channel, Batch::shared(self.tally.share(wire.freeze()), frames))
    }

    /// Hands frames to one member; notes who cannot take them.
    fn deliver_to(&mut self, key: usize, batch: &Batch, stay: Stay, slow: &mut Vec<usize>) {
        let Some(connection) =
            self.connections.get_mut(key).filter(|connection| connection.is_open())
        else {
            return;
        };
        let (bytes, limit) = (batch.wire.len(), self.snapshot.limits.outbox_bytes);
        if !connection.outbox.has_room(bytes, limit) && !self.make_room(key, bytes) {
            return slow.push(key);
        }
        self.hand_over(key, batch.clone());
        match stay {
            Stay::UntilFlush => self.write_soon(key),
            Stay::No => self.write(key),
        }
    }

    /// Returns whether every member of a channel could be handed that many bytes.
    fn has_room(&self, channel: &Channel, bytes: usize) -> bool {
        let limit = self.snapshot.limits.outbox_bytes;
        let fits = |connection: &Connection| {
            !connection.is_open() || connection.outbox.has_room(bytes, limit)
        };
        match channel {
            Channel::Broadcast => self.connections.iter().all(|(_, connection)| fits(connection)),
            channel => self
                .members
                .of(channel)
                .iter()
                .filter_map(|key| self.connections.get(*key))
                .all(fits),
        }
    }

    /// Puts messages that fit into an outbox.
    fn hand_over(&mut self, key: usize, batch: Batch) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.on_active(self.now);
            let frames = batch.frames;
            self.tally.queued(frames, connection.outbox.push(batch));
        }
    }

    /// Returns the key of an open connection.
    pub(super) fn key_of(&self, id: &ConnectionId) -> Option<usize> {
        let key = self.by_id.get(id).copied()?;
        self.connections.get(key)?.is_open().then_some(key)
    }
}
