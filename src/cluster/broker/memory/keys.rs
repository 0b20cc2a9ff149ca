//! Keys of messages that were accepted, so that none is accepted twice.
//!
//! Bounded in number and age; the oldest are forgotten first.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::broker::{Channel, Offset};

/// Most keys that are remembered; with keys of 64 bytes some 20 MiB.
const KEYS_MAX: usize = 65_536;

type Key = (Channel, Arc<str>);

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Keys {
    max_age: Duration,
    offsets: HashMap<Key, Offset>,
    by_age: VecDeque<(Instant, Key)>,
}

impl Keys {
    pub(super) fn new(max_age: Duration) -> Self {
        Self { max_age, offsets: HashMap::new(), by_age: VecDeque::new() }
    }

    /// Returns where the message of a key was accepted.
    pub(super) fn find(&mut self, channel: &Channel, key: &Arc<str>, now: Instant) -> Option<Offset> {
        while let Some((since, _)) = self.by_age.front()
            && now.saturating_duration_since(*since) >= self.max_age
        {
            self.forget_oldest();
        }
        self.offsets.get(&(channel.clone(), Arc::clone(key))).copied()
    }

    /// Remembers a key that is new.
    pub(super) fn add(&mut self, channel: Channel, key: Arc<str>, offset: Offset, now: Instant) {
        if self.by_age.len() >= KEYS_MAX {
            self.forget_oldest();
        }
        self.offsets.insert((channel.clone(), Arc::clone(&key)), offset);
        self.by_age.push_back((now, (channel, key)));
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.by_age.pop_front() {
            self.offsets.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_remembered_for_their_age_and_channel() {
        let (age, began) = (Duration::from_secs(300), Instant::now());
        let mut keys = Keys::new(age);
        let (moon, key): (_, Arc<str>) = (Channel::Group("moon".into()), "one".into());
        keys.add(moon.clone(), Arc::clone(&key), Offset(7), began);
        let just_before = began + age - Duration::from_millis(1);
        assert_eq!(keys.find(&moon, &key, just_before), Some(Offset(7)));
        assert_eq!(keys.find(&Channel::Broadcast, &key, just_before), None);
        assert_eq!(keys.find(&moon, &key, began + age), None);
        assert!(keys.offsets.is_empty() && keys.by_age.is_empty());
    }

    #[test]
    fn more_keys_than_the_bound_push_out_the_oldest() {
        let now = Instant::now();
        let mut keys = Keys::new(Duration::from_secs(300));
        let key = |number: usize| Arc::<str>::from(number.to_string());
        for number in 0..=KEYS_MAX {
            keys.add(Channel::Broadcast, key(number), Offset(1), now);
        }
        assert_eq!(keys.offsets.len(), KEYS_MAX);
        assert_eq!(keys.find(&Channel::Broadcast, &key(0), now), None);
        assert!(keys.find(&Channel::Broadcast, &key(KEYS_MAX), now).is_some());
    }
}
