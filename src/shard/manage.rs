//! Memberships, whoever asks for them, and what callers of the management API ask of a shard
//! besides: pages of what it holds.
//!
//! Rule: a page costs its length and a look at the numbers of a channel's members, so that listing
//! a crowd does not hold up its messages.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Shard, members};
use crate::model::broker::{Channel, Standing};
use crate::model::id::ConnectionId;
use crate::model::listing::{Connections, Counts, Listed, Query, Row, Seat};
use crate::shard::connection::answers::Joined;
use crate::shard::inbox::{JoinOutcome, answer};

impl Shard {
    /// Makes a connection a member of a channel; returns whether messages come from now on.
    pub(super) fn join(&mut self, key: usize, channel: &Channel) -> Standing {
        let pending =
            || self.joining.get(channel).copied().map_or(Standing::Confirmed, Standing::Pending);
        let standing = match self.members.join(channel, key) {
            members::Change::None => return pending(),
            members::Change::Counted => pending(),
            members::Change::Edge => self.parts.broker.subscribe(self.index, channel),
        };
        match standing {
            Standing::Refused => drop(self.members.leave(channel, key)),
            Standing::Pending(wait) => {
                self.joining.insert(channel.clone(), wait);
                self.tally.joined();
            }
            Standing::Confirmed => self.tally.joined(),
        }
        standing
    }

    /// Ends a membership. Who still waits for its beginning is answered first: nothing was missed
    /// in between.
    pub(super) fn leave(&mut self, key: usize, channel: &Channel) {
        self.settle(key, channel, Joined::Yes);
        match self.members.leave(channel, key) {
            members::Change::None => return,
            members::Change::Counted => {}
            members::Change::Edge => {
                self.parts.broker.unsubscribe(self.index, channel);
                self.joining.remove(channel);
            }
        }
        self.tally.left(1);
    }

    /// Joins for a caller, who is told once messages come.
    pub(super) fn join_by_call(
        &mut self,
        id: &ConnectionId,
        group: Arc<str>,
        done: oneshot::Sender<JoinOutcome>,
    ) {
        let Some(key) = self.key_of(id) else { return answer(done, JoinOutcome::Gone) };
        let channel = Channel::Group(group);
        let has_room = self.members.count(key) < self.snapshot.limits.groups_per_connection;
        if !has_room && !self.members.is_member(&channel, key) {
            return answer(done, JoinOutcome::TooMany);
        }
        self.join_and_tell(key, channel, done);
    }

    /// Makes a connection a member, and tells when messages come.
    pub(super) fn join_and_tell(
        &mut self,
        key: usize,
        channel: Channel,
        done: oneshot::Sender<JoinOutcome>,
    ) {
        match self.join(key, &channel) {
            Standing::Confirmed => answer(done, JoinOutcome::Joined),
            Standing::Refused => answer(done, JoinOutcome::Refused),
            Standing::Pending(_) => {
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.answers.wait_for_caller(channel, done);
                }
            }
        }
    }

    /// Returns a page of what this shard holds.
    pub(super) fn list(&self, query: &Query) -> Listed {
        match query {
            Query::Connections { channel, from, limit } => {
                Listed::Connections(self.list_connections(channel, from.key, *limit))
            }
            Query::Groups { after, limit } => {
                Listed::Groups(self.members.groups_after(after, *limit))
            }
            Query::Counts => {
                Listed::Counts(Counts { connections: self.connections.len(), groups: 0 })
            }
            // Shards have none.
            Query::Functions => Listed::Functions(Vec::new()),
        }
    }

    /// Returns the members of a channel from a key on; a connection keeps its key as long as it is
    /// open.
    fn list_connections(&self, channel: &Channel, from: usize, limit: usize) -> Connections {
        let keys = match channel {
            Channel::Broadcast => self.open_keys(from).take(limit + 1).collect(),
            channel => first_of(self.members.of(channel), from, limit + 1),
        };
        let next = keys.get(limit).map(|key| Seat { shard: self.index, key: *key });
        let connections = keys.iter().take(limit).filter_map(|key| self.connections.get(*key));
        let open = connections.filter(|connection| connection.is_open());
        Connections {
            rows: open.map(|connection| Row::from(&**connection.ticket.record())).collect(),
            next,
        }
    }

    fn open_keys(&self, from: usize) -> impl Iterator<Item = usize> {
        let is_open =
            |key: &usize| self.connections.get(*key).is_some_and(|connection| connection.is_open());
        (from..self.connections.capacity()).filter(is_open)
    }
}

/// Returns the `count` smallest keys that are not below `from`, in order.
fn first_of(keys: &[usize], from: usize, count: usize) -> Vec<usize> {
    let mut keys: Vec<usize> = keys.iter().copied().filter(|key| *key >= from).collect();
    if keys.len() > count {
        keys.select_nth_unstable(count);
        keys.truncate(count);
    }
    keys.sort_unstable();
    keys
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pages_of_keys_are_all_keys_in_order(
            keys in prop::collection::hash_set(0..200_usize, 0..100),
            limit in 1..12_usize,
        ) {
            let keys: Vec<usize> = keys.into_iter().collect();
            let (mut seen, mut from) = (Vec::new(), 0);
            loop {
                let page = first_of(&keys, from, limit);
                prop_assert!(page.len() <= limit);
                let Some(last) = page.last() else { break };
                from = last + 1;
                seen.extend(page);
            }
            let mut expected = keys;
            expected.sort_unstable();
            prop_assert_eq!(seen, expected);
        }
    }
}
