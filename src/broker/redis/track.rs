//! Where a node stands in one channel: what it has delivered, and whether it may deliver the next as it comes.
//!
//! Pure. Rule: a message is delivered as it comes only if it is the very next; whatever else comes is read from the stream,
//! in order, so that a gap is closed in place and nothing is delivered twice.

/// The place of the last message delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Empty where the channel had no message yet.
    pub(super) epoch: String,
    pub(super) offset: u64,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Track {
    /// `None` until the place at which the subscription began is known.
    position: Option<Position>,
    /// The last epochs as of the last reading, and after which offset each began.
    epochs: Vec<Position>,
    is_live: bool,
    /// The highest offset that came while not live, since the last reading was asked for.
    top: u64,
    /// The epoch whose first message came right behind the last delivery. Redis forgets a channel that is not used for long, and
    /// begins it anew; who has listened all the time has missed nothing.
    begun: Option<String>,
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
    /// The last epochs, and after which offset each began.
    pub(super) epochs: Vec<Position>,
    /// By offset; without one, the place holds what no node has written.
    pub(super) messages: Vec<(u64, Option<M>)>,
    /// Whether there may be more messages.
    pub(super) is_cut: bool,
}

/// What a reading leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<M> {
    /// Deliver these, after so many that are lost; then `done` or read again.
    Deliver { messages: Vec<M>, lost: u64, done: bool },
    /// Redis has forgotten so many of the messages that were delivered, and perhaps others: read again, from where it has not.
    /// With 0, it has begun the channel anew, and nothing was missed.
    Restart { forgotten: u64 },
}

/// Returns the offset up to which two histories of a channel are the same: both go on alike to the end of the last epoch
/// that both have, in whichever it ended first. `None` if they have none in common.
fn common(own: &[Position], other: &[Position]) -> Option<u64> {
    let end = |epochs: &[Position], at: usize| epochs.get(at + 1).map_or(u64::MAX, |next| next.offset);
    own.iter().enumerate().rev().find_map(|(at, epoch)| {
        let there = other.iter().position(|candidate| candidate.epoch == epoch.epoch)?;
        Some(end(own, at).min(end(other, there)))
    })
}

impl Track {
    /// Returns the offset after which to read; `None` if only the place at which the subscription begins is wanted.
    pub(super) fn offset(&self) -> Option<u64> {
        self.position.as_ref().map(|position| position.offset)
    }

    /// Returns the same for a reading that is about to be asked for: it will have whatever has come until now.
    pub(super) fn begin_reading(&mut self) -> Option<u64> {
        self.top = 0;
        self.offset()
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
        self.begun = None;
        self.top = 0;
    }

    /// Takes back the last delivery, which found a queue full.
    pub(super) fn undo(&mut self) {
        if let Some(position) = &mut self.position {
            self.top = position.offset;
            position.offset -= 1;
        }
        self.begun = None;
        self.is_live = false;
    }

    pub(super) fn on_message(&mut self, epoch: &str, offset: u64) -> Verdict {
        if !self.is_live {
            self.top = self.top.max(offset);
            return Verdict::Ignore;
        }
        let Some(position) = &mut self.position else { return Verdict::Ignore };
        if position.epoch.is_empty() && offset == 1 {
            epoch.clone_into(&mut position.epoch);
            self.epochs = vec![Position { epoch: epoch.to_owned(), offset: 0 }];
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
        Verdict::Repair
    }

    pub(super) fn on_reading<M>(&mut self, reading: Reading<M>) -> Step<M> {
        let Reading { now, epochs, messages, is_cut } = reading;
        let known = std::mem::replace(&mut self.epochs, epochs);
        let Some(position) = &mut self.position else {
            // The subscription begins here; what came meanwhile is read in the next step.
            let done = self.top <= now.offset;
            self.position = Some(now);
            self.is_live = done;
            return Step::Deliver { messages: Vec::new(), lost: 0, done };
        };
        if position.epoch != now.epoch {
            let shared = common(&known, &self.epochs);
            let begun =
                self.begun.take().filter(|begun| self.epochs.iter().any(|epoch| epoch.epoch == *begun));
            let offset = position.offset.min(shared.unwrap_or(0));
            let forgotten = position.offset - offset;
            *position = Position { epoch: now.epoch, offset };
            if forgotten > 0 {
                let is_anew = shared.is_none() && begun.is_some();
                return Step::Restart { forgotten: if is_anew { 0 } else { forgotten } };
            }
        }
        if now.offset < position.offset {
            // A replica has taken over that lagged. The next message begins an epoch, which says since when.
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

    /// A channel as Redis keeps it: everything ever accepted, of which the stream holds the last `kept`.
    #[derive(Default)]
    struct Channel {
        accepted: Vec<u32>,
    }

    impl Channel {
        fn read(&self, after: u64, kept: usize, limit: usize) -> Reading<u32> {
            let offset = self.accepted.len() as u64;
            let held =
                (1..).zip(self.accepted.iter().copied()).skip(self.accepted.len().saturating_sub(kept));
            let mut messages: Vec<_> =
                held.filter(|(offset, _)| *offset > after).map(|(offset, one)| (offset, Some(one))).collect();
            let is_cut = messages.len() > limit;
            messages.truncate(limit);
            let now = Position { epoch: "e".to_owned(), offset };
            Reading { now, epochs: Vec::new(), messages, is_cut }
        }
    }

    fn begun() -> Track {
        let mut track = Track::default();
        track.on_reading(Reading::<u32>::default());
        track
    }

    proptest! {
        /// Whatever is lost on the way, every message comes once and in order, or is counted as lost.
        #[test]
        fn gaps_are_closed_in_order(
            fates in prop::collection::vec(any::<bool>(), 1..200), kept in 1_usize..50, limit in 1_usize..20,
        ) {
            let (mut track, mut channel) = (begun(), Channel::default());
            let (mut delivered, mut lost) = (Vec::new(), 0);
            for (number, arrives) in (0_u32..).zip(fates.iter().copied().chain([true])) {
                channel.accepted.push(number);
                let offset = channel.accepted.len() as u64;
                let verdict = if arrives { track.on_message("e", offset) } else { Verdict::Ignore };
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
        assert_eq!(track.on_message("e", 3), Verdict::Repair);
        assert_eq!(track.on_message("e", 4), Verdict::Ignore);
        let step = track.on_reading(channel.read(0, 10, 10));
        assert_eq!(
            step,
            Step::Deliver { messages: vec![1, 2, 3], lost: 0, done: false },
            "the fourth is still to come"
        );
        channel.accepted.push(4);
        let step = track.on_reading(channel.read(track.offset().unwrap_or(0), 10, 10));
        assert_eq!(step, Step::Deliver { messages: vec![4], lost: 0, done: true });
        assert_eq!(track.on_message("e", 4), Verdict::Ignore, "not twice");
        assert_eq!(track.on_message("e", 5), Verdict::Deliver);
    }

    #[test]
    fn new_epoch_is_read_from_its_start() {
        let mut track = begun();
        assert_eq!(track.on_message("a", 1), Verdict::Deliver);
        assert_eq!(track.on_message("b", 2), Verdict::Repair);
        let now = Position { epoch: "b".to_owned(), offset: 2 };
        let epochs = vec![Position { epoch: "b".to_owned(), offset: 0 }];
        let after = Reading {
            now: now.clone(),
            epochs: epochs.clone(),
            messages: vec![(2, Some("two"))],
            is_cut: false,
        };
        assert_eq!(track.on_reading(after), Step::Restart { forgotten: 1 });
        let all = Reading { now, epochs, messages: vec![(1, Some("one")), (2, Some("two"))], is_cut: false };
        assert_eq!(
            track.on_reading(all),
            Step::Deliver { messages: vec!["one", "two"], lost: 0, done: true }
        );
    }

    fn anew(offset: u64, epoch: &str) -> Reading<&'static str> {
        let now = Position { epoch: epoch.to_owned(), offset };
        let epochs = vec![Position { epoch: epoch.to_owned(), offset: 0 }];
        Reading { now, epochs, messages: vec![(1, Some("one"))], is_cut: false }
    }

    #[test]
    fn a_channel_that_begins_anew_before_the_eyes_of_who_listens_has_lost_nothing() {
        let mut track = begun();
        assert_eq!(track.on_message("a", 1), Verdict::Deliver);
        assert_eq!(track.on_message("b", 1), Verdict::Repair, "the stream says what is so");
        assert_eq!(track.on_reading(anew(1, "b")), Step::Restart { forgotten: 0 });
        let all = Step::Deliver { messages: vec!["one"], lost: 0, done: true };
        assert_eq!(track.on_reading(anew(1, "b")), all);
        assert_eq!(track.on_message("b", 2), Verdict::Deliver);
    }

    #[test]
    fn who_has_not_listened_all_the_time_may_have_missed_something() {
        for interrupt in [Track::suspect, Track::undo] {
            let mut track = begun();
            assert_eq!(track.on_message("a", 1), Verdict::Deliver);
            assert_eq!(track.on_message("a", 2), Verdict::Deliver);
            interrupt(&mut track);
            assert_eq!(track.on_message("b", 1), Verdict::Ignore);
            assert!(matches!(track.on_reading(anew(1, "b")), Step::Restart { forgotten: 1.. }));
        }
    }

    #[test]
    fn an_offset_that_nobody_has_counted_to_is_looked_for_once() {
        let mut track = begun();
        assert_eq!(track.on_message("a", 1), Verdict::Deliver);
        assert_eq!(track.on_message("a", u64::MAX), Verdict::Repair);
        assert_eq!(track.begin_reading(), Some(1));
        let nothing = Step::Deliver { messages: Vec::new(), lost: 0, done: true };
        assert_eq!(track.on_reading(anew(1, "a")), nothing);
        assert_eq!(track.on_message("a", 2), Verdict::Deliver);
    }

    proptest! {
        /// Whatever somebody has written into a channel: readings come to an end, nothing comes twice or out of order.
        #[test]
        fn a_forged_channel_does_no_harm(
            now in 0..20_u64, is_cut in any::<bool>(), start in 0..20_u64,
            mut ids in prop::collection::vec((0..30_u64, any::<bool>()), 0..20),
        ) {
            ids.sort_unstable();
            let mut track = begun();
            track.position = Some(Position { epoch: "a".to_owned(), offset: start });
            track.epochs = vec![Position { epoch: "a".to_owned(), offset: 0 }];
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
            assert_eq!(track.on_message("e", offset), Verdict::Deliver);
        }
        track.suspect();
        let behind =
            Reading::<u32> { now: Position { epoch: "e".to_owned(), offset: 3 }, ..Reading::default() };
        let nothing = Step::Deliver { messages: Vec::new(), lost: 0, done: true };
        assert_eq!(track.on_reading(behind), nothing);
        assert_eq!(track.on_message("f", 4), Verdict::Repair);
        assert_eq!(track.offset(), Some(5));
    }

    /// What happens to a channel, and to a node that listens to it.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        /// A message is accepted; whether it arrives.
        Message(bool),
        /// A replica takes over that lacks the last so many.
        Failover(usize),
        /// The node connects anew.
        Reconnect,
    }

    proptest! {
        /// Over any failovers: nothing twice, in order, and everything that Redis still has, at the end.
        #[test]
        fn failovers_double_nothing_and_skip_nothing_that_survived(
            events in prop::collection::vec(prop_oneof![
                6 => any::<bool>().prop_map(Event::Message),
                1 => (0..6_usize).prop_map(Event::Failover),
                1 => Just(Event::Reconnect),
            ], 1..120),
        ) {
            let (mut channel, mut track, mut delivered) = (Survivor::default(), begun(), Vec::new());
            let last = [Event::Message(true), Event::Reconnect];
            for event in events.into_iter().chain(last) {
                let must_read = match event {
                    Event::Message(arrives) => {
                        let (epoch, offset, number) = channel.accept();
                        match if arrives { track.on_message(&epoch, offset) } else { Verdict::Ignore } {
                            Verdict::Deliver => {
                                delivered.push(number);
                                false
                            }
                            Verdict::Ignore => false,
                            Verdict::Repair => true,
                        }
                    }
                    Event::Failover(lag) => {
                        channel.fail_over(lag);
                        false
                    }
                    Event::Reconnect => {
                        track.suspect();
                        true
                    }
                };
                for _ in 0..if must_read { 3 } else { 0 } {
                    match track.on_reading(channel.read(track.offset().unwrap_or(0))) {
                        Step::Deliver { messages, done, .. } => {
                            delivered.extend(messages);
                            if done { break }
                        }
                        Step::Restart { .. } => {}
                    }
                }
            }
            let all = delivered.len();
            prop_assert!(delivered.is_sorted_by(|a, b| a < b), "in order, none twice: {:?}", delivered);
            delivered.retain(|number| channel.held.contains(number));
            prop_assert_eq!(&delivered, &channel.held, "{} delivered", all);
        }
    }

    /// A channel whose servers may lack its last messages; each message is a number of its own.
    #[derive(Default)]
    struct Survivor {
        held: Vec<u32>,
        next: u32,
        has_new_server: bool,
        epochs: Vec<Position>,
    }

    impl Survivor {
        fn accept(&mut self) -> (String, u64, u32) {
            if self.epochs.is_empty() || std::mem::take(&mut self.has_new_server) {
                let epoch = format!("e{}", self.next);
                self.epochs.push(Position { epoch, offset: self.held.len() as u64 });
            }
            self.next += 1;
            self.held.push(self.next);
            let epoch = self.epochs.last().expect("an epoch").epoch.clone();
            (epoch, self.held.len() as u64, self.next)
        }

        fn fail_over(&mut self, lag: usize) {
            self.held.truncate(self.held.len().saturating_sub(lag));
            let left = self.held.len() as u64;
            self.epochs.retain(|epoch| epoch.offset < left);
            self.has_new_server = true;
        }

        fn read(&self, after: u64) -> Reading<u32> {
            let epoch = self.epochs.last().map(|last| last.epoch.clone()).unwrap_or_default();
            let held = (1..).zip(self.held.iter().copied().map(Some));
            let messages = held.filter(|(offset, _)| *offset > after).collect();
            let now = Position { epoch, offset: self.held.len() as u64 };
            Reading { now, epochs: self.epochs.clone(), messages, is_cut: false }
        }
    }
}
