//! From outboxes to sockets.

use bytes::Bytes;
use mio::{Interest, Token};

use super::Shard;
use crate::protocol::close::Close;
use crate::protocol::codec::{Opcode, encode};
use crate::shard::connection::Reading;
use crate::shard::outbox::Batch;

/// Bytes that may wait for a client before pongs take each other's places.
const PONGS_BYTES: usize = 16 << 10;

impl Shard {
    /// Sends a frame to one connection, if it is open; a full outbox closes it.
    pub(super) fn send(&mut self, key: usize, frame: Bytes) {
        if !self.connections.get(key).is_some_and(|connection| connection.is_open()) {
            return;
        }
        if self.make_room(key, frame.len()) {
            self.enqueue_unbounded(key, frame.into());
        } else {
            self.close_slow(key);
        }
    }

    /// Returns whether an outbox takes that many bytes, after writing what the socket takes.
    pub(super) fn make_room(&mut self, key: usize, bytes: usize) -> bool {
        let limit = self.snapshot.limits.outbox_bytes;
        let has_room = |shard: &Self| {
            shard
                .connections
                .get(key)
                .is_some_and(|connection| connection.outbox.has_room(bytes, limit))
        };
        if !has_room(self) {
            self.write(key);
        }
        has_room(self)
    }

    /// Puts frames into an outbox whatever it holds; for those who have asked, and for close
    /// frames.
    pub(super) fn enqueue_unbounded(&mut self, key: usize, batch: Batch) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let frames = batch.frames;
        self.tally.queued(frames, connection.outbox.push(batch));
        self.write_soon(key);
    }

    /// Answers a ping. While much waits, at most one pong does: a client that asks and does not
    /// read holds no more with it.
    pub(super) fn pong(&mut self, key: usize, payload: &[u8]) {
        let waits = |shard: &Self| {
            shard.connections.get(key).is_some_and(|one| one.outbox.bytes() > PONGS_BYTES)
        };
        if waits(self) && self.connections.get(key).is_some_and(|connection| !connection.is_stuck())
        {
            self.write(key);
        }
        let Some(connection) =
            self.connections.get_mut(key).filter(|connection| connection.is_open())
        else {
            return;
        };
        let pong = Batch::from(encode(Opcode::Pong, payload));
        if connection.outbox.bytes() <= PONGS_BYTES {
            return self.enqueue_unbounded(key, pong);
        }
        let before = connection.outbox.load();
        connection.outbox.push_pong(pong);
        self.tally.queued(1, connection.outbox.load());
        self.tally.unqueued(before);
        self.write_soon(key);
    }

    /// Looks at a connection at the end of this turn.
    pub(super) fn write_soon(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push(key);
        }
    }

    /// Writes to every connection that has something new, once.
    pub(super) fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            self.inbox.steps.step();
            if let Some(connection) = self.connections.get_mut(key) {
                connection.dirty = false;
                self.write(key);
            }
        }
        // Closing a connection may have made others dirty; their turn is the next one. The buffer
        // is kept.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    /// Writes what the socket takes.
    pub(super) fn write(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let before = connection.outbox.load();
        let written = connection.write(self.now);
        self.tally.unqueued(before - connection.outbox.load());
        let Ok(written) = written else { return self.remove(key) };
        self.tally.written(written.bytes);
        if !written.all {
            self.watch_writes(key);
            self.schedule(key);
            return;
        }
        let awaits_answer = connection.awaits_answer();
        if connection.hung_up && connection.is_finished() && connection.reading == Reading::OnEvent
        {
            self.remove(key);
        } else if connection.reading == Reading::Held {
            connection.reading = Reading::Queued;
            self.unread.push(key);
        }
        if awaits_answer {
            self.schedule(key);
        }
    }

    /// Has the event loop tell from now on when a socket that took no more takes more. Most never
    /// need it.
    fn watch_writes(&mut self, key: usize) {
        let Some(connection) =
            self.connections.get_mut(key).filter(|connection| !connection.writes_watched)
        else {
            return;
        };
        let Some(stream) = &mut connection.stream else { return };
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self.poll.registry().reregister(stream, Token(key), interest) {
            Ok(()) => connection.writes_watched = true,
            Err(error) => {
                tracing::warn!(conn.id = %connection.ticket.record().id, %error, "the event loop cannot watch a connection");
                self.remove(key);
            }
        }
    }

    /// Closes a connection that does not keep up; what no byte of has been written is dropped, and
    /// the close code says so.
    pub(super) fn close_slow(&mut self, key: usize) {
        let Some(connection) =
            self.connections.get_mut(key).filter(|connection| connection.is_open())
        else {
            return;
        };
        let before = connection.outbox.load();
        let dropped = connection.outbox.discard_unsent();
        self.tally.unqueued(before - connection.outbox.load());
        self.forget_answers(key);
        self.parts.telemetry.metrics.count_slow_consumer(dropped);
        self.close(key, Close::SlowConsumer);
    }
}
