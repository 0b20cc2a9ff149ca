//! Keys of messages that were accepted, so that none is accepted twice.
//!
//! Bounded in number and age; the oldest are forgotten first.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::model::broker::{Channel, Offset};

/// Most keys that are remembered; with keys of 64 bytes some 20 MiB.
const KEYS_MAX: usize = 65_536;

type Key = (Channel, Arc<str>);

/// See the [module documentation](self).
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// Until when, and where the message of each was accepted.
    known: HashMap<Key, (Instant, Offset)>,
    by_age: VecDeque<(Instant, Key)>,
}

impl Keys {
    /// Returns where the message of a key was accepted.
    pub(super) fn find(
        &mut self,
        channel: &Channel,
        key: &Arc<str>,
        now: Instant,
    ) -> Option<Offset> {
        while self.by_age.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_oldest();
        }
        let (until, offset) = self.known.get(&(channel.clone(), Arc::clone(key)))?;
        // One that is remembered for less long than those before it is forgotten in its time.
        (*until > now).then_some(*offset)
    }

    /// Remembers a key that is new.
    pub(super) fn add(&mut self, key: Key, offset: Offset, until: Instant) {
        if self.by_age.len() >= KEYS_MAX {
            self.forget_oldest();
        }
        self.known.insert(key.clone(), (until, offset));
        self.by_age.push_back((until, key));
    }

    fn forget_oldest(&mut self) {
        if let Some((until, key)) = self.by_age.pop_front()
            && self.known.get(&key).is_some_and(|known| known.0 == until)
        {
            self.known.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const AGE: Duration = Duration::from_secs(300);

    #[test]
    fn keys_are_remembered_for_their_age_and_channel() {
        let (began, mut keys) = (Instant::now(), Keys::default());
        let (moon, key): (_, Arc<str>) = (Channel::Group("moon".into()), "one".into());
        keys.add((moon.clone(), Arc::clone(&key)), Offset(7), began + AGE);
        let just_before = began + AGE - Duration::from_millis(1);
        assert_eq!(keys.find(&moon, &key, just_before), Some(Offset(7)));
        assert_eq!(keys.find(&Channel::Broadcast, &key, just_before), None);
        assert_eq!(keys.find(&moon, &key, began + AGE), None);
        assert!(keys.known.is_empty() && keys.by_age.is_empty());
    }

    #[test]
    fn each_is_remembered_for_the_age_that_counted_when_it_came() {
        let (now, mut keys) = (Instant::now(), Keys::default());
        let key: Arc<str> = "short".into();
        keys.add((Channel::Broadcast, "long".into()), Offset(1), now + AGE);
        keys.add((Channel::Broadcast, Arc::clone(&key)), Offset(2), now + AGE / 10);
        assert_eq!(keys.find(&Channel::Broadcast, &key, now), Some(Offset(2)));
        assert_eq!(keys.find(&Channel::Broadcast, &key, now + AGE / 10), None);
        keys.add((Channel::Broadcast, Arc::clone(&key)), Offset(3), now + 2 * AGE);
        assert_eq!(
            keys.find(&Channel::Broadcast, &key, now + AGE),
            Some(Offset(3)),
            "its first place is gone"
        );
        assert_eq!(keys.find(&Channel::Broadcast, &key, now + 2 * AGE), None);
        assert!(keys.known.is_empty() && keys.by_age.is_empty());
    }

    #[test]
    fn more_keys_than_the_bound_push_out_the_oldest() {
        let (now, mut keys) = (Instant::now(), Keys::default());
        let key = |number: usize| Arc::<str>::from(number.to_string());
        for number in 0..=KEYS_MAX {
            keys.add((Channel::Broadcast, key(number)), Offset(1), now + AGE);
        }
        assert_eq!(keys.known.len(), KEYS_MAX);
        assert_eq!(keys.find(&Channel::Broadcast, &key(0), now), None);
        assert!(keys.find(&Channel::Broadcast, &key(KEYS_MAX), now).is_some());
    }
}
