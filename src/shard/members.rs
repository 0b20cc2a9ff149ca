//! Which of a shard's connections are in which channels.
//!
//! Joining and leaving cost the number of a connection's own channels, never the number of a
//! channel's members; handing out the members of a channel is one look-up and a slice.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use slab::Slab;

use crate::model::broker::Channel;
use crate::model::listing::Groups;

/// Memberships of one shard; connections are named by their keys in the shard.
#[derive(Debug, Default)]
pub(super) struct Members {
    groups: Slab<Group>,
    by_channel: HashMap<Channel, usize>,
    /// The groups among the channels, in the order in which they are listed.
    by_name: BTreeMap<Arc<str>, usize>,
    /// For every key, its memberships.
    of: Vec<Vec<Membership>>,
}

#[derive(Debug)]
struct Group {
    channel: Channel,
    keys: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Membership {
    group: usize,
    /// Where the key stands among the group's keys.
    position: usize,
}

/// What a change of membership did to the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing: it was so before.
    None,
    /// One member more, or less.
    Counted,
    /// The first member came, or the last went.
    Edge,
}

impl Members {
    /// Returns the keys of a channel's members.
    pub(super) fn of(&self, channel: &Channel) -> &[usize] {
        let group = self.by_channel.get(channel).and_then(|group| self.groups.get(*group));
        group.map_or(&[], |group| &group.keys)
    }

    /// Returns how many channels a connection is in.
    pub(super) fn count(&self, key: usize) -> usize {
        self.of.get(key).map_or(0, Vec::len)
    }

    /// Returns whether a connection is a member of a channel.
    pub(super) fn is_member(&self, channel: &Channel, key: usize) -> bool {
        let own = self.of.get(key).map_or(&[][..], Vec::as_slice);
        let group = self.by_channel.get(channel);
        own.iter().any(|membership| Some(&membership.group) == group)
    }

    /// Returns the names of a connection's groups, in order.
    pub(super) fn groups_of(&self, key: usize) -> Vec<Arc<str>> {
        let own = self.of.get(key).map_or(&[][..], Vec::as_slice);
        let mut names: Vec<Arc<str>> = own
            .iter()
            .filter_map(|membership| match &self.groups.get(membership.group)?.channel {
                Channel::Group(name) => Some(Arc::clone(name)),
                Channel::Broadcast | Channel::User(_) => None,
            })
            .collect();
        names.sort();
        names
    }

    /// Returns the first groups behind a name and how many members they have.
    pub(super) fn groups_after(&self, after: &str, limit: usize) -> Groups {
        let mut behind = self.by_name.range::<str, _>((Bound::Excluded(after), Bound::Unbounded));
        let members = |group: &usize| self.groups.get(*group).map_or(0, |group| group.keys.len());
        let rows =
            behind.by_ref().take(limit).map(|(name, group)| (Arc::clone(name), members(group)));
        Groups { rows: rows.collect(), more: behind.next().is_some() }
    }

    /// Adds a member.
    pub(super) fn join(&mut self, channel: &Channel, key: usize) -> Change {
        let group = match self.by_channel.get(channel) {
            Some(group) => *group,
            None => {
                let group =
                    self.groups.insert(Group { channel: channel.clone(), keys: Vec::new() });
                self.by_channel.insert(channel.clone(), group);
                if let Channel::Group(name) = channel {
                    self.by_name.insert(Arc::clone(name), group);
                }
                group
            }
        };
        if self.of.len() <= key {
            self.of.resize_with(key + 1, Vec::new);
        }
        let (Some(own), Some(joined)) = (self.of.get_mut(key), self.groups.get_mut(group)) else {
            return Change::None;
        };
        if own.iter().any(|membership| membership.group == group) {
            return Change::None;
        }
        own.push(Membership { group, position: joined.keys.len() });
        joined.keys.push(key);
        if joined.keys.len() == 1 { Change::Edge } else { Change::Counted }
    }

    /// Removes a member.
    pub(super) fn leave(&mut self, channel: &Channel, key: usize) -> Change {
        let Some(group) = self.by_channel.get(channel).copied() else { return Change::None };
        let Some(own) = self.of.get_mut(key) else { return Change::None };
        let Some(at) = own.iter().position(|membership| membership.group == group) else {
            return Change::None;
        };
        let membership = own.swap_remove(at);
        match self.remove(membership) {
            Some(_) => Change::Edge,
            None => Change::Counted,
        }
    }

    /// Removes all memberships of a connection; calls `emptied` with every channel that lost its
    /// last member, and returns how many memberships there were.
    pub(super) fn leave_all(&mut self, key: usize, mut emptied: impl FnMut(&Channel)) -> usize {
        let own = self.of.get_mut(key).map(std::mem::take).unwrap_or_default();
        for membership in &own {
            if let Some(channel) = self.remove(*membership) {
                emptied(&channel);
            }
        }
        own.len()
    }

    /// Takes a key out of its group; returns the channel if that was the last.
    fn remove(&mut self, Membership { group, position }: Membership) -> Option<Channel> {
        let left = self.groups.get_mut(group)?;
        left.keys.swap_remove(position);
        if let Some(moved) = left.keys.get(position) {
            let theirs =
                self.of.get_mut(*moved)?.iter_mut().find(|membership| membership.group == group)?;
            theirs.position = position;
        }
        if !left.keys.is_empty() {
            return None;
        }
        let Group { channel, .. } = self.groups.remove(group);
        self.by_channel.remove(&channel);
        if let Channel::Group(name) = &channel {
            self.by_name.remove(name);
        }
        Some(channel)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Join(u8, usize),
        Leave(u8, usize),
        LeaveAll(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0..6_u8, 0..9_usize).prop_map(|(channel, key)| Step::Join(channel, key)),
            2 => (0..6_u8, 0..9_usize).prop_map(|(channel, key)| Step::Leave(channel, key)),
            1 => (0..9_usize).prop_map(Step::LeaveAll),
        ];
        prop::collection::vec(step, 0..200)
    }

    fn channel(number: u8) -> Channel {
        Channel::Group(number.to_string().into())
    }

    proptest! {
        #[test]
        fn any_interleaving_leaves_members_as_the_model_says(steps in steps()) {
            let mut members = Members::default();
            let mut model: BTreeMap<u8, BTreeSet<usize>> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Join(number, key) => {
                        let set = model.entry(number).or_default();
                        let expected = match (set.insert(key), set.len()) {
                            (false, _) => Change::None,
                            (true, 1) => Change::Edge,
                            (true, _) => Change::Counted,
                        };
                        prop_assert_eq!(members.join(&channel(number), key), expected);
                    }
                    Step::Leave(number, key) => {
                        let set = model.entry(number).or_default();
                        let expected = match (set.remove(&key), set.len()) {
                            (false, _) => Change::None,
                            (true, 0) => Change::Edge,
                            (true, _) => Change::Counted,
                        };
                        prop_assert_eq!(members.leave(&channel(number), key), expected);
                    }
                    Step::LeaveAll(key) => {
                        let mut emptied = BTreeSet::new();
                        let count = members.leave_all(key, |channel| {
                            emptied.insert(format!("{channel:?}"));
                        });
                        let mut expected = (0, BTreeSet::new());
                        for (number, set) in &mut model {
                            expected.0 += usize::from(set.remove(&key));
                            if set.is_empty() && members.of(&channel(*number)).is_empty() {
                                expected.1.insert(format!("{:?}", channel(*number)));
                            }
                        }
                        prop_assert_eq!(count, expected.0);
                        prop_assert!(emptied.is_subset(&expected.1));
                    }
                }
                model.retain(|_, set| !set.is_empty());
                for number in 0..6 {
                    let expected = model.get(&number).cloned().unwrap_or_default();
                    let actual: BTreeSet<usize> = members.of(&channel(number)).iter().copied().collect();
                    prop_assert_eq!(actual, expected);
                }
                prop_assert_eq!(members.by_channel.len(), model.len(), "nothing is kept of empty channels");
                let listed: Vec<(String, usize)> =
                    members.groups_after("", 9).rows.iter().map(|(name, count)| (name.to_string(), *count)).collect();
                let expected: Vec<(String, usize)> =
                    model.iter().map(|(number, set)| (number.to_string(), set.len())).collect();
                prop_assert_eq!(listed, expected);
                for key in 0..9 {
                    let of: Vec<String> = members.groups_of(key).iter().map(ToString::to_string).collect();
                    let expected: Vec<String> =
                        model.iter().filter(|(_, set)| set.contains(&key)).map(|(number, _)| number.to_string()).collect();
                    prop_assert!(model.keys().all(|number| members.is_member(&channel(*number), key)
                        == expected.contains(&number.to_string())));
                    prop_assert_eq!(of, expected);
                }
            }
        }
    }
}
