//! Acts on what the clocks of connections say.

use super::Shard;
use crate::protocol::close::Close;
use crate::protocol::codec::{Opcode, encode};
use crate::shard::connection::{Connection, Due, Reading};

/// Stale timers that are not worth a look at all of them.
const STALE_TIMERS: usize = 1_024;

impl Shard {
    /// Sets a connection's timer if its next deadline is earlier than the timer that is set, or
    /// that one has fired.
    pub(super) fn schedule(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let at = connection.deadline(&self.snapshot.limits);
        if connection.timer_at <= self.now || at < connection.timer_at {
            connection.timer_at = at;
            self.timers.push(at, key);
            self.forget_stale_timers();
        }
    }

    /// Keeps clients that come and go from piling up timers until these fire: there are never more
    /// stale ones than valid ones, but for a few.
    fn forget_stale_timers(&mut self) {
        if self.timers.len() > 2 * self.connections.len() + STALE_TIMERS {
            let connections = &self.connections;
            self.timers.retain(|at, key| {
                connections.get(key).is_some_and(|connection| connection.timer_at == at)
            });
        }
    }

    /// Acts on every deadline that has passed.
    pub(super) fn fire_timers(&mut self) {
        while let Some((at, key)) = self.timers.pop_due(self.now) {
            let is_valid =
                self.connections.get(key).is_some_and(|connection| connection.timer_at == at);
            if is_valid {
                self.on_timer(key);
            }
        }
    }

    fn on_timer(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && matches!(connection.reading, Reading::Slowed { until } if until <= self.now)
        {
            connection.end_slowing(self.now);
            self.read_later(key);
        }
        // The kernel tells of room only when there is much; a client that reads slowly must not be
        // taken for one that does not.
        if self.connections.get(key).is_some_and(Connection::is_stuck) {
            self.write(key);
        }
        while let Some(connection) = self.connections.get_mut(key) {
            match connection.due(self.now, &self.snapshot.limits) {
                Due::Nothing => break,
                Due::Ping => {
                    let payload = connection.plan_pong(self.now, &self.snapshot.limits);
                    let ping = encode(Opcode::Ping, &payload);
                    self.enqueue_unbounded(key, ping.into());
                }
                Due::Close(Close::SlowConsumer) => self.close_slow(key),
                Due::Close(close) => self.close(key, close),
                Due::Cut(farewell) => self.cut(key, farewell),
            }
        }
        self.schedule(key);
    }
}
