//! Where a node stands in one channel: what it has delivered, and whether it may deliver the next
//! as it comes.
//!
//! Pure. Rules: a message is delivered as it comes only if it is the very next; whatever else comes
//! is read from the stream, in order, so that a gap is closed in place and nothing is delivered
//! twice. Where Redis goes on from another history, an older copy or one that was there before,
//! only what belongs behind everything delivered so far is delivered ([`Past`]). What Redis is
//! known to have accepted, and has no more when it is read, is counted ([`Track::missing`]).

use std::collections::VecDeque;

/// Epochs of which a channel remembers what was delivered.
const EPOCHS_MAX: usize = 16;

/// The place of the last message delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Empty where the channel had no message yet.
    pub(super) epoch: String,
    pub(super) offset: u64,
}

/// An epoch in a channel's history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Epoch {
    pub(super) name: String,
    /// The offset after which it began.
    pub(super) after: u64,
    /// When it began, in milliseconds, and later than the one before: epochs of histories that have
    /// parted have one order.
    pub(super) since: u64,
}

/// See the [module documentation](self).
#[derive(Debug, Default)]
pub(super) struct Track {
    /// `None` until the place at which the subscription began is known.
    position: Option<Position>,
    /// The last epochs as of the last reading.
    epochs: Vec<Epoch>,
    past: Past,
    is_live: bool,
    /// Whether the next reading may be of another history without saying so: an epoch goes on in it
    /// that was left before.
    is_suspect: bool,
    /// The highest offset that came while not live, since the last reading was asked for.
    top: u64,
    /// The epoch whose first message came right behind the last delivery. Redis forgets a channel
    /// that is not used for long, and begins it anew; who has listened all the time has missed
    /// nothing.
    begun: Option<String>,
    /// What Redis is known to have accepted and has not been delivered: a place of each epoch. The
    /// history that it belongs to may be left before anybody has read it.
    accepted: Vec<Position>,
    /// The same as of when the last reading was asked for, which has it, or it is gone.
    asked: Vec<Position>,
}

/// What to do with a message that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Deliver,
    /// It has been delivered, or will be by the repair under way.
    Ignore,
    /// Something is missing before it: read the stream.
    Repair,
}

/// What was read of a channel: its epoch and offset, and the messages after the place asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading<M> {
    pub(super) now: Position,
    /// The last epochs.
    pub(super) epochs: Vec<Epoch>,
    /// By offset; without one, the place holds what no node has written.
    pub(super) messages: Vec<(u64, Option<M>)>,
    /// Whether there may be more messages.
    pub(super) is_cut: bool,
}

/// What a reading leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<M> {
    /// Deliver these, after `lost` that are lost; then `done` or read again.
    Deliver { messages: Vec<M>, lost: u64, done: bool },
    /// It goes on from another history. Redis has forgotten so many of the messages that were
    /// delivered, or of the epochs in which it had accepted others, and perhaps more; and so many
    /// that it has come too late for their place. With 0 it has begun the channel anew, and nothing
    /// was missed.
    Restart { forgotten: u64, late: u64 },
}

/// What was delivered of histories that Redis has left since. It may come back to them.
///
/// All nodes deliver by the age of epochs, and within one by offset; so what two of them have is in
/// one order whatever each has missed, and nothing comes twice. What a history holds that belongs
/// before the last delivery is late: delivering it now would contradict who had it in time.
#[derive(Debug, Default)]
struct Past {
    /// The highest offset of each epoch up to which all is settled: delivered, or lost, or before
    /// the subscription. Bounded; of the oldest that are forgotten, what is late counts as lost
    /// although it was perhaps delivered.
    settled: VecDeque<(String, u64)>,
    /// The youngest epoch that anything was settled of, and its offset.
    last: Option<(Epoch, u64)>,
}

impl Past {
    /// Adds a history that was settled up to a position.
    fn add(&mut self, history: &[Epoch], Position { epoch: own, offset }: &Position) {
        let is_listed = own.is_empty() || history.iter().any(|epoch| epoch.name == *own);
        let unlisted = (!is_listed).then(|| Epoch { name: own.clone(), after: 0, since: 0 });
        let unlisted = unlisted.iter().map(|epoch| (epoch, *offset));
        for (epoch, end) in
            unlisted.chain(parts(history, *offset)).filter(|(epoch, _)| epoch.after < *offset)
        {
            let known = self.settled.iter().position(|(name, _)| *name == epoch.name);
            let before =
                known.and_then(|at| self.settled.remove(at)).map_or(0, |(_, offset)| offset);
            let settled = before.max(end);
            self.settled.push_back((epoch.name.clone(), settled));
            if self
                .last
                .as_ref()
                .is_none_or(|(last, _)| last.name == epoch.name || last.age() < epoch.age())
            {
                self.last = Some((epoch.clone(), settled));
            }
        }
        while self.settled.len() > EPOCHS_MAX {
            self.settled.pop_front();
        }
    }

    /// Returns after which offset of a history that has so many messages delivery goes on, and how
    /// many messages before it have come too late.
    fn resume(&self, history: &[Epoch], offset: u64) -> (u64, u64) {
        let Some((last, last_offset)) = &self.last else { return (0, 0) };
        // Before the first epoch that is known there may be anything.
        let mut place = history.first().map_or(0, |first| first.after).min(offset);
        let mut settled = 0;
        for (epoch, end) in parts(history, offset) {
            if epoch.name == last.name {
                place = place.max(end.min(*last_offset));
            } else if epoch.age() < last.age() {
                place = place.max(end);
            }
            let own = self.settled.iter().find(|(name, _)| *name == epoch.name);
            settled = own.map_or(settled, |(_, offset)| settled.max(end.min(*offset)));
        }
        (place.max(settled), place.saturating_sub(settled))
    }
}

impl Epoch {
    fn age(&self) -> (u64, &str) {
        (self.since, &self.name)
    }
}

impl Position {
    /// Returns whether a history that has come so far has a message.
    fn holds(&self, history: &[Epoch], epoch: &str, offset: u64) -> bool {
        self.epoch == epoch && offset <= self.offset
            || parts(history, self.offset)
                .any(|(part, end)| part.name == epoch && part.after < offset && offset <= end)
    }
}

/// Notes the last place of an epoch. Of more epochs than Redis lists, one is missing for sure.
fn note(places: &mut Vec<Position>, epoch: &str, offset: u64) {
    if let Some(place) = places.iter_mut().find(|place| place.epoch == epoch) {
        place.offset = place.offset.max(offset);
    } else if places.len() < EPOCHS_MAX {
        places.push(Position { epoch: epoch.to_owned(), offset });
    }
}

/// Returns the epochs of a history that has so many messages, each with the offset at which it
/// ends.
fn parts(history: &[Epoch], offset: u64) -> impl Iterator<Item = (&Epoch, u64)> {
    let ends = history.iter().skip(1).map(move |next| next.after.min(offset)).chain([offset]);
    history.iter().zip(ends)
}

/// Returns the offset up to which two histories of a channel are the same: both go on alike to the
/// end of the last epoch that both have, in whichever it ended first. `None` if they have none in
/// common.
fn common(own: &[Epoch], other: &[Epoch]) -> Option<u64> {
    let end = |epochs: &[Epoch], at: usize| epochs.get(at + 1).map_or(u64::MAX, |next| next.after);
    own.iter().enumerate().rev().find_map(|(at, epoch)| {
        let there = other.iter().position(|candidate| candidate.name == epoch.name)?;
        Some(end(own, at).min(end(other, there)))
    })
}

impl Track {
    /// Returns the offset after which to read; `None` if only the place at which the subscription
    /// begins is wanted.
    pub(super) fn offset(&self) -> Option<u64> {
        self.position.as_ref().map(|position| position.offset)
    }

    /// Returns the same for a reading that is about to be asked for: it will have whatever has come
    /// until now.
    pub(super) fn begin_reading(&mut self) -> Option<u64> {
        self.top = 0;
        for Position { epoch, offset } in self.accepted.drain(..) {
            note(&mut self.asked, &epoch, offset);
        }
        self.offset()
    }

    /// Notes that Redis has accepted a message. It will come, or be read; if Redis has left its
    /// history by then, nobody else may know of it.
    pub(super) fn on_accepted(&mut self, epoch: &str, offset: u64) {
        let is_next = |position: &Position| position.epoch == epoch && offset > position.offset;
        if self.position.as_ref().is_some_and(is_next) || !self.is_settled(epoch, offset) {
            note(&mut self.accepted, epoch, offset);
        }
    }

    /// Returns whether a message was delivered, or will not be for a reason that was counted.
    fn is_settled(&self, epoch: &str, offset: u64) -> bool {
        self.past.settled.iter().any(|(name, end)| name == epoch && offset <= *end)
            || self
                .position
                .as_ref()
                .is_some_and(|position| position.holds(&self.epochs, epoch, offset))
    }

    /// Returns in how many epochs Redis has accepted what it does not have any more, though it was
    /// not read; what it has is still to be read.
    fn missing(&mut self, now: &Position, epochs: &[Epoch]) -> u64 {
        let mut asked = std::mem::take(&mut self.asked);
        asked.retain(|place| !self.is_settled(&place.epoch, place.offset));
        let known = asked.len();
        asked.retain(|place| now.holds(epochs, &place.epoch, place.offset));
        self.asked = asked;
        (known - self.asked.len()) as u64
    }

    /// Returns whether the channel has ever had a message, as far as is known.
    pub(super) fn is_used(&self) -> bool {
        self.position.as_ref().is_some_and(|position| !position.epoch.is_empty())
    }

    /// Returns whether the place at which the subscription began is known.
    pub(super) fn has_begun(&self) -> bool {
        self.position.is_some()
    }

    /// Notes that the subscription stands on a channel whose messages have no places.
    pub(super) fn begin(&mut self) {
        self.position.get_or_insert_default();
    }

    /// Notes that messages may be missing: a new connection, or a full queue.
    pub(super) fn suspect(&mut self) {
        self.is_live = false;
        self.is_suspect = true;
        self.begun = None;
        self.top = 0;
    }

    /// Takes back the last delivery, which found a queue full.
    pub(super) fn undo(&mut self) {
        if let Some(position) = &mut self.position {
            self.top = position.offset;
            note(&mut self.accepted, &position.epoch, position.offset);
            position.offset -= 1;
        }
        self.begun = None;
        self.is_live = false;
    }

    /// Takes a message as it comes; `clock` is asked for the time when an epoch begins.
    pub(super) fn on_message(
        &mut self,
        epoch: &str,
        offset: u64,
        clock: impl FnOnce() -> u64,
    ) -> Verdict {
        if !self.is_live {
            self.top = self.top.max(offset);
            self.on_accepted(epoch, offset);
            return Verdict::Ignore;
        }
        let Some(position) = &mut self.position else { return Verdict::Ignore };
        if position.epoch.is_empty() && offset == 1 {
            epoch.clone_into(&mut position.epoch);
            self.epochs = vec![Epoch { name: epoch.to_owned(), after: 0, since: clock() }];
        }
        if position.epoch == epoch && offset <= position.offset {
            return Verdict::Ignore;
        }
        if position.epoch == epoch && offset == position.offset + 1 {
            position.offset = offset;
            return Verdict::Deliver;
        }
        self.begun = (position.epoch != epoch && offset == 1).then(|| epoch.to_owned());
        self.is_live = false;
        self.top = offset;
        self.on_accepted(epoch, offset);
        Verdict::Repair
    }

    pub(super) fn on_reading<M>(&mut self, reading: Reading<M>) -> Step<M> {
        let Reading { now, epochs, messages, is_cut } = reading;
        let missing = self.missing(&now, &epochs);
        if missing > 0 {
            // What there is instead is in the next reading.
            return Step::Restart { forgotten: missing, late: 0 };
        }
        let known = std::mem::replace(&mut self.epochs, epochs);
        let Some(position) = &mut self.position else {
            // The subscription begins here; what came meanwhile is read in the next step.
            let done = self.top <= now.offset;
            self.position = Some(now);
            self.is_live = done;
            return Step::Deliver { messages: Vec::new(), lost: 0, done };
        };
        let may_be_late = std::mem::take(&mut self.is_suspect) && now.offset > position.offset;
        if position.epoch != now.epoch || may_be_late && self.past.last.is_some() {
            let shared = common(&known, &self.epochs);
            let begun = self
                .begun
                .take()
                .filter(|begun| self.epochs.iter().any(|epoch| epoch.name == *begun));
            self.past.add(&known, position);
            let (offset, late) = self.past.resume(&self.epochs, now.offset);
            let forgotten = position.offset.saturating_sub(shared.unwrap_or(0));
            let goes_on = offset == position.offset;
            *position = Position { epoch: now.epoch, offset };
            if forgotten > 0 || late > 0 || !goes_on {
                let is_anew = shared.is_none() && begun.is_some();
                return Step::Restart { forgotten: if is_anew { 0 } else { forgotten }, late };
            }
        }
        if now.offset < position.offset {
            // A replica has taken over that lagged. The next message begins an epoch, which says
            // since when.
            self.is_live = true;
            return Step::Deliver { messages: Vec::new(), lost: 0, done: true };
        }
        let mut last = position.offset;
        let (mut lost, mut new) = (0, Vec::new());
        // Behind the channel's own place there can be nothing of ours.
        let is_cut = is_cut && messages.last().is_some_and(|(offset, _)| *offset <= now.offset);
        for (offset, message) in messages {
            if offset <= last || offset > now.offset {
                continue;
            }
            lost += offset - last - u64::from(message.is_some());
            last = offset;
            new.extend(message);
        }
        if !is_cut && last < now.offset {
            lost += now.offset - last;
            last = now.offset;
        }
        position.offset = last;
        self.is_live = !is_cut && self.top <= last;
        Step::Deliver { messages: new, lost, done: self.is_live }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A channel as Redis keeps it: everything ever accepted, of which the stream holds the last
    /// `kept`.
    #[derive(Default)]
    struct Channel {
        accepted: Vec<u32>,
    }

    impl Channel {
        fn read(&self, after: u64, kept: usize, limit: usize) -> Reading<u32> {
            let offset = self.accepted.len() as u64;
            let held = (1..)
                .zip(self.accepted.iter().copied())
                .skip(self.accepted.len().saturating_sub(kept));
            let mut messages: Vec<_> = held
                .filter(|(offset, _)| *offset > after)
                .map(|(offset, one)| (offset, Some(one)))
                .collect();
            let is_cut = messages.len() > limit;
            messages.truncate(limit);
            let now = Position { epoch: "e".to_owned(), offset };
            Reading { now, epochs: Vec::new(), messages, is_cut }
        }
    }

    fn clock() -> u64 {
        1
    }

    fn epoch(name: &str, after: u64, since: u64) -> Epoch {
        Epoch { name: name.to_owned(), after, since }
    }

    fn begun() -> Track {
        let mut track = Track::default();
        track.on_reading(Reading::<u32>::default());
        track
    }

    proptest! {
        /// Whatever is lost on the way, every message comes once and in order, or is counted as
        /// lost.
        #[test]
        fn gaps_are_closed_in_order(
            fates in prop::collection::vec(any::<bool>(), 1..200), kept in 1_usize..50, limit in 1_usize..20,
        ) {
            let (mut track, mut channel) = (begun(), Channel::default());
            let (mut delivered, mut lost) = (Vec::new(), 0);
            for (number, arrives) in (0_u32..).zip(fates.iter().copied().chain([true])) {
                channel.accepted.push(number);
                let offset = channel.accepted.len() as u64;
                let verdict = if arrives { track.on_message("e", offset, clock) } else { Verdict::Ignore };
                match verdict {
                    Verdict::Deliver => delivered.push(number),
                    Verdict::Ignore => {}
                    Verdict::Repair => loop {
                        match track.on_reading(channel.read(track.offset().unwrap_or(0), kept, limit)) {
                            Step::Deliver { messages, lost: missing, done } => {
                                delivered.extend(messages);
                                lost += missing;
                                if done { break }
                            }
                            Step::Restart { .. } => panic!("there is one epoch"),
                        }
                    },
                }
            }
            prop_assert!(delivered.is_sorted_by(|a, b| a < b), "in order, none twice: {:?}", delivered);
            prop_assert_eq!(delivered.len() as u64 + lost, channel.accepted.len() as u64);
            if kept >= channel.accepted.len() {
                prop_assert_eq!(lost, 0);
            }
        }
    }

    #[test]
    fn messages_that_come_during_a_repair_are_read_with_it() {
        let (mut track, mut channel) = (begun(), Channel::default());
        channel.accepted.extend([1, 2, 3]);
        assert_eq!(track.on_message("e", 3, clock), Verdict::Repair);
        assert_eq!(track.on_message("e", 4, clock), Verdict::Ignore);
        let step = track.on_reading(channel.read(0, 10, 10));
        assert_eq!(
            step,
            Step::Deliver { messages: vec![1, 2, 3], lost: 0, done: false },
            "the fourth is still to come"
        );
        channel.accepted.push(4);
        let step = track.on_reading(channel.read(track.offset().unwrap_or(0), 10, 10));
        assert_eq!(step, Step::Deliver { messages: vec![4], lost: 0, done: true });
        assert_eq!(track.on_message("e", 4, clock), Verdict::Ignore, "not twice");
        assert_eq!(track.on_message("e", 5, clock), Verdict::Deliver);
    }

    #[test]
    fn new_epoch_is_read_from_its_start() {
        let mut track = begun();
        assert_eq!(track.on_message("a", 1, clock), Verdict::Deliver);
        assert_eq!(track.on_message("b", 2, clock), Verdict::Repair);
        let now = Position { epoch: "b".to_owned(), offset: 2 };
        let epochs = vec![epoch("b", 0, 2)];
        let after = Reading {
            now: now.clone(),
            epochs: epochs.clone(),
            messages: vec![(2, Some("two"))],
            is_cut: false,
        };
        assert_eq!(track.on_reading(after), Step::Restart { forgotten: 1, late: 0 });
        let all = Reading {
            now,
            epochs,
            messages: vec![(1, Some("one")), (2, Some("two"))],
            is_cut: false,
        };
        assert_eq!(
            track.on_reading(all),
            Step::Deliver { messages: vec!["one", "two"], lost: 0, done: true }
        );
    }

    fn anew(offset: u64, epoch: &str) -> Reading<&'static str> {
        let now = Position { epoch: epoch.to_owned(), offset };
        let epochs = vec![self::epoch(epoch, 0, 2)];
        Reading { now, epochs, messages: vec![(1, Some("one"))], is_cut: false }
    }

    #[test]
    fn a_channel_that_begins_anew_before_the_eyes_of_who_listens_has_lost_nothing() {
        let mut track = begun();
        assert_eq!(track.on_message("a", 1, clock), Verdict::Deliver);
        assert_eq!(track.on_message("b", 1, clock), Verdict::Repair, "the stream says what is so");
        assert_eq!(track.on_reading(anew(1, "b")), Step::Restart { forgotten: 0, late: 0 });
        let all = Step::Deliver { messages: vec!["one"], lost: 0, done: true };
        assert_eq!(track.on_reading(anew(1, "b")), all);
        assert_eq!(track.on_message("b", 2, clock), Verdict::Deliver);
    }

    #[test]
    fn who_has_not_listened_all_the_time_may_have_missed_something() {
        for interrupt in [Track::suspect, Track::undo] {
            let mut track = begun();
            assert_eq!(track.on_message("a", 1, clock), Verdict::Deliver);
            assert_eq!(track.on_message("a", 2, clock), Verdict::Deliver);
            interrupt(&mut track);
            assert_eq!(track.on_message("b", 1, clock), Verdict::Ignore);
            assert!(matches!(track.on_reading(anew(1, "b")), Step::Restart { forgotten: 1.., .. }));
        }
    }

    #[test]
    fn an_offset_that_nobody_has_counted_to_is_looked_for_once() {
        let mut track = begun();
        assert_eq!(track.on_message("a", 1, clock), Verdict::Deliver);
        assert_eq!(track.on_message("a", u64::MAX, clock), Verdict::Repair);
        assert_eq!(track.begin_reading(), Some(1));
        assert_eq!(track.on_reading(anew(1, "a")), Step::Restart { forgotten: 1, late: 0 });
        assert_eq!(track.begin_reading(), Some(1));
        let nothing = Step::Deliver { messages: Vec::new(), lost: 0, done: true };
        assert_eq!(track.on_reading(anew(1, "a")), nothing);
        assert_eq!(track.on_message("a", 2, clock), Verdict::Deliver);
    }

    proptest! {
        /// Whatever somebody has written into a channel: readings come to an end, nothing comes
        /// twice or out of order.
        #[test]
        fn a_forged_channel_does_no_harm(
            now in 0..20_u64, is_cut in any::<bool>(), start in 0..20_u64,
            mut ids in prop::collection::vec((0..30_u64, any::<bool>()), 0..20),
        ) {
            ids.sort_unstable();
            let mut track = begun();
            track.position = Some(Position { epoch: "a".to_owned(), offset: start });
            track.epochs = vec![epoch("a", 0, 1)];
            let mut delivered = Vec::new();
            for _ in 0..40 {
                let after = track.begin_reading().expect("it has begun");
                let page: Vec<_> = ids.iter().filter(|(id, _)| *id > after).take(3).collect();
                let messages: Vec<_> = page.iter().map(|(id, ours)| (*id, ours.then_some(*id))).collect();
                let is_cut = is_cut || messages.len() == 3;
                let position = Position { epoch: "a".to_owned(), offset: now };
                match track.on_reading(Reading { now: position, epochs: track.epochs.clone(), messages, is_cut }) {
                    Step::Deliver { messages, done, .. } => {
                        delivered.extend(messages);
                        if done { break }
                    }
                    Step::Restart { .. } => panic!("there is one epoch"),
                }
            }
            prop_assert!(track.is_live, "it comes to an end");
            prop_assert!(delivered.is_sorted_by(|a, b| a < b) && delivered.iter().all(|id| *id > start && *id <= now));
        }
    }

    #[test]
    fn server_that_lags_is_waited_for() {
        let mut track = begun();
        for offset in 1..=5 {
            assert_eq!(track.on_message("e", offset, clock), Verdict::Deliver);
        }
        track.suspect();
        let behind = Reading::<u32> {
            now: Position { epoch: "e".to_owned(), offset: 3 },
            ..Reading::default()
        };
        let nothing = Step::Deliver { messages: Vec::new(), lost: 0, done: true };
        assert_eq!(track.on_reading(behind), nothing);
        assert_eq!(track.on_message("f", 4, clock), Verdict::Repair);
        assert_eq!(track.offset(), Some(5));
    }

    /// A place that a history goes back to, or on from.
    #[derive(Clone, Default)]
    struct Redis {
        held: Vec<u32>,
        epochs: Vec<Epoch>,
        /// Whether it has not begun an epoch of its own yet.
        is_new: bool,
        /// How many messages were accepted in any history.
        accepted: u32,
    }

    /// What happens to a channel, and to nodes that listen to it.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        /// A message is accepted; at which nodes it arrives, and which has published it.
        Message([bool; 2], Sender),
        /// A replica takes over that lacks the last so many; which nodes see that at once.
        Failover(usize, [bool; 2]),
        /// Redis goes on from one of the states in which it was left; which nodes see that at once.
        Return(usize, [bool; 2]),
        /// A node connects anew.
        Reconnect(usize),
    }

    /// Who publishes a message.
    #[derive(Clone, Copy, Debug)]
    struct Sender {
        node: usize,
        /// Whether it has Redis' answer before the message arrives anywhere.
        is_told_first: bool,
    }

    fn senders() -> impl Strategy<Value = Sender> {
        (0..2_usize, any::<bool>()).prop_map(|(node, is_told_first)| Sender { node, is_told_first })
    }

    fn events(returns: u32) -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            8 => (any::<[bool; 2]>(), senders()).prop_map(|(arrives, by)| Event::Message(arrives, by)),
            1 => (0..6_usize, any::<[bool; 2]>()).prop_map(|(lag, seen)| Event::Failover(lag, seen)),
            returns => (0..20_usize, any::<[bool; 2]>()).prop_map(|(state, seen)| Event::Return(state, seen)),
            2 => (0..2_usize).prop_map(Event::Reconnect),
        ];
        prop::collection::vec(event, 1..120)
    }

    /// A message that the first node publishes.
    fn message(arrives: [bool; 2]) -> Event {
        Event::Message(arrives, Sender { node: 0, is_told_first: false })
    }

    #[derive(Default)]
    struct World {
        redis: Redis,
        left: Vec<Redis>,
        /// Epochs.
        begun: usize,
        nodes: [Listener; 2],
    }

    struct Listener {
        track: Track,
        delivered: Vec<u32>,
        lost: u64,
        /// What it has published or heard, and not delivered yet.
        known: Vec<u32>,
        /// The last message that had been accepted anywhere when it counted a loss.
        counted: u32,
    }

    impl Default for Listener {
        fn default() -> Self {
            Self { track: begun(), delivered: Vec::new(), lost: 0, known: Vec::new(), counted: 0 }
        }
    }

    impl Redis {
        fn accept(&mut self) -> (String, u64) {
            self.accepted += 1;
            let number = self.accepted;
            if self.epochs.is_empty() || std::mem::take(&mut self.is_new) {
                // Names say nothing of age.
                let name = format!("{:08x}", number.wrapping_mul(0x9E37_79B1));
                let since = self.epochs.last().map_or(0, |last| last.since + 1).max(number.into());
                self.epochs.push(Epoch { name, after: self.held.len() as u64, since });
            }
            self.held.push(number);
            let epoch = self.epochs.last().expect("an epoch");
            (epoch.name.clone(), self.held.len() as u64)
        }

        fn read(&self, after: u64) -> Reading<u32> {
            let epoch = self.epochs.last().map(|last| last.name.clone()).unwrap_or_default();
            let held = (1..).zip(self.held.iter().copied().map(Some));
            let messages = held.filter(|(offset, _)| *offset > after).collect();
            let now = Position { epoch, offset: self.held.len() as u64 };
            Reading { now, epochs: self.epochs.clone(), messages, is_cut: false }
        }
    }

    impl Listener {
        fn be_told(&mut self, (epoch, offset, number): (&str, u64, u32)) {
            self.known.push(number);
            self.track.on_accepted(epoch, offset);
        }

        fn hear(&mut self, redis: &Redis, (epoch, offset, number): (&str, u64, u32)) {
            self.known.push(number);
            match self.track.on_message(epoch, offset, || number.into()) {
                Verdict::Deliver => self.delivered.push(number),
                Verdict::Ignore => {}
                Verdict::Repair => self.read(redis),
            }
        }

        fn reconnect(&mut self, redis: &Redis) {
            self.track.suspect();
            self.read(redis);
        }

        fn read(&mut self, redis: &Redis) {
            for _ in 0..4 {
                let after = self.track.begin_reading().expect("it has begun");
                match self.track.on_reading(redis.read(after)) {
                    Step::Deliver { messages, done, lost } => {
                        self.delivered.extend(messages);
                        self.count(redis, lost, lost);
                        if done {
                            return self.look(redis);
                        }
                    }
                    Step::Restart { forgotten, late } => self.count(redis, late, forgotten + late),
                }
            }
            panic!("it comes to an end");
        }

        fn count(&mut self, redis: &Redis, lost: u64, any: u64) {
            self.lost += lost;
            if any > 0 {
                self.counted = redis.accepted;
            }
        }

        /// What it knows of and has not delivered is there to be read, or has been counted.
        fn look(&mut self, redis: &Redis) {
            let known = std::mem::take(&mut self.known);
            for number in known.into_iter().filter(|number| !self.delivered.contains(number)) {
                if redis.held.contains(&number) && self.counted < number {
                    self.known.push(number);
                } else {
                    assert!(self.counted >= number, "{number} is lost, and not counted");
                }
            }
        }
    }

    impl World {
        fn take(&mut self, event: Event) {
            let Self { redis, left, begun, nodes } = self;
            match event {
                Event::Message(arrives, by) => {
                    *begun += usize::from(redis.is_new || redis.epochs.is_empty());
                    let (epoch, offset) = redis.accept();
                    let message = (epoch.as_str(), offset, redis.accepted);
                    if by.is_told_first {
                        nodes[by.node].be_told(message);
                    }
                    for (node, _) in nodes.iter_mut().zip(arrives).filter(|(_, arrives)| *arrives) {
                        node.hear(redis, message);
                    }
                    if !by.is_told_first {
                        nodes[by.node].be_told(message);
                    }
                }
                Event::Failover(lag, seen) => {
                    left.push(redis.clone());
                    redis.held.truncate(redis.held.len().saturating_sub(lag));
                    let end = redis.held.len() as u64;
                    redis.epochs.retain(|epoch| epoch.after < end);
                    self.go_on(seen);
                }
                Event::Return(state, seen) => {
                    left.push(redis.clone());
                    let accepted = redis.accepted;
                    *redis = Redis { accepted, ..left[state % left.len()].clone() };
                    self.go_on(seen);
                }
                Event::Reconnect(node) => nodes[node].reconnect(redis),
            }
        }

        /// Another life begins; every connection ends with the one before.
        fn go_on(&mut self, seen: [bool; 2]) {
            self.redis.is_new = true;
            for (node, is_seen) in self.nodes.iter_mut().zip(seen) {
                node.track.suspect();
                if is_seen {
                    node.read(&self.redis);
                }
            }
        }

        fn end(&mut self) {
            for event in [message([true; 2]), Event::Reconnect(0), Event::Reconnect(1)] {
                self.take(event);
            }
        }
    }

    proptest! {
        /// Over any failovers: nothing twice, in order, and everything that Redis still has, at the
        /// end.
        #[test]
        fn failovers_double_nothing_and_skip_nothing_that_survived(events in events(0)) {
            let mut world = World::default();
            events.into_iter().for_each(|event| world.take(event));
            world.end();
            for Listener { mut delivered, .. } in world.nodes {
                prop_assert!(delivered.is_sorted_by(|a, b| a < b), "in order, none twice: {:?}", delivered);
                delivered.retain(|number| world.redis.held.contains(number));
                prop_assert_eq!(&delivered, &world.redis.held);
            }
        }

        /// Whatever history Redis goes on from, an older copy or one that it had left: nothing
        /// comes twice, all nodes have one order, the one in which it was accepted, and what does
        /// not come is counted.
        #[test]
        fn histories_that_return_double_nothing_and_contradict_nobody(events in events(3)) {
            let mut world = World::default();
            events.into_iter().for_each(|event| world.take(event));
            world.end();
            let World { redis, nodes, .. } = &world;
            let last = nodes.iter().map(|node| node.counted).max().unwrap_or_default();
            let life = redis.epochs.last().expect("an epoch").after;
            for Listener { delivered, lost, .. } in nodes {
                prop_assert!(delivered.is_sorted_by(|a, b| a < b), "in order, none twice: {:?}", delivered);
                let has_missed = |number: &&u32| !delivered.contains(number);
                let held = redis.held.iter().filter(has_missed).count() as u64;
                prop_assert!(*lost >= held, "{lost} were counted of {held} that Redis has again");
                let most = u64::from(redis.accepted) - delivered.len() as u64;
                let missing = (1..=redis.accepted).rev().find(|number| has_missed(&number));
                prop_assert!(missing.is_none_or(|missing| missing <= last), "{missing:?} is counted by nobody");
                prop_assert!(*lost <= most || world.begun > EPOCHS_MAX, "{lost} were counted of {most}");
                let mut new = redis.held.iter().skip(usize::try_from(life).expect("small"));
                prop_assert!(!new.any(|number| has_missed(&number)), "what this life accepted has come");
            }
        }

        /// Who is never away misses nothing of any history.
        #[test]
        fn who_sees_every_history_at_once_has_all_of_them(events in events(3)) {
            let mut world = World::default();
            for event in events {
                world.take(match event {
                    Event::Message(_, by) => Event::Message([true; 2], by),
                    Event::Failover(lag, _) => Event::Failover(lag, [true; 2]),
                    Event::Return(state, _) => Event::Return(state, [true; 2]),
                    Event::Reconnect(node) => Event::Reconnect(node),
                });
            }
            for Listener { delivered, lost, .. } in world.nodes {
                prop_assert_eq!(delivered, (1..=world.redis.accepted).collect::<Vec<_>>());
                prop_assert!(lost == 0 || world.begun > EPOCHS_MAX);
            }
        }
    }

    #[test]
    fn beyond_what_is_remembered_nothing_comes_twice_either() {
        let mut world = World::default();
        for number in 0..3 * EPOCHS_MAX {
            world.take(message([true; 2]));
            world.take(Event::Return(number / 2, [true; 2]));
        }
        world.end();
        for Listener { track, delivered, .. } in world.nodes {
            assert!(delivered.is_sorted_by(|a, b| a < b), "{delivered:?}");
            assert_eq!(track.past.settled.len(), EPOCHS_MAX);
        }
    }
}
