//! Closes a shard's connections, spread over a time, those that have been silent longest first.

use std::time::Duration;

use super::{Draining, Shard};
use crate::close::Close;
use crate::connection::jittered;

impl Shard {
    /// Plans the closing of all connections within `window`, or sooner if they are few.
    pub(super) fn start_drain(&mut self, window: Duration) {
        let mut order: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.is_open())
            .map(|(_, connection)| (connection.last_message(), connection.ticket.record().id))
            .collect();
        order.sort_by_key(|(last_message, _)| *last_message);
        let count = u32::try_from(order.len()).unwrap_or(u32::MAX).max(1);
        let own_rate = (self.parts.drain.min_rate / self.parts.hub.shard_count()).max(1);
        let longest = Duration::from_secs(1) / u32::try_from(own_rate).unwrap_or(u32::MAX);
        let every = (window / count).min(longest);
        let queue = order.into_iter().map(|(_, id)| id).collect();
        self.draining = Some(Draining { queue, every, next: self.now });
    }

    /// Closes those whose turn has come.
    pub(super) fn continue_drain(&mut self) {
        while let Some(draining) = &mut self.draining {
            if draining.next > self.now {
                return;
            }
            let Some(id) = draining.queue.pop_front() else { return };
            draining.next += jittered(draining.every);
            if let Some(key) = self.by_id.get(&id).copied() {
                self.close(key, Close::Drain);
            }
        }
    }
}
