//! From the inbox to outboxes.

use std::time::SystemTime;

use bytes::Bytes;

use super::Shard;
use crate::broker::{Channel, Delivery};
use crate::gateway::frames;
use crate::id::ConnectionId;
use crate::inbox::{Event, PostOutcome, answer};
use crate::metrics::{DropReason, LagStage};

impl Shard {
    /// Acts on everything that other threads, and this one's own messages, ask for.
    pub(super) fn on_events(&mut self, work: &mut Vec<Event>) {
        for event in work.drain(..) {
            match event {
                Event::Deliver(delivery) => self.deliver(&delivery),
                Event::Expect { ticket, done } => self.expect(ticket, done),
                Event::Attach { id, socket: Some(socket) } => self.attach(&id, socket),
                Event::Attach { id, socket: None } => {
                    if let Some(key) = self.by_id.get(&id).copied() {
                        self.remove(key);
                    }
                }
                Event::Subscribed { channel, result } => self.on_subscribed(&channel, result),
                Event::PublishFailed { id, request } => {
                    if let Some(key) = self.key_of(&id) {
                        self.send(key, frames::internal_server_error(&id, &request));
                    }
                }
                Event::Post { id, frame, done } => {
                    let outcome = match self.key_of(&id) {
                        None => PostOutcome::Gone,
                        Some(key) if !self.make_room(key, &frame) => PostOutcome::Full,
                        Some(key) => {
                            self.hand_over(key, &frame);
                            PostOutcome::Sent
                        }
                    };
                    answer(done, outcome);
                }
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
                Event::List { query, done } => answer(done, self.list(&query)),
                Event::Drain { within } => self.drain(within),
                Event::Stop => self.stopped = true,
            }
        }
    }

    /// Hands a message to every member of its channel.
    fn deliver(&mut self, delivery: &Delivery) {
        let Delivery { channel, frame, accepted_at } = delivery;
        self.tally.lag(LagStage::Queue, self.now.saturating_duration_since(*accepted_at));
        let mut slow = Vec::new();
        match channel {
            Channel::Broadcast => {
                for key in 0..self.connections.capacity() {
                    self.deliver_to(key, frame, &mut slow);
                }
            }
            channel => {
                for index in 0.. {
                    let Some(key) = self.members.of(channel).get(index).copied() else { break };
                    self.deliver_to(key, frame, &mut slow);
                }
            }
        }
        for key in slow {
            self.parts.metrics.count_dropped(DropReason::SlowConsumer, 1);
            self.close_slow(key);
        }
        self.tally.delivered(*accepted_at);
    }
}

impl Shard {
    /// Hands a frame to one member; notes who cannot take it.
    fn deliver_to(&mut self, key: usize, frame: &Bytes, slow: &mut Vec<usize>) {
        let Some(connection) = self.connections.get_mut(key).filter(|connection| connection.is_open()) else {
            return;
        };
        let limit = self.parts.limits.outbox_bytes;
        if connection.outbox.has_room(frame, limit) || self.make_room(key, frame) {
            self.hand_over(key, frame);
        } else {
            slow.push(key);
        }
    }

    /// Puts a message that fits into an outbox.
    fn hand_over(&mut self, key: usize, frame: &Bytes) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.on_active(self.now);
            self.enqueue_unbounded(key, frame.clone());
        }
    }

    /// Returns the key of an open connection.
    pub(super) fn key_of(&self, id: &ConnectionId) -> Option<usize> {
        let key = self.by_id.get(id).copied()?;
        self.connections.get(key)?.is_open().then_some(key)
    }
}
