//! The channels this node subscribes to, and which shards want them.
//!
//! One lock, held while a message is put into the shards' inboxes, so that all see one order. Lock order: this one, then an
//! inbox. Nothing here waits for Redis.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::track::{Reading, Step, Track, Verdict};
use crate::broker::{Channel, Delivery, PublishError, Standing};
use crate::hub::Hub;
use crate::inbox::Event;
use crate::metrics::{GaugeGuard, Metrics, Recovery};

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Channels {
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// Told when there is something to read.
    pub(super) to_read: Notify,
    /// Told when a channel is not subscribed to any more, though it is wanted.
    pub(super) astray: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By name in Redis.
    entries: HashMap<String, Entry>,
    /// Names of channels of which the stream has to be read.
    unread: HashSet<String>,
    /// Names of channels that their servers have given away.
    astray: HashSet<String>,
}

#[derive(Debug)]
struct Entry {
    channel: Channel,
    shards: Vec<usize>,
    /// Shards to be told once the subscription stands.
    waiting: Vec<usize>,
    track: Track,
    /// Broadcasts are nothing to be a member of.
    _counted: Option<GaugeGuard>,
}

/// What the reader does next with a channel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Done,
    Again,
}

impl Channels {
    pub(super) fn new(hub: Arc<Hub>, metrics: Arc<Metrics>) -> Self {
        Self { hub, metrics, state: Mutex::default(), to_read: Notify::new(), astray: Notify::new() }
    }

    /// Adds a shard's interest; `true` with it if Redis has to be asked to subscribe.
    pub(super) fn add(&self, name: &str, channel: &Channel, shard: usize) -> (Standing, bool) {
        let mut state = self.state.lock();
        let is_new = !state.entries.contains_key(name);
        let entry = state.entries.entry(name.to_owned()).or_insert_with(|| Entry {
            channel: channel.clone(),
            shards: Vec::new(),
            waiting: Vec::new(),
            track: Track::default(),
            _counted: (*channel != Channel::Broadcast).then(|| GaugeGuard::new(&self.metrics.channels)),
        });
        if !entry.shards.contains(&shard) {
            entry.shards.push(shard);
        }
        let standing = if entry.track.has_begun() {
            Standing::Confirmed
        } else {
            entry.waiting.push(shard);
            Standing::Pending
        };
        (standing, is_new)
    }

    /// Returns whether a channel's subscription has stood.
    pub(super) fn has_begun(&self, name: &str) -> bool {
        self.state.lock().entries.get(name).is_some_and(|entry| entry.track.has_begun())
    }

    /// Ends a shard's interest; `true` if Redis has to be asked to unsubscribe.
    pub(super) fn remove(&self, name: &str, shard: usize) -> bool {
        let mut state = self.state.lock();
        let Some(entry) = state.entries.get_mut(name) else { return false };
        entry.shards.retain(|other| *other != shard);
        let is_last = entry.shards.is_empty();
        if is_last {
            state.entries.remove(name);
            state.unread.remove(name);
        }
        is_last
    }

    /// Returns the names that a new connection is for; from now on nothing of them is delivered as it comes until it has
    /// been read.
    pub(super) fn suspect_all(&self, is_for: impl Fn(&str) -> bool) -> Vec<String> {
        let mut state = self.state.lock();
        let State { entries, unread, astray } = &mut *state;
        let mut names = Vec::new();
        for (name, entry) in entries.iter_mut().filter(|(name, _)| is_for(name)) {
            entry.track.suspect();
            unread.remove(name);
            astray.remove(name);
            names.push(name.clone());
        }
        names
    }

    /// Notes that a server does not have a channel any more; a channel that nobody wants does not matter.
    pub(super) fn went_astray(&self, name: &str) {
        let mut state = self.state.lock();
        if let Some(entry) = state.entries.get_mut(name) {
            entry.track.suspect();
            state.astray.insert(name.to_owned());
            drop(state);
            self.astray.notify_one();
        }
    }

    /// The same for all channels that have moved.
    pub(super) fn lead_astray(&self, has_moved: impl Fn(&str) -> bool) {
        let state = self.state.lock();
        let moved: Vec<String> = state.entries.keys().filter(|name| has_moved(name)).cloned().collect();
        drop(state);
        moved.iter().for_each(|name| self.went_astray(name));
    }

    /// Returns the channels to subscribe to anew.
    pub(super) fn take_astray(&self) -> Vec<String> {
        self.state.lock().astray.drain().collect()
    }

    /// Notes that Redis has confirmed subscriptions.
    pub(super) fn confirm(&self, names: &[String]) {
        let mut state = self.state.lock();
        for name in names {
            if state.entries.contains_key(name) {
                state.unread.insert(name.clone());
            }
        }
        drop(state);
        self.to_read.notify_one();
    }

    /// Tells shards that wait for a subscription that it will not come.
    pub(super) fn refuse_waiting(&self, is_lost: impl Fn(&str) -> bool) {
        let mut state = self.state.lock();
        for (_, entry) in state.entries.iter_mut().filter(|(name, _)| is_lost(name)) {
            let Entry { channel, waiting, .. } = entry;
            for shard in waiting.drain(..) {
                let result = Err(PublishError::Unavailable);
                self.hub.inbox(shard).push(Event::Subscribed { channel: channel.clone(), result });
            }
        }
    }

    /// Takes a message as it comes.
    pub(super) fn on_message(&self, name: &str, epoch: &str, offset: u64, frame: &Bytes) {
        let mut state = self.state.lock();
        let Some(entry) = state.entries.get_mut(name) else { return };
        let is_missing = match entry.track.on_message(epoch, offset) {
            Verdict::Ignore => false,
            Verdict::Repair => true,
            Verdict::Deliver => {
                let is_full = !entry.deliver(&self.hub, frame);
                if is_full {
                    entry.track.undo();
                }
                is_full
            }
        };
        if is_missing {
            state.unread.insert(name.to_owned());
            self.to_read.notify_one();
        }
    }

    /// Returns channels to read and after which offset, at most `count`.
    pub(super) fn take_unread(&self, count: usize) -> Vec<(String, u64)> {
        let mut state = self.state.lock();
        let names: Vec<String> = state.unread.iter().take(count).cloned().collect();
        for name in &names {
            state.unread.remove(name);
        }
        let offset = |name: &String| state.entries.get(name).map(|entry| entry.track.offset());
        names.into_iter().filter_map(|name| offset(&name).map(|offset| (name, offset))).collect()
    }

    /// Puts channels back to be read later.
    pub(super) fn put_back(&self, names: impl IntoIterator<Item = String>) {
        self.state.lock().unread.extend(names);
        self.to_read.notify_one();
    }

    /// Takes what was read of a channel's stream.
    pub(super) fn on_reading(&self, name: &str, reading: Reading<Bytes>) -> Next {
        let mut state = self.state.lock();
        let Some(entry) = state.entries.get_mut(name) else { return Next::Done };
        if entry.shards.iter().any(|shard| self.hub.inbox(*shard).is_full()) {
            return Next::Again;
        }
        let had_begun = entry.track.has_begun();
        match entry.track.on_reading(reading) {
            Step::Restart { forgotten } => {
                self.metrics.count_recovery(Recovery::Lost, 0, 0);
                tracing::warn!(
                    channel = name,
                    forgotten,
                    "Redis has forgotten messages that it had accepted"
                );
                Next::Again
            }
            Step::Deliver { messages, lost, done } => {
                messages.iter().for_each(|frame| entry.push(&self.hub, frame));
                if lost > 0 {
                    tracing::warn!(
                        channel = name,
                        lost,
                        "messages were lost: the stream does not hold them any more"
                    );
                }
                if had_begun && (lost > 0 || !messages.is_empty()) {
                    let recovery = if lost > 0 { Recovery::Lost } else { Recovery::Repaired };
                    self.metrics.count_recovery(recovery, messages.len(), lost);
                }
                for shard in entry.waiting.drain(..) {
                    self.hub
                        .inbox(shard)
                        .push(Event::Subscribed { channel: entry.channel.clone(), result: Ok(()) });
                }
                if done { Next::Done } else { Next::Again }
            }
        }
    }
}

impl Entry {
    /// Hands a message to all shards, or, if one is full, to none.
    fn deliver(&self, hub: &Hub, frame: &Bytes) -> bool {
        if self.shards.iter().any(|shard| hub.inbox(*shard).is_full()) {
            return false;
        }
        self.push(hub, frame);
        true
    }

    fn push(&self, hub: &Hub, frame: &Bytes) {
        let delivery =
            Delivery { channel: self.channel.clone(), frame: frame.clone(), accepted_at: Instant::now() };
        for shard in &self.shards {
            hub.inbox(*shard).push(Event::Deliver(delivery.clone()));
        }
    }
}
