//! What is still to be done for a connection that has ended: its `$disconnect` is accepted once,
//! and only then its record goes.
//!
//! Pure. Two parties drive it: the owner, whose connection it was, and a reaper, once the owner is
//! taken for dead. Both publish under one name, the connection's, so that Redis takes one of all
//! tries. *Invariant:* whoever removes the record knows that a try was accepted, or has given it
//! up. *Invariant:* a name is forgotten only where its single try was accepted: bytes of any other
//! may still be on their way.

/// See the [module documentation](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// No try is known to be accepted. `in_doubt`: one may have been, or may still be.
    Publishing { in_doubt: bool },
    /// A try was accepted. `in_doubt`: it was not the only one.
    Accepted { in_doubt: bool },
    /// No try will ever be accepted.
    GivenUp,
}

/// What became of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum EndAnswer {
    /// It was accepted, and was the first under its name.
    Accepted,
    /// Another was accepted before; or nobody will remember this one.
    Found,
    /// It was not, and will not be.
    NotTaken,
    /// It may have been, or may still be.
    InDoubt,
    /// Neither this nor any other will be.
    Never,
}

impl End {
    /// The owner begins.
    pub(crate) const OWN: Self = Self::Publishing { in_doubt: false };
    /// A reaper begins; the owner, or a reaper before, may have tried.
    pub(crate) const REAPED: Self = Self::Publishing { in_doubt: true };
    /// There is nothing to publish.
    pub(crate) const NOTHING: Self = Self::Accepted { in_doubt: true };

    /// Takes what became of a try.
    pub(crate) fn on_answer(self, answer: EndAnswer) -> Self {
        match (self, answer) {
            (Self::Publishing { in_doubt }, EndAnswer::Accepted) => Self::Accepted { in_doubt },
            (Self::Publishing { .. }, EndAnswer::Found) => Self::Accepted { in_doubt: true },
            (Self::Publishing { .. }, EndAnswer::InDoubt) => Self::Publishing { in_doubt: true },
            (Self::Publishing { .. }, EndAnswer::Never) => Self::GivenUp,
            (Self::Publishing { .. }, EndAnswer::NotTaken)
            | (Self::Accepted { .. } | Self::GivenUp, _) => self,
        }
    }

    /// Returns whether a try may have been accepted, so that the next must be taken by who
    /// remembers names or by nobody.
    pub(crate) fn is_in_doubt(self) -> bool {
        self == Self::Publishing { in_doubt: true }
    }

    /// Returns whether the record may go.
    pub(crate) fn is_over(self) -> bool {
        !matches!(self, Self::Publishing { .. })
    }

    /// Returns whether the name may go, once the record has gone and its node is not taken for
    /// dead.
    pub(crate) fn forgets_name(self) -> bool {
        self == Self::Accepted { in_doubt: false }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What happens to the bytes of a try, and of its answer.
    #[derive(Clone, Copy, Debug)]
    enum Way {
        Answered,
        /// Refused before it was sent, or by Redis.
        NotTaken,
        /// Lost on the way there.
        Lost,
        /// Redis has taken it, and its answer is lost.
        AnswerLost,
        /// On the way there for as long as it likes.
        HeldUp,
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Owner(Way),
        /// The owner removes the record if it may, and the name.
        OwnerRemoves {
            dies_before_the_name: bool,
        },
        OwnerDies,
        Claim,
        Reaper(Way),
        ReaperRemoves,
        /// Another goes on from the record.
        ReaperDies,
        /// Bytes that were held up come.
        Arrive,
    }

    fn way() -> impl Strategy<Value = Way> {
        prop_oneof![
            Just(Way::Answered),
            Just(Way::NotTaken),
            Just(Way::Lost),
            Just(Way::AnswerLost),
            Just(Way::HeldUp)
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => way().prop_map(Step::Owner),
            2 => any::<bool>().prop_map(|dies| Step::OwnerRemoves { dies_before_the_name: dies }),
            1 => Just(Step::OwnerDies),
            1 => Just(Step::Claim),
            4 => way().prop_map(Step::Reaper),
            2 => Just(Step::ReaperRemoves),
            1 => Just(Step::ReaperDies),
            2 => Just(Step::Arrive),
        ]
    }

    /// A Redis that remembers names, one connection of a node, and who ends it.
    #[derive(Debug)]
    struct World {
        has_record: bool,
        has_name: bool,
        is_marked: bool,
        accepted: usize,
        held_up: usize,
        owner: Option<End>,
        reaper: End,
    }

    impl World {
        fn new() -> Self {
            let owner = Some(End::OWN);
            let (has_record, has_name, is_marked) = (true, false, false);
            Self {
                has_record,
                has_name,
                is_marked,
                accepted: 0,
                held_up: 0,
                owner,
                reaper: End::REAPED,
            }
        }

        /// As `publish.lua`.
        fn accept(&mut self) -> EndAnswer {
            if std::mem::replace(&mut self.has_name, true) {
                return EndAnswer::Found;
            }
            self.accepted += 1;
            EndAnswer::Accepted
        }

        fn attempt(&mut self, way: Way) -> EndAnswer {
            match way {
                Way::Answered => self.accept(),
                Way::NotTaken => EndAnswer::NotTaken,
                Way::Lost => EndAnswer::InDoubt,
                Way::AnswerLost => {
                    self.accept();
                    EndAnswer::InDoubt
                }
                Way::HeldUp => {
                    self.held_up += 1;
                    EndAnswer::InDoubt
                }
            }
        }

        fn take(&mut self, step: Step) {
            match step {
                Step::Owner(way) => {
                    if let Some(end) = self.owner.filter(|end| !end.is_over()) {
                        self.owner = Some(end.on_answer(self.attempt(way)));
                    }
                }
                Step::OwnerRemoves { dies_before_the_name } => {
                    if let Some(end) = self.owner.filter(|end| end.is_over()) {
                        // Who is marked has lost its tenure.
                        if !self.is_marked {
                            self.has_record = false;
                            if end.forgets_name() && !dies_before_the_name {
                                self.has_name = false;
                            }
                        }
                        self.owner = None;
                    }
                }
                Step::OwnerDies => self.owner = None,
                Step::Claim => self.is_marked = true,
                Step::Reaper(way) => {
                    if self.is_marked && self.has_record && !self.reaper.is_over() {
                        self.reaper = self.reaper.on_answer(self.attempt(way));
                    }
                }
                Step::ReaperRemoves => {
                    if self.reaper.is_over() {
                        self.has_record = false;
                    }
                }
                Step::ReaperDies => self.reaper = End::REAPED,
                Step::Arrive => {
                    if self.held_up > 0 {
                        self.held_up -= 1;
                        self.accept();
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn an_end_is_accepted_once_and_before_its_record_goes(steps in prop::collection::vec(step(), 0..40)) {
            let mut world = World::new();
            for step in steps {
                world.take(step);
                prop_assert!(world.accepted <= 1, "{step:?}: {world:?}");
                prop_assert!(world.has_record || world.accepted == 1, "{step:?}: {world:?}");
            }
            // Whoever is left does the rest.
            world.take(Step::Owner(Way::Answered));
            world.take(Step::OwnerRemoves { dies_before_the_name: false });
            for step in [Step::Claim, Step::Reaper(Way::Answered), Step::ReaperRemoves] {
                world.take(step);
            }
            while world.held_up > 0 {
                world.take(Step::Arrive);
            }
            prop_assert_eq!((world.accepted, world.has_record), (1, false));
        }
    }

    #[test]
    fn only_a_single_try_without_doubt_leaves_no_name() {
        assert!(End::OWN.on_answer(EndAnswer::Accepted).forgets_name());
        assert!(
            End::OWN.on_answer(EndAnswer::NotTaken).on_answer(EndAnswer::Accepted).forgets_name()
        );
        for end in [
            End::OWN.on_answer(EndAnswer::InDoubt).on_answer(EndAnswer::Accepted),
            End::OWN.on_answer(EndAnswer::Found),
            End::REAPED.on_answer(EndAnswer::Accepted),
        ] {
            assert!(end.is_over() && !end.forgets_name(), "{end:?}");
        }
    }

    #[test]
    fn what_is_over_stays_so() {
        for end in [
            End::Accepted { in_doubt: false },
            End::Accepted { in_doubt: true },
            End::OWN.on_answer(EndAnswer::Never),
        ] {
            assert!(end.is_over());
            for answer in [
                EndAnswer::Accepted,
                EndAnswer::Found,
                EndAnswer::NotTaken,
                EndAnswer::InDoubt,
                EndAnswer::Never,
            ] {
                assert_eq!(end.on_answer(answer), end);
            }
        }
    }
}
