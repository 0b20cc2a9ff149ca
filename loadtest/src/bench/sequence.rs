//! Checks what each connection receives: nothing lost, nothing twice, each sender's order kept.
//!
//! Rule: without faults one number per connection and sender; a set only for what was skipped.

use std::collections::HashSet;

/// A run with more gaps has failed in any case, and they would only fill memory.
const MAX_SKIPPED: usize = 1 << 20;

/// The state of the check for all connections.
#[derive(Debug)]
pub(crate) struct Sequence {
    n_slots: usize,
    /// Next number expected, by connection and sender's slot.
    next: Vec<u32>,
    /// Numbers passed over, by cell of `next`: lost unless they come late.
    skipped: HashSet<(usize, u32)>,
    lost_uncounted: u64,
    duplicated: u64,
    reordered: u64,
}

impl Sequence {
    /// Expects messages from `n_slots` senders on each of `n_conns` connections, each sender
    /// counting from 0.
    pub(crate) fn new(n_conns: usize, n_slots: usize) -> Self {
        Self {
            n_slots,
            next: vec![0; n_conns * n_slots],
            skipped: HashSet::new(),
            lost_uncounted: 0,
            duplicated: 0,
            reordered: 0,
        }
    }

    /// Notes a message; returns whether the connection receives it for the first time.
    pub(crate) fn on_message(&mut self, conn: usize, slot: usize, number: u32) -> bool {
        let cell = conn * self.n_slots + slot;
        let Some(next) = self.next.get_mut(cell) else {
            return false;
        };
        if number == *next {
            *next += 1;
            return true;
        }
        if number > *next {
            let gap = *next..number;
            *next = number + 1;
            for passed in gap {
                self.skip(cell, passed);
            }
            return true;
        }
        let late = self.skipped.remove(&(cell, number));
        if late {
            self.reordered += 1;
        } else {
            self.duplicated += 1;
        }
        late
    }

    /// Returns how many messages never came, given how many were sent for a connection's slot.
    pub(crate) fn lost(&self, sent: impl Fn(usize, usize) -> u32) -> u64 {
        let tail: u64 = self
            .next
            .iter()
            .enumerate()
            .map(|(cell, next)| {
                u64::from(sent(cell / self.n_slots, cell % self.n_slots).saturating_sub(*next))
            })
            .sum();
        tail + self.skipped.len() as u64 + self.lost_uncounted
    }

    pub(crate) fn duplicated(&self) -> u64 {
        self.duplicated
    }

    /// Returns how many came after a later message of the same sender.
    pub(crate) fn reordered(&self) -> u64 {
        self.reordered
    }

    fn skip(&mut self, cell: usize, number: u32) {
        if self.skipped.len() < MAX_SKIPPED {
            self.skipped.insert((cell, number));
        } else {
            self.lost_uncounted += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds one connection and slot; returns (lost of 4 sent, duplicated, reordered).
    fn judge(numbers: &[u32]) -> (u64, u64, u64) {
        let mut sequence = Sequence::new(1, 1);
        for number in numbers {
            sequence.on_message(0, 0, *number);
        }
        (sequence.lost(|_, _| 4), sequence.duplicated(), sequence.reordered())
    }

    #[test]
    fn a_complete_run_in_order_has_no_faults() {
        assert_eq!(judge(&[0, 1, 2, 3]), (0, 0, 0));
    }

    #[test]
    fn losses_are_found_at_the_head_in_the_middle_and_at_the_end() {
        assert_eq!(judge(&[1, 2, 3]), (1, 0, 0));
        assert_eq!(judge(&[0, 3]), (2, 0, 0));
        assert_eq!(judge(&[0, 1]), (2, 0, 0));
        assert_eq!(judge(&[]), (4, 0, 0));
    }

    #[test]
    fn duplicates_are_found_at_once_and_later() {
        assert_eq!(judge(&[0, 0, 1, 2, 3]), (0, 1, 0));
        assert_eq!(judge(&[0, 1, 2, 3, 0, 3]), (0, 2, 0));
    }

    #[test]
    fn a_late_message_is_reordered_not_lost_and_not_duplicated() {
        assert_eq!(judge(&[0, 2, 1, 3]), (0, 0, 1));
        assert_eq!(judge(&[3, 2, 1, 0]), (0, 0, 3));
        assert_eq!(judge(&[0, 2, 1, 1, 3]), (0, 1, 1));
    }

    #[test]
    fn connections_and_senders_are_judged_apart() {
        let mut sequence = Sequence::new(2, 2);
        for (conn, slot, number) in [(0, 0, 0), (0, 1, 0), (1, 1, 0), (1, 0, 0), (0, 0, 1)] {
            assert!(sequence.on_message(conn, slot, number));
        }
        assert!(!sequence.on_message(1, 1, 0));
        assert_eq!(
            (sequence.lost(|_, slot| if slot == 0 { 2 } else { 1 }), sequence.duplicated()),
            (1, 1)
        );
    }
}
