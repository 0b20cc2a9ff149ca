//! Answers to clients, in the order of their requests, some of which wait for the broker.

use bytes::Bytes;

use super::Shard;
use crate::model::broker::{Channel, PublishError, Wait};
use crate::shard::connection::answers::Joined;
use crate::shard::outbox::ENTRY;

impl Shard {
    /// Answers a client, behind what it has asked before. If more waits than a client may have
    /// waiting, the joins that hold it back are given up.
    pub(super) fn reply(&mut self, key: usize, frame: Bytes) {
        let limit = self.snapshot.limits.outbox_bytes;
        let Some(connection) =
            self.connections.get_mut(key).filter(|connection| connection.is_open())
        else {
            return;
        };
        if !connection.answers.is_waiting() {
            return self.send(key, frame);
        }
        let before = connection.answers.load();
        let is_full = before.all + frame.len() + ENTRY > limit;
        connection.answers.push(frame);
        self.tally.held(before, connection.answers.load());
        if is_full {
            for channel in connection.answers.channels() {
                self.settle(key, &channel, Joined::TooMany);
                self.leave(key, &channel);
            }
        }
    }

    /// A subscription stands, or will not: those who wait for it are told, and in the latter case
    /// are no members.
    pub(super) fn on_subscribed(
        &mut self,
        channel: &Channel,
        wait: Wait,
        result: Result<(), PublishError>,
    ) {
        if self.joining.get(channel) != Some(&wait) {
            return;
        }
        self.joining.remove(channel);
        for key in self.members.of(channel).to_vec() {
            self.settle(key, channel, if result.is_ok() { Joined::Yes } else { Joined::Refused });
            if result.is_err() {
                self.leave(key, channel);
            }
        }
    }

    /// Tells who waits for a membership of a connection what became of it.
    pub(super) fn settle(&mut self, key: usize, channel: &Channel, outcome: Joined) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let (id, before) = (connection.ticket.record().id, connection.answers.load());
        connection.answers.settle(&id, channel, outcome);
        self.tally.held(before, connection.answers.load());
        self.release(key);
    }

    /// The same for all of its memberships.
    pub(super) fn settle_all(&mut self, key: usize, outcome: Joined) {
        let channels = self.connections.get(key).map(|connection| connection.answers.channels());
        for channel in channels.into_iter().flatten() {
            self.settle(key, &channel, outcome);
        }
    }

    /// Drops the answers that wait, of a connection that is told no more.
    pub(super) fn forget_answers(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key) {
            self.tally.unqueued(std::mem::take(&mut connection.answers).load());
        }
    }

    /// Sends the answers that wait for none before them any more.
    fn release(&mut self, key: usize) {
        while let Some(connection) = self.connections.get_mut(key) {
            let before = connection.answers.load();
            let Some(batch) = connection.answers.next() else { return };
            self.tally.held(before, connection.answers.load());
            self.enqueue_unbounded(key, batch);
        }
    }
}

#[cfg(test)]
mod tests;
