//! Lists of what a node holds: connections, groups that have members, and functions.
//!
//! Rule: a list is handed out in pages, in an order in which what stays keeps its place, so that
//! whoever pages through sees everything that was there all the time exactly once. Connections keep
//! their seat in their shard; groups are in the order of their names.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::broker::Channel;
use crate::model::id::ConnectionId;
use crate::model::registry::Record;

/// Most entries of a page.
pub(crate) const PAGE_MAX: usize = 1_000;

/// What is asked of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Query {
    /// Members of a channel, at most this many.
    Connections { channel: Channel, from: Seat, limit: usize },
    /// Groups whose names come after `after`, at most this many.
    Groups { after: Arc<str>, limit: usize },
    /// How much there is.
    Counts,
    /// All functions, in the order of their names.
    Functions,
}

/// A page of a node, or of one of its shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Listed {
    Connections(Connections),
    Groups(Groups),
    Counts(Counts),
    Functions(Vec<Function>),
}

/// Lists the functions of this node.
pub(crate) trait Functions: fmt::Debug + Send + Sync {
    fn list(&self) -> Vec<Function>;
}

/// What a list tells of a function that a node runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) runtime: String,
    pub(crate) processes: Processes,
    /// Calls that a process works on.
    pub(crate) in_flight: usize,
    /// Calls that wait for one.
    pub(crate) waiting: usize,
    /// Why the last process that was started never asked for work.
    pub(crate) init_error: Option<String>,
}

/// Processes of a function by what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Processes {
    /// Started, and not asked for work yet.
    pub(crate) starting: usize,
    pub(crate) idle: usize,
    pub(crate) busy: usize,
    /// Being ended.
    pub(crate) ending: usize,
}

/// Where a connection stands in its node as long as it is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Seat {
    pub(crate) shard: usize,
    pub(crate) key: usize,
}

/// Connections by their seats.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Connections {
    pub(crate) rows: Vec<Row>,
    /// Where to go on; `None` at the end.
    pub(crate) next: Option<Seat>,
}

/// What a list tells of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) id: ConnectionId,
    pub(crate) user: Option<Arc<str>>,
    pub(crate) source_ip: IpAddr,
    pub(crate) connected_at: Timestamp,
}

/// Groups by their names, with how many members each has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Groups {
    pub(crate) rows: BTreeMap<Arc<str>, usize>,
    /// Whether there are more behind the last.
    pub(crate) more: bool,
}

/// How much a node holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) connections: usize,
    /// Groups that have members there.
    pub(crate) groups: usize,
}

impl From<&Record> for Row {
    fn from(record: &Record) -> Self {
        let Record { id, source_ip, user, connected_at, .. } = record;
        Self { id: *id, user: user.clone(), source_ip: *source_ip, connected_at: *connected_at }
    }
}

impl Groups {
    /// Adds another page that begins behind the same name: members of a group add up, and the first
    /// `limit` names stay.
    ///
    /// A page that is cut has `limit` names, so none of the first `limit` of all lies behind where
    /// it was cut.
    pub(crate) fn merge(&mut self, other: Self, limit: usize) {
        for (name, count) in other.rows {
            *self.rows.entry(name).or_default() += count;
        }
        self.more |= other.more;
        while self.rows.len() > limit {
            self.rows.pop_last();
            self.more = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(all: &BTreeMap<Arc<str>, usize>, after: &str, limit: usize) -> Groups {
        let rest: Vec<_> = all.iter().filter(|(name, _)| ***name > *after).collect();
        let rows =
            rest.iter().take(limit).map(|(name, count)| (Arc::clone(name), **count)).collect();
        Groups { rows, more: rest.len() > limit }
    }

    proptest! {
        #[test]
        fn paging_through_many_sources_shows_every_group_once_with_all_its_members(
            sources in prop::collection::vec(prop::collection::btree_map("[a-d]{1,3}", 1..9_usize, 0..40), 1..5),
            limit in 1..9_usize,
        ) {
            let sources: Vec<BTreeMap<Arc<str>, usize>> = sources
                .into_iter()
                .map(|source| source.into_iter().map(|(name, count)| (name.into(), count)).collect())
                .collect();
            let mut expected: BTreeMap<Arc<str>, usize> = BTreeMap::new();
            for (name, count) in sources.iter().flatten() {
                *expected.entry(Arc::clone(name)).or_default() += count;
            }
            let mut seen = Vec::new();
            let mut after: Arc<str> = "".into();
            loop {
                let mut merged = Groups::default();
                sources.iter().for_each(|source| merged.merge(page(source, &after, limit), limit));
                prop_assert!(merged.rows.len() <= limit);
                let last = merged.rows.last_key_value().map(|(name, _)| Arc::clone(name));
                seen.extend(merged.rows);
                match last {
                    Some(last) if merged.more => after = last,
                    _ => break,
                }
            }
            prop_assert_eq!(seen, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
