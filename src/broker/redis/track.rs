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
    is_live: bool,
    /// The highest offset that came while not live.
    top: u64,
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
    pub(super) messages: Vec<(u64, M)>,
    /// Whether there may be more messages.
    pub(super) is_cut: bool,
}

/// What a reading leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<M> {
    /// Deliver these, after so many that are lost; then `done` or read again.
    Deliver { messages: Vec<M>, lost: u64, done: bool },
    /// The channel began anew: read again, from its start. What was missed of the old epoch cannot be known.
    Restart,
    /// The offset went backwards: begin a new epoch, then read again.
    Rewound(Position),
}

impl Track {
    /// Returns the offset after which to read.
    pub(super) fn offset(&self) -> u64 {
        self.position.as_ref().map_or(0, |position| position.offset)
    }

    /// Returns whether the place at which the subscription began is known.
    pub(super) fn has_begun(&self) -> bool {
        self.position.is_some()
    }

    /// Notes that messages may be missing: a new connection, or a full queue.
    pub(super) fn suspect(&mut self) {
        self.is_live = false;
        self.top = 0;
    }

    /// Takes back the last delivery, which found a queue full.
    pub(super) fn undo(&mut self) {
        if let Some(position) = &mut self.position {
            self.top = position.offset;
            position.offset -= 1;
        }
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
        }
        if position.epoch == epoch && offset <= position.offset {
            return Verdict::Ignore;
        }
        if position.epoch == epoch && offset == position.offset + 1 {
            position.offset = offset;
            return Verdict::Deliver;
        }
        self.is_live = false;
        self.top = offset;
        Verdict::Repair
    }

    pub(super) fn on_reading<M>(&mut self, reading: Reading<M>) -> Step<M> {
        let Reading { now, messages, is_cut } = reading;
        let Some(position) = &mut self.position else {
            // The subscription begins here; what came meanwhile is read in the next step.
            let done = self.top <= now.offset;
            self.position = Some(now);
            self.is_live = done;
            return Step::Deliver { messages: Vec::new(), lost: 0, done };
        };
        if position.epoch != now.epoch {
            let is_first = position.epoch.is_empty();
            *position = Position { epoch: now.epoch, offset: 0 };
            if !is_first {
                return Step::Restart;
            }
        }
        if now.offset < position.offset {
            return Step::Rewound(position.clone());
        }
        let mut last = position.offset;
        let (mut lost, mut new) = (0, Vec::new());
        for (offset, message) in messages.into_iter().filter(|(offset, _)| *offset > position.offset) {
            lost += offset - last - 1;
            last = offset;
            new.push(message);
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
            let mut messages: Vec<_> = held.filter(|(offset, _)| *offset > after).collect();
            let is_cut = messages.len() > limit;
            messages.truncate(limit);
            Reading { now: Position { epoch: "e".to_owned(), offset }, messages, is_cut }
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
                        match track.on_reading(channel.read(track.offset(), kept, limit)) {
                            Step::Deliver { messages, lost: missing, done } => {
                                delivered.extend(messages);
                                lost += missing;
                                if done { break }
                            }
                            other => panic!("{other:?}"),
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
        let step = track.on_reading(channel.read(track.offset(), 10, 10));
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
        let after = Reading { now: now.clone(), messages: vec![(2, "two")], is_cut: false };
        assert_eq!(track.on_reading(after), Step::Restart);
        let all = Reading { now, messages: vec![(1, "one"), (2, "two")], is_cut: false };
        assert_eq!(
            track.on_reading(all),
            Step::Deliver { messages: vec!["one", "two"], lost: 0, done: true }
        );
    }

    #[test]
    fn offset_that_went_backwards_is_noticed() {
        let mut track = begun();
        for offset in 1..=5 {
            assert_eq!(track.on_message("e", offset), Verdict::Deliver);
        }
        track.suspect();
        let behind =
            Reading::<u32> { now: Position { epoch: "e".to_owned(), offset: 3 }, ..Reading::default() };
        let Step::Rewound(seen) = track.on_reading(behind) else { panic!("not noticed") };
        assert_eq!(seen.offset, 5);
    }
}
