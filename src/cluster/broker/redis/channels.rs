//! The channels this node subscribes to, and which shards want them.
//!
//! One lock, held while a message is put into the shards' inboxes, so that all see one order. Lock
//! order: this one, then an inbox. Nothing here waits for Redis.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

use self::entry::Entry;
use super::pace::RepairPace;
use super::track::{Track, Verdict};
use crate::model::broker::{Accepted, Channel, PublishError, PublishResult, Standing, Wait};
use crate::ops::metrics::{DropReason, GaugeGuard};
use crate::ops::telemetry::Telemetry;
use crate::shard::hub::Hub;

mod entry;
mod reading;

/// In place of an epoch: the message is neither counted nor kept, and is delivered as it comes.
pub(super) const UNKEPT: &str = "-";

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Channels {
    hub: Arc<Hub>,
    telemetry: Telemetry,
    /// Whether subscriptions that Redis cannot confirm count as confirmed.
    is_local: bool,
    state: Mutex<State>,
    /// Told when there is something to read, for each errand.
    to_read: [Notify; 2],
    /// Told when a channel is not subscribed to any more, though it is wanted.
    pub(super) moved: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By name in Redis.
    entries: HashMap<String, Entry>,
    /// Names of channels to read, for each errand; an entry that is not marked so is not meant any
    /// more.
    unread: [VecDeque<String>; 2],
    /// Names of channels that their servers have given away.
    moved: HashSet<String>,
    /// Whether the connection is gone.
    is_away: bool,
    /// Whether Redis has ever confirmed a subscription.
    has_stood: bool,
    /// How often somebody has waited.
    waits: u64,
    /// How often a channel was read.
    readings: u64,
}

/// What a channel is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// Where a subscription begins.
    Beginning,
    /// What was missed.
    Repair,
}

/// What is to be read of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) name: String,
    /// After which offset; `None` if only the channel's place is wanted.
    pub(super) after: Option<u64>,
    /// Of all readings on this node.
    number: u64,
}

/// What the reader does next with a channel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Done,
    Again,
    /// An inbox is full.
    Later,
}

impl Channels {
    /// `is_local`: whether members join while Redis is away.
    pub(super) fn new(hub: Arc<Hub>, telemetry: Telemetry, is_local: bool) -> Self {
        let (state, to_read, moved) = (Mutex::default(), Default::default(), Notify::new());
        Self { hub, telemetry, is_local, state, to_read, moved }
    }

    /// Adds a shard's interest; `true` with it if Redis has to be asked to subscribe.
    pub(super) fn add(
        &self,
        name: &str,
        channel: &Channel,
        is_kept: bool,
        shard: usize,
    ) -> (Standing, bool) {
        let mut state = self.state.lock();
        let is_alone = self.is_local && state.is_away && state.has_stood;
        state.waits += 1;
        let State { entries, waits, .. } = &mut *state;
        let is_new = !entries.contains_key(name);
        let entry = entries.entry(name.to_owned()).or_insert_with(|| Entry {
            channel: channel.clone(),
            is_kept,
            shards: Vec::new(),
            waiting: Vec::new(),
            track: Track::default(),
            is_promised: false,
            is_unread: false,
            reading: 0,
            pace: RepairPace::default(),
            _counted: (*channel != Channel::Broadcast)
                .then(|| GaugeGuard::new(&self.telemetry.metrics.channels)),
        });
        if !entry.shards.contains(&shard) {
            entry.shards.push(shard);
        }
        let standing = if entry.track.has_begun() || is_alone {
            entry.is_promised |= is_alone;
            Standing::Confirmed
        } else {
            entry.waiting.push((shard, Wait(*waits)));
            Standing::Pending(Wait(*waits))
        };
        (standing, is_new)
    }

    /// Returns whether a channel's subscription has stood.
    pub(super) fn has_begun(&self, name: &str) -> bool {
        self.state.lock().entries.get(name).is_some_and(|entry| entry.track.has_begun())
    }

    /// Ends a shard's interest; if it was the last, so that Redis has to be asked to unsubscribe,
    /// returns whether the channel has had messages.
    pub(super) fn remove(&self, name: &str, shard: usize) -> Option<bool> {
        let mut state = self.state.lock();
        let entry = state.entries.get_mut(name)?;
        entry.shards.retain(|other| *other != shard);
        entry.waiting.retain(|(other, _)| *other != shard);
        let is_last = entry.shards.is_empty();
        is_last.then(|| state.entries.remove(name).is_some_and(|entry| entry.track.is_used()))
    }

    /// Returns the names that a new connection is for; from now on nothing of them is delivered as
    /// it comes until it has been read.
    pub(super) fn suspect_all(&self, is_for: impl Fn(&str) -> bool) -> Vec<String> {
        let mut state = self.state.lock();
        state.is_away = false;
        let State { entries, moved, .. } = &mut *state;
        let mut names = Vec::new();
        for (name, entry) in entries.iter_mut().filter(|(name, _)| is_for(name)) {
            entry.track.suspect();
            entry.is_unread = false;
            moved.remove(name);
            names.push(name.clone());
        }
        names
    }

    /// Notes that a server does not have a channel any more; a channel that nobody wants does not
    /// matter.
    pub(super) fn mark_moved(&self, name: &str) {
        let mut state = self.state.lock();
        if let Some(entry) = state.entries.get_mut(name) {
            entry.track.suspect();
            state.moved.insert(name.to_owned());
            drop(state);
            self.moved.notify_one();
        }
    }

    /// The same for all channels that have moved.
    pub(super) fn mark_all_moved(&self, has_moved: impl Fn(&str) -> bool) {
        let state = self.state.lock();
        let moved: Vec<String> =
            state.entries.keys().filter(|name| has_moved(name)).cloned().collect();
        drop(state);
        moved.iter().for_each(|name| self.mark_moved(name));
    }

    /// Returns the channels to subscribe to anew.
    pub(super) fn take_moved(&self) -> Vec<String> {
        self.state.lock().moved.drain().collect()
    }

    /// Notes that Redis has confirmed subscriptions. One that stood already has ended in between: a
    /// shard left, and came back.
    pub(super) fn confirm(&self, names: &[String]) {
        let mut state = self.state.lock();
        state.has_stood = true;
        for name in names {
            match state.entries.get_mut(name) {
                Some(entry) if entry.is_kept => {
                    entry.track.suspect();
                    self.read_soon(&mut state, name);
                }
                Some(entry) => {
                    entry.track.begin();
                    entry.tell_waiting(&self.hub, Ok(()));
                }
                None => {}
            }
        }
    }

    /// Notes that a connection is gone: shards that wait for a subscription are told that it will
    /// not come, or that this node's own messages will.
    pub(super) fn refuse_waiting(&self, is_lost: impl Fn(&str) -> bool) {
        let mut state = self.state.lock();
        state.is_away = true;
        let is_alone = self.is_local && state.has_stood;
        let result = if is_alone { Ok(()) } else { Err(PublishError::Unavailable) };
        for (_, entry) in state.entries.iter_mut().filter(|(name, _)| is_lost(name)) {
            entry.is_promised |= is_alone && !entry.waiting.is_empty();
            entry.tell_waiting(&self.hub, result);
        }
    }

    /// Notes that a server does not let this node subscribe to a channel: shards that wait are
    /// told. Returns whether there are members who had its messages before.
    pub(super) fn refuse(&self, name: &str) -> bool {
        let mut state = self.state.lock();
        let Some(entry) = state.entries.get_mut(name) else { return false };
        entry.tell_waiting(&self.hub, Err(PublishError::Unavailable));
        entry.track.has_begun()
    }

    /// Hands a message that Redis has not seen to this node's members.
    pub(super) fn deliver_here(&self, name: &str, frame: &Bytes) -> PublishResult {
        let state = self.state.lock();
        match state.entries.get(name) {
            Some(entry) if !entry.deliver(&self.hub, frame, None) => Err(PublishError::Overload),
            _ => Ok(Accepted::Locally),
        }
    }

    /// Notes that Redis has accepted a message that this node has published.
    pub(super) fn on_accepted(&self, name: &str, epoch: &str, offset: u64) {
        if let Some(entry) = self.state.lock().entries.get_mut(name) {
            entry.track.on_accepted(epoch, offset);
        }
    }

    /// Takes a message as it comes.
    pub(super) fn on_message(&self, name: &str, epoch: &str, offset: u64, frame: &Bytes) {
        let mut state = self.state.lock();
        let Some(entry) = state.entries.get_mut(name) else { return };
        if epoch == UNKEPT {
            let missed = entry.pass(&self.hub, frame);
            return self.telemetry.metrics.count_dropped(DropReason::InboxFull, missed);
        }
        let is_missing = match entry.track.on_message(epoch, offset, clock) {
            Verdict::Ignore => false,
            Verdict::Repair => true,
            Verdict::Deliver => {
                let trace = self.telemetry.tracer.message(name, epoch, offset);
                let is_full = !entry.deliver(&self.hub, frame, trace);
                if is_full {
                    entry.track.undo();
                }
                is_full
            }
        };
        if is_missing {
            self.read_soon(&mut state, name);
        }
    }
}

/// Milliseconds since 1970.
fn clock() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::broker::redis::track::{Position, Reading};
    use crate::limits::budget::Budget;
    use crate::ops::metrics::{Metrics, Recovery};
    use crate::shard::EventLoop;
    use crate::shard::inbox::Event;

    struct Bench {
        channels: Channels,
        hub: Arc<Hub>,
        metrics: Arc<Metrics>,
        _event_loops: Vec<EventLoop>,
    }

    const NAME: &str = "gatecast:{group:ticks}";

    /// Two shards with members of a group.
    fn bench(is_local: bool, is_kept: bool) -> Bench {
        let budget = Arc::new(Budget::new(1 << 32, 2));
        let event_loops: Vec<_> = (0..2)
            .map(|index| EventLoop::open(&budget, index, 2).expect("an event loop"))
            .collect();
        let telemetry = Telemetry::without_spans().expect("metrics");
        let metrics = Arc::clone(&telemetry.metrics);
        let hub = Arc::new(Hub::new(
            event_loops.iter().map(EventLoop::inbox).collect(),
            Arc::clone(&metrics),
            budget,
        ));
        let channels = Channels::new(Arc::clone(&hub), telemetry, is_local);
        for shard in 0..2 {
            let (standing, is_new) = channels.add(NAME, &group(), is_kept, shard);
            assert!(matches!(standing, Standing::Pending(_)) && is_new == (shard == 0));
        }
        Bench { channels, hub, metrics, _event_loops: event_loops }
    }

    fn group() -> Channel {
        Channel::Group("ticks".into())
    }

    fn events(hub: &Hub, shard: usize) -> Vec<Event> {
        let mut events = Vec::new();
        hub.inbox(shard).take(&mut events);
        events
    }

    fn answers(hub: &Hub, shard: usize) -> Vec<Result<(), PublishError>> {
        let answer = |event| match event {
            Event::Subscribed { result, .. } => result,
            other => panic!("{other:?}"),
        };
        events(hub, shard).into_iter().map(answer).collect()
    }

    #[test]
    fn what_is_not_kept_is_dropped_for_a_full_shard_alone_and_counted() {
        let Bench { channels, hub, metrics, _event_loops } = bench(false, false);
        channels.confirm(&[NAME.to_owned()]);
        assert!(
            answers(&hub, 0) == [Ok(())] && answers(&hub, 1) == [Ok(())],
            "no stream has to be read"
        );
        assert!(channels.take_unread(Errand::Repair, 1).is_empty());
        let large = Bytes::from(vec![0; 8 << 20]);
        let mut count = 0;
        while !hub.inbox(1).is_full() {
            channels.on_message(NAME, UNKEPT, 0, &large);
            assert_eq!(events(&hub, 0).len(), 1);
            count += 1;
        }
        channels.on_message(NAME, UNKEPT, 0, &Bytes::from_static(b"missed"));
        assert_eq!(events(&hub, 0).len(), 1, "who keeps up has it");
        assert_eq!(events(&hub, 1).len(), count, "who does not has not");
        assert_eq!(metrics.dropped.with_label_values(&["inbox_full"]).get(), 1);
        channels.on_message(NAME, UNKEPT, 0, &Bytes::from_static(b"next"));
        assert_eq!((events(&hub, 0).len(), events(&hub, 1).len()), (1, 1));
        assert!(
            channels.take_unread(Errand::Repair, 1).is_empty(),
            "there is nothing to repair it from"
        );
    }

    #[test]
    fn without_redis_joins_are_refused_or_confirmed_here() {
        for is_local in [false, true] {
            let Bench { channels, hub, .. } = bench(is_local, true);
            channels.refuse_waiting(|_| true);
            let at_start = answers(&hub, 0);
            assert_eq!(at_start, [Err(PublishError::Unavailable)], "a node never begins alone");
            channels.suspect_all(|_| true);
            channels.confirm(&["another".to_owned()]);
            channels.add(NAME, &group(), true, 0);
            channels.refuse_waiting(|_| true);
            let expected = if is_local { Ok(()) } else { Err(PublishError::Unavailable) };
            assert_eq!(answers(&hub, 0), [expected]);
            let (standing, _) = channels.add("late", &group(), true, 1);
            assert_eq!(standing == Standing::Confirmed, is_local);
            channels.suspect_all(|_| true);
            let (standing, _) = channels.add("later", &group(), true, 1);
            assert_ne!(standing, Standing::Confirmed, "Redis is back");
        }
    }

    fn position(offset: u64) -> Reading<Bytes> {
        let now = Position { epoch: "e".to_owned(), offset };
        Reading { now, ..Reading::default() }
    }

    /// Has the channel read once more.
    fn ask(channels: &Channels) -> Request {
        channels.put_back(NAME);
        let [beginning, repair] =
            [Errand::Beginning, Errand::Repair].map(|errand| channels.take_unread(errand, 1).pop());
        beginning.or(repair).expect("a reading")
    }

    #[test]
    fn what_redis_has_accepted_and_left_before_anybody_read_it_is_counted() {
        let Bench { channels, metrics, .. } = bench(false, true);
        let read = |request: &Request| channels.on_reading(request, position(5));
        let lost = || metrics.recoveries.with_label_values(&[Recovery::Lost.label()]).get();
        assert_eq!(read(&ask(&channels)), Next::Done);
        channels.on_accepted(NAME, "e", 5);
        channels.on_accepted("nobody's", "f", 1);
        channels.suspect_all(|_| true);
        let before = ask(&channels);
        channels.on_accepted(NAME, "f", 6);
        assert_eq!((read(&before), lost()), (Next::Done, 0), "it may not have it yet");
        channels.suspect_all(|_| true);
        let (before, after) = (ask(&channels), ask(&channels));
        assert_eq!((read(&before), lost()), (Next::Done, 0), "there is a later one");
        assert_eq!((read(&after), lost()), (Next::Again, 1));
        assert_eq!((read(&ask(&channels)), lost()), (Next::Done, 1), "once");
    }

    #[test]
    fn a_reading_for_members_who_have_left_is_none_for_others() {
        let Bench { channels, .. } = bench(false, true);
        let request = ask(&channels);
        let left: Vec<_> = (0..2).map(|shard| channels.remove(NAME, shard)).collect();
        assert_eq!(left, [None, Some(false)]);
        channels.add(NAME, &group(), true, 0);
        assert_eq!(channels.on_reading(&request, position(5)), Next::Done);
        assert!(!channels.has_begun(NAME), "nobody listens there yet");
    }

    #[test]
    fn a_message_of_this_node_alone_has_no_place_in_the_channel() {
        let Bench { channels, hub, .. } = bench(true, true);
        assert_eq!(channels.on_reading(&ask(&channels), position(5)), Next::Done);
        answers(&hub, 0);
        assert_eq!(
            channels.deliver_here(NAME, &Bytes::from_static(b"here")),
            Ok(Accepted::Locally)
        );
        assert_eq!(channels.deliver_here("nobody's", &Bytes::new()), Ok(Accepted::Locally));
        channels.on_message(NAME, "e", 6, &Bytes::from_static(b"next"));
        assert_eq!(events(&hub, 0).len(), 2);
        assert!(channels.take_unread(Errand::Repair, 1).is_empty(), "no gap");
    }
}
