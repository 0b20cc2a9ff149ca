//! Closes a shard's connections, spread over a time, those that have been silent longest first.

use std::time::Duration;

use super::Shard;
use super::draining::Draining;
use crate::protocol::close::Close;

impl Shard {
    /// Plans the closing of all connections that are left within a time; a plan that there was is
    /// changed.
    pub(super) fn drain(&mut self, within: Duration) {
        if let Some(draining) = &mut self.draining {
            draining.retain(|id| self.by_id.contains_key(id));
            return draining.spread(self.now, within);
        }
        let mut order: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.is_open())
            .map(|(_, connection)| (connection.last_message(), connection.ticket.record().id))
            .collect();
        order.sort_by_key(|(last_message, _)| *last_message);
        let queue = order.into_iter().map(|(_, id)| id).collect();
        self.draining = Some(Draining::new(queue, self.now, within));
    }

    /// Closes those whose moment has come.
    pub(super) fn continue_drain(&mut self) {
        while let Some(draining) = &mut self.draining
            && let Some(id) = draining.pop_due(self.now, |id| self.by_id.contains_key(id))
        {
            if let Some(key) = self.by_id.get(&id).copied() {
                self.close(key, Close::Drain);
            }
        }
    }
}
