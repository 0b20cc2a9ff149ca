//! Which channels' names clients have brought lately, and how many new ones an address may bring.
//!
//! A name costs every node that hears of it, and Redis until its messages are old. One that this
//! node has seen within the last minute is known, whoever brings it; others count, for the
//! connection (its own bucket is in `connection::meter`) and for its address.
//!
//! Rule: strangers with any number of names cost no more memory than stands here: names are known
//! by hashes, in two generations of which the older is forgotten.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::limits::addresses::{Addresses, Who};
use crate::model::broker::Channel;

/// A generation ends after this time, or with this many names: some 1 MiB both together.
const GENERATION: (Duration, usize) = (Duration::from_secs(60), 32_768);

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Names {
    /// Keyed at random, so that nobody can choose names that pass for others'.
    hasher: RandomState,
    seen: Mutex<Seen>,
    addresses: Addresses,
}

#[derive(Debug)]
struct Seen {
    recent: HashSet<u64>,
    older: HashSet<u64>,
    /// When the recent generation began.
    since: Instant,
}

impl Default for Names {
    fn default() -> Self {
        let seen = Seen { recent: HashSet::new(), older: HashSet::new(), since: Instant::now() };
        Self { hasher: RandomState::new(), seen: Mutex::new(seen), addresses: Addresses::default() }
    }
}

impl Names {
    /// Returns whether this node has seen a channel lately; a group's sender or member has its name
    /// looked up with every message.
    pub(crate) fn knows(&self, channel: &Channel, now: Instant) -> bool {
        let name = self.hasher.hash_one(channel);
        let mut seen = self.seen.lock();
        seen.turn(now);
        seen.recent.contains(&name) || seen.older.contains(&name) && seen.recent.insert(name)
    }

    /// Notes a channel that was let pass.
    pub(crate) fn note(&self, channel: &Channel) {
        let name = self.hasher.hash_one(channel);
        self.seen.lock().recent.insert(name);
    }

    /// Takes a new channel out of the bucket of an address; returns false if there is none left.
    pub(crate) fn take(&self, a_second: Option<usize>, who: Who<'_>, now: Instant) -> bool {
        self.addresses.take(a_second, who, now)
    }
}

impl Seen {
    fn turn(&mut self, now: Instant) {
        let (age, count) = GENERATION;
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= age || self.recent.len() >= count {
            let recent = std::mem::take(&mut self.recent);
            self.older = if elapsed < 2 * age { recent } else { HashSet::new() };
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(number: usize) -> Channel {
        Channel::Group(number.to_string().into())
    }

    #[test]
    fn a_name_is_known_as_long_as_it_is_used_and_then_forgotten() {
        let (names, now, age) = (Names::default(), Instant::now(), GENERATION.0);
        assert!(!names.knows(&group(1), now));
        names.note(&group(1));
        for step in 1..5 {
            assert!(names.knows(&group(1), now + age * step), "step {step}");
        }
        assert!(names.knows(&group(1), now + age * 5));
        assert!(!names.knows(&group(2), now + age * 6));
        assert!(!names.knows(&group(1), now + age * 7));
    }

    #[test]
    fn any_number_of_names_costs_no_more_than_two_generations() {
        let (names, now) = (Names::default(), Instant::now());
        for number in 0..5 * GENERATION.1 {
            assert!(!names.knows(&group(number), now));
            names.note(&group(number));
        }
        let seen = names.seen.lock();
        assert!(seen.recent.len() + seen.older.len() <= 2 * GENERATION.1);
        drop(seen);
        assert!(names.knows(&group(5 * GENERATION.1 - 1), now), "the latest are known");
    }
}
