//! How a shard ends connections: closed with a frame, cut, or removed.

use super::Shard;
use super::connection::answers::Joined;
use super::connection::{Connection, Reading};
use crate::ops::metrics::{DropReason, Farewell};
use crate::protocol::close::Close;
use crate::protocol::codec::encode_close;

impl Shard {
    /// Ends all connections, so that no loss goes uncounted. Who has taken everything gets at least
    /// our close frame.
    pub(super) fn cut_all(&mut self) {
        for key in 0..self.connections.capacity() {
            self.close(key, Close::Drain);
            self.write(key);
            self.cut(key, Farewell::Cut);
        }
    }

    /// Starts to close a connection: our close frame goes behind whatever waits for it.
    pub(super) fn close(&mut self, key: usize, close: Close) {
        if !self.connections.get(key).is_some_and(Connection::is_open) {
            return;
        }
        // What was asked before is answered before.
        self.settle_all(key, Joined::Yes);
        let Some(connection) = self.connections.get_mut(key) else { return };
        let frame = match &close {
            Close::Client { code, .. } => encode_close(*code, ""),
            close => encode_close(close.code(), close.reason()),
        };
        if matches!(connection.reading, Reading::Held | Reading::Slowed { .. }) {
            connection.reading = Reading::Queued;
            self.unread.push(key);
        }
        self.enqueue_unbounded(key, frame.into());
        if let Some(connection) = self.connections.get_mut(key) {
            connection.on_closing(close, self.now);
        }
        self.schedule(key);
    }

    /// Gives up a connection whose client is owed something still, or has not said good-bye.
    pub(super) fn cut(&mut self, key: usize, farewell: Farewell) {
        let Some(connection) = self.connections.get(key) else { return };
        let messages = connection.outbox.messages();
        if messages > 0 {
            let id = connection.ticket.record().id;
            tracing::debug!(conn.id = %id, messages, outcome = farewell.label(), "cut, and messages lost with it");
            self.parts.telemetry.metrics.count_dropped(DropReason::Cut, messages);
            connection.ticket.count_cut();
        }
        self.end(key, Some(farewell));
    }

    /// Ends a connection whose client has gone, or said good-bye.
    pub(super) fn remove(&mut self, key: usize) {
        self.end(key, None);
    }

    pub(super) fn end(&mut self, key: usize, farewell: Option<Farewell>) {
        let Some(connection) = self.connections.try_remove(key) else { return };
        self.by_id.remove(&connection.ticket.record().id);
        let (index, broker, mut emptied) = (self.index, &self.parts.broker, Vec::new());
        let left = self.members.leave_all(key, |channel| {
            broker.unsubscribe(index, channel);
            emptied.push(channel.clone());
        });
        for channel in emptied {
            self.joining.remove(&channel);
        }
        self.tally.left(left);
        self.tally.unqueued(connection.outbox.load());
        self.tally.unqueued(connection.answers.load());
        self.tally.partial(connection.partial_bytes, 0);
        let (ticket, close, by_client) = connection.into_end();
        if let Some(farewell) = farewell.or(by_client) {
            self.parts.telemetry.metrics.count_farewell(farewell);
        }
        ticket.end(close);
    }
}
