//! Publications on their way to Redis, in order: those that wait for it to come back, bounded in
//! bytes and age.
//!
//! Pure. Rule: nothing overtakes. What comes goes behind what waits; what failed goes back to the
//! front, unless something later on its channel has been accepted: then it is too late for it.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::limits::budget::Held;
use crate::model::broker::{Accepted, Publication, Receipt};
use crate::model::trouble::RedisRefusal;

/// Counted for every publication besides its frame, in bytes: so that tiny messages are bounded
/// too.
const WEIGHT: usize = 256;

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// Of the batch that was taken out last, until it is settled: all of it may come back.
    under_way: usize,
    max_bytes: usize,
    max_age: Duration,
    /// Whether the last try failed, so that what does not fit is refused rather than held back.
    is_stuck: bool,
    next: u64,
}

/// A publication, and what it holds until it is answered.
#[derive(Debug)]
pub(super) struct Coming {
    pub(super) publication: Publication,
    pub(super) held: Held,
}

/// A publication that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) publication: Publication,
    _held: Held,
    /// Names it among all that this node ever publishes.
    pub(super) number: u64,
    since: Instant,
    /// Redis may have accepted it already.
    is_doubtful: bool,
}

/// What became of a publication that was sent to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Taken(Accepted),
    /// Redis has not seen it.
    Untaken,
    /// Redis would not have it.
    Refused(RedisRefusal),
    /// No answer: Redis may have accepted it.
    InDoubt,
    /// This node may not publish any more.
    Never,
}

impl Fate {
    /// Returns whether it concerns the publication's channel alone, and would be the same again.
    pub(super) fn is_confined(self) -> bool {
        matches!(self, Self::Refused(class) if class.is_confined())
    }
}

impl Queue {
    pub(super) fn new(max_bytes: usize, max_age: Duration) -> Self {
        Self {
            waiting: VecDeque::new(),
            bytes: 0,
            under_way: 0,
            max_bytes,
            max_age,
            is_stuck: false,
            next: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns whether more should be taken in: as long as Redis is there, the rest may wait where
    /// it is.
    pub(super) fn wants_more(&self) -> bool {
        self.is_stuck || self.bytes < self.max_bytes
    }

    /// Adds a publication; if Redis is away and there is no room, gives its receipt back. One
    /// always fits.
    pub(super) fn push(&mut self, coming: Coming, now: Instant) -> Result<(), Receipt> {
        let Coming { publication, held: _held } = coming;
        let weight = weight(&publication);
        let held = self.bytes + self.under_way;
        if self.is_stuck && held > 0 && held + weight > self.max_bytes {
            return Err(publication.receipt);
        }
        self.bytes += weight;
        self.next += 1;
        self.waiting.push_back(Waiting {
            publication,
            _held,
            number: self.next,
            since: now,
            is_doubtful: false,
        });
        Ok(())
    }

    /// Takes the oldest publications out that make one batch: at most `count`, and the last begins
    /// within `bytes`.
    pub(super) fn take_batch(&mut self, count: usize, bytes: usize) -> Vec<Waiting> {
        let mut taken = 0;
        let fits = |waiting: &&Waiting| {
            let begins = taken;
            taken += weight(&waiting.publication);
            begins < bytes
        };
        let count = self.waiting.iter().take(count).take_while(fits).count();
        let before = self.bytes;
        let batch = self.take(count);
        self.under_way = before - self.bytes;
        batch
    }

    /// Takes the oldest publications out, at most `count`.
    pub(super) fn take(&mut self, count: usize) -> Vec<Waiting> {
        let count = count.min(self.waiting.len());
        let batch: Vec<_> = self.waiting.drain(..count).collect();
        self.bytes -= batch.iter().map(|waiting| weight(&waiting.publication)).sum::<usize>();
        batch
    }

    /// Settles a batch: puts what failed back to the front, in its order; nothing if all went well.
    pub(super) fn put_back(&mut self, batch: Vec<Waiting>) {
        self.is_stuck = !batch.is_empty();
        self.under_way = 0;
        for waiting in batch.into_iter().rev() {
            self.bytes += weight(&waiting.publication);
            self.waiting.push_front(waiting);
        }
    }

    /// Takes out what has waited too long.
    pub(super) fn take_old(&mut self, now: Instant) -> Vec<Waiting> {
        let is_old =
            |waiting: &&Waiting| now.saturating_duration_since(waiting.since) >= self.max_age;
        let count = self.waiting.iter().take_while(is_old).count();
        self.take(count)
    }

    /// Returns when the oldest will have waited too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|waiting| waiting.since + self.max_age)
    }
}

impl Waiting {
    /// Returns what to answer; the second of two tries found the first, which is no news to the
    /// sender.
    pub(super) fn answer(&self, accepted: Accepted) -> Accepted {
        match accepted {
            Accepted::Duplicate(offset) if self.is_doubtful => Accepted::At(offset),
            accepted => accepted,
        }
    }
}

/// What becomes of a batch that was sent, each part in its order.
#[derive(Debug, Default)]
pub(super) struct Parted {
    /// Redis took them; its answers.
    pub(super) taken: Vec<(Waiting, Accepted)>,
    /// To be tried again.
    pub(super) again: Vec<Waiting>,
    /// Not to be tried again.
    pub(super) failed: Vec<(Waiting, Fate)>,
}

/// Parts a batch by what became of each publication.
pub(super) fn part(
    batch: Vec<Waiting>,
    fates: impl DoubleEndedIterator<Item = Fate> + ExactSizeIterator,
    may_wait: impl Fn(&Publication) -> bool,
) -> Parted {
    let Parted { mut taken, mut again, mut failed } = Parted::default();
    let mut passed = HashSet::new();
    for (mut waiting, fate) in batch.into_iter().zip(fates).rev() {
        let channel = &waiting.publication.channel;
        match fate {
            Fate::Taken(accepted) => {
                passed.insert(channel.clone());
                taken.push((waiting, accepted));
            }
            fate if fate == Fate::Never
                || fate.is_confined()
                || passed.contains(channel)
                || !may_wait(&waiting.publication) =>
            {
                failed.push((waiting, fate));
            }
            fate => {
                waiting.is_doubtful |= fate == Fate::InDoubt;
                again.push(waiting);
            }
        }
    }
    taken.reverse();
    again.reverse();
    failed.reverse();
    Parted { taken, again, failed }
}

fn weight(publication: &Publication) -> usize {
    publication.frame.len() + WEIGHT
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::limits::budget::Gauge;
    use crate::model::broker::{Channel, Offset, Recipient};

    const AGE: Duration = Duration::from_secs(10);

    fn publication(channel: u8, text: &str) -> Coming {
        let channel = Channel::Group(channel.to_string().into());
        let frame = Bytes::copy_from_slice(text.as_bytes());
        let publication =
            Publication { channel, frame, key: None, receipt: Receipt::new(Recipient::Nobody) };
        Coming { publication, held: Gauge::default().hold(0) }
    }

    fn numbers(batch: &[Waiting]) -> Vec<u64> {
        batch.iter().map(|waiting| waiting.number).collect()
    }

    proptest! {
        /// Whatever fails, of each channel what is accepted is accepted in the order in which it
        /// came, and all are settled.
        #[test]
        fn nothing_overtakes(
            channels in prop::collection::vec(0..3_u8, 1..60), fates in prop::collection::vec(0..4_u8, 1..40),
        ) {
            let (mut queue, now) = (Queue::new(1 << 20, AGE), Instant::now());
            let mut coming = channels.iter();
            let mut fates = fates.iter().copied().chain(std::iter::repeat(0));
            let (mut accepted, mut settled) = (Vec::new(), 0);
            while settled < channels.len() {
                for channel in coming.by_ref().take(3) {
                    prop_assert!(queue.push(publication(*channel, "x"), now).is_ok());
                }
                let batch = queue.take(5);
                let outcome: Vec<_> = batch.iter().map(|waiting| match fates.next() {
                    Some(1) => Fate::Untaken,
                    Some(2) => Fate::InDoubt,
                    Some(3) => Fate::Refused(RedisRefusal::Oom),
                    _ => Fate::Taken(Accepted::At(Offset(waiting.number))),
                }).collect();
                let Parted { taken, again, failed } = part(batch, outcome.into_iter(), |_| true);
                settled += taken.len() + failed.len();
                accepted.extend(taken.into_iter().map(|(waiting, _)| waiting));
                queue.put_back(again);
            }
            prop_assert!(queue.is_empty() && queue.bytes() == 0);
            for channel in 0..3_u8 {
                let channel = Channel::Group(channel.to_string().into());
                let own = accepted.iter().filter(|waiting| waiting.publication.channel == channel);
                prop_assert!(own.map(|waiting| waiting.number).is_sorted());
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_given_back() {
        let (mut queue, now) = (Queue::new(1_000, AGE), Instant::now());
        let large = "x".repeat(2_000);
        assert!(queue.wants_more());
        assert!(queue.push(publication(0, &large), now).is_ok(), "or it could never be sent");
        assert!(!queue.wants_more(), "Redis is there: others wait");
        let batch = queue.take(1);
        assert_eq!(queue.bytes(), 0);
        queue.put_back(batch);
        assert!(
            queue.wants_more() && queue.push(publication(0, ""), now).is_err(),
            "others are refused"
        );
        let batch = queue.take_batch(1, 1);
        assert!(queue.push(publication(0, ""), now).is_err(), "a batch under way may come back");
        queue.put_back(batch);
        queue.take(1);
        assert!(queue.push(publication(0, "small"), now).is_ok());
        assert!(queue.push(publication(0, &large), now).is_err());
        queue.put_back(Vec::new());
        assert!(queue.push(publication(0, &large), now).is_ok(), "Redis is back");
    }

    #[test]
    fn a_batch_is_bounded_in_bytes_and_one_publication_always_fits() {
        let (mut queue, now) = (Queue::new(1 << 20, AGE), Instant::now());
        for size in [4_000, 400, 400, 400, 4_000] {
            assert!(queue.push(publication(0, &"x".repeat(size)), now).is_ok());
        }
        let sizes: Vec<_> = std::iter::from_fn(|| {
            Some(queue.take_batch(3, 1_000)).filter(|batch| !batch.is_empty())
        })
        .map(|batch| batch.len())
        .collect();
        assert_eq!(sizes, [1, 2, 2]);
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn what_waited_too_long_is_taken_out_oldest_first() {
        let (mut queue, now) = (Queue::new(1 << 20, AGE), Instant::now());
        for seconds in [0, 1, 5] {
            assert!(queue.push(publication(0, "x"), now + Duration::from_secs(seconds)).is_ok());
        }
        assert_eq!(queue.deadline(), Some(now + AGE));
        assert_eq!(numbers(&queue.take_old(now + AGE + Duration::from_secs(2))), [1, 2]);
        assert_eq!((queue.len(), queue.bytes()), (1, 1 + WEIGHT));
    }

    #[test]
    fn what_is_refused_for_its_channel_does_not_wait() {
        let (mut queue, now) = (Queue::new(1 << 20, AGE), Instant::now());
        for channel in [0, 1, 0] {
            assert!(queue.push(publication(channel, "x"), now).is_ok());
        }
        let fates = [
            Fate::Refused(RedisRefusal::WrongType),
            Fate::Refused(RedisRefusal::Oom),
            Fate::Refused(RedisRefusal::WrongType),
        ];
        let Parted { again, failed, .. } = part(queue.take(3), fates.into_iter(), |_| true);
        assert_eq!((numbers(&again), failed.len()), (vec![2], 2));
    }

    #[test]
    fn a_second_try_that_finds_the_first_is_no_duplicate() {
        let (mut queue, now) = (Queue::new(1 << 20, AGE), Instant::now());
        assert!(queue.push(publication(0, "x"), now).is_ok());
        let found = Accepted::Duplicate(Offset(7));
        let batch = queue.take(1);
        assert_eq!(batch[0].answer(found), found, "it had a key, and was sent once");
        let Parted { again, .. } = part(batch, [Fate::Untaken].into_iter(), |_| true);
        assert_eq!(again[0].answer(found), found);
        let Parted { again, .. } = part(again, [Fate::InDoubt].into_iter(), |_| true);
        assert_eq!(again[0].answer(found), Accepted::At(Offset(7)));
        let Parted { again, failed, .. } = part(again, [Fate::InDoubt].into_iter(), |_| false);
        assert!(again.is_empty() && failed.len() == 1);
    }
}
