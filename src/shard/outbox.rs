//! One connection's send queue.
//!
//! Bounded in bytes; whoever pushes learns of the bound at once and never waits. It owns no memory
//! while empty.
//!
//! What is counted is what is held, not what is still to be sent: each batch with [`ENTRY`] for
//! what it needs besides its bytes, and until its last byte is out, since a piece keeps the whole
//! alive.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::ops::{AddAssign, Sub, SubAssign};

use bytes::{Buf as _, Bytes};

use crate::protocol::codec::payload_of;

/// Batches that go into one system call. 64 is well under the kernel's 1,024, and more showed no
/// gain.
const MAX_SLICES: usize = 64;

/// Counted for every batch besides its bytes: its place in the queue twice, since queues grow by
/// doubling, and the heads of its two allocations.
pub(crate) const ENTRY: usize = 2 * size_of::<Batch>() + 48;

/// Room in the queue that is kept although it is not needed, in batches.
const SPARE: usize = 64;

/// Whole frames that go to a connection as one piece.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) wire: Bytes,
    pub(crate) frames: u32,
    /// Whether others hold the same bytes, which are counted elsewhere, once.
    is_shared: bool,
}

impl From<Bytes> for Batch {
    /// One frame.
    fn from(wire: Bytes) -> Self {
        Self { wire, frames: 1, is_shared: false }
    }
}

impl Batch {
    /// Frames of which many outboxes hold the same bytes.
    pub(crate) fn shared(wire: Bytes, frames: u32) -> Self {
        Self { wire, frames, is_shared: true }
    }

    /// Returns what an outbox holds with it, `sent` bytes of which have left already.
    pub(crate) fn load(&self, sent: usize) -> Load {
        let all = self.wire.len() + sent + ENTRY;
        Load { all, own: if self.is_shared { ENTRY } else { all } }
    }

    /// Returns whether it is a control frame, which is never in a batch with others.
    fn is_control(&self) -> bool {
        payload_of(&self.wire).is_some_and(|(opcode, _)| opcode.is_control())
    }
}

/// Bytes held, with what the queue itself needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// As far as the bound is concerned.
    pub(crate) all: usize,
    /// Without the bytes that others hold as well.
    pub(crate) own: usize,
}

impl AddAssign for Load {
    fn add_assign(&mut self, other: Self) {
        self.all += other.all;
        self.own += other.own;
    }
}

impl SubAssign for Load {
    fn sub_assign(&mut self, other: Self) {
        self.all -= other.all;
        self.own -= other.own;
    }
}

impl Sub for Load {
    type Output = Self;

    fn sub(mut self, other: Self) -> Self {
        self -= other;
        self
    }
}

/// Frames that wait for the socket.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Apart from the rest, so that a single batch, which is the rule, needs no memory of its own.
    first: Option<Batch>,
    /// Empty while there is no first.
    rest: VecDeque<Batch>,
    load: Load,
    /// Bytes of the first batch that are on the wire already.
    sent: usize,
    pong: Pong,
}

/// Where the pong that waits behind others is, so that a later one can take its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Pong {
    #[default]
    Nowhere,
    First,
    /// Right behind the first batch.
    Second,
}

/// What a write achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) bytes: usize,
    /// Whether the socket took everything.
    pub(crate) all: bool,
}

impl Outbox {
    /// Returns the bytes that are held, each batch with its [`ENTRY`].
    pub(crate) fn bytes(&self) -> usize {
        self.load.all
    }

    pub(crate) fn load(&self) -> Load {
        self.load
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Returns whether a batch of that many bytes fits. Whatever it is fits into an empty outbox.
    pub(crate) fn has_room(&self, bytes: usize, limit: usize) -> bool {
        self.is_empty() || self.load.all + bytes + ENTRY <= limit
    }

    /// Adds frames; returns what is held with them.
    pub(crate) fn push(&mut self, batch: Batch) -> Load {
        let load = batch.load(0);
        self.load += load;
        match &self.first {
            None => self.first = Some(batch),
            Some(_) => self.rest.push_back(batch),
        }
        load
    }

    /// Adds a pong in front of what waits, as control frames may be (RFC 6455 §5.4), in the place
    /// of one that waits already: only the last ping needs an answer (§5.5.3).
    pub(crate) fn push_pong(&mut self, pong: Batch) {
        let load = pong.load(0);
        let old = match (self.pong, &mut self.first, self.rest.front_mut()) {
            (Pong::First, Some(first), _) if self.sent == 0 => Some(std::mem::replace(first, pong)),
            (Pong::Second, _, Some(second)) => Some(std::mem::replace(second, pong)),
            (_, None, _) => {
                self.first = Some(pong);
                self.pong = Pong::First;
                None
            }
            (_, Some(_), _) => {
                self.rest.push_front(pong);
                self.pong = Pong::Second;
                None
            }
        };
        self.load += load;
        if let Some(old) = old {
            self.load -= old.load(0);
        }
    }

    /// Drops the batches of which no byte has been written yet; returns how many frames that were.
    pub(crate) fn discard_unsent(&mut self) -> usize {
        let mut dropped = std::mem::take(&mut self.rest);
        if self.sent == 0 {
            dropped.extend(self.first.take());
        }
        self.pong = Pong::Nowhere;
        self.load = self.first.as_ref().map_or_else(Load::default, |batch| batch.load(self.sent));
        dropped.iter().map(|batch| batch.frames as usize).sum()
    }

    /// Returns how many messages wait; a batch that is half out counts as a whole, control frames
    /// do not.
    pub(crate) fn messages(&self) -> usize {
        let is_begun = self.sent > 0;
        let waiting = self.first.iter().chain(&self.rest).enumerate();
        let messages =
            waiting.filter(|(index, batch)| (*index == 0 && is_begun) || !batch.is_control());
        messages.map(|(_, batch)| batch.frames as usize).sum()
    }

    /// Writes until all is gone or the socket takes no more.
    ///
    /// # Errors
    /// The socket's, except that it would block.
    pub(crate) fn write_to(&mut self, socket: &mut impl Write) -> io::Result<Written> {
        let mut written = 0;
        while let Some(first) = &self.first {
            let (is_alone, bytes) = (self.rest.is_empty(), first.wire.len());
            let result = if is_alone { socket.write(&first.wire) } else { self.write_many(socket) };
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    written += count;
                    if is_alone && count == bytes {
                        self.clear();
                        break;
                    }
                    self.advance(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.rest.capacity() > SPARE + 4 * self.rest.len() {
                        self.rest.shrink_to(2 * self.rest.len());
                    }
                    return Ok(Written { bytes: written, all: false });
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.rest.capacity() > 0 {
            self.rest = VecDeque::new();
        }
        Ok(Written { bytes: written, all: true })
    }

    fn write_many(&self, socket: &mut impl Write) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let mut count = 0;
        for (slice, batch) in slices.iter_mut().zip(self.first.iter().chain(&self.rest)) {
            *slice = IoSlice::new(&batch.wire);
            count += 1;
        }
        socket.write_vectored(slices.get(..count).unwrap_or_default())
    }

    /// Forgets the last batch, which is out.
    fn clear(&mut self) {
        (self.first, self.load, self.sent, self.pong) = (None, Load::default(), 0, Pong::Nowhere);
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(first) = &mut self.first {
            if count < first.wire.len() {
                first.wire.advance(count);
                self.sent += count;
                return;
            }
            count -= first.wire.len();
            self.load -= first.load(self.sent);
            self.sent = 0;
            self.first = self.rest.pop_front();
            self.pong = if self.pong == Pong::Second { Pong::First } else { Pong::Nowhere };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A socket that takes `room` bytes in all.
    struct Socket {
        taken: Vec<u8>,
        room: usize,
    }

    impl Write for Socket {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.taken.extend_from_slice(&bytes[..count]);
            self.room -= count;
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn discarding_keeps_the_frame_that_is_half_on_the_wire() {
        let mut outbox = Outbox::default();
        for frame in ["first", "second", "third"] {
            outbox.push(Bytes::from(frame).into());
        }
        let mut socket = Socket { taken: Vec::new(), room: 7 };
        assert_eq!(
            outbox.write_to(&mut socket).expect("no error"),
            Written { bytes: 7, all: false }
        );
        outbox.push(Batch::shared(Bytes::from("fourthfifth"), 2));
        assert_eq!(outbox.discard_unsent(), 3);
        outbox.push(Bytes::from("close").into());
        socket.room = 100;
        assert!(outbox.write_to(&mut socket).expect("no error").all);
        assert_eq!(socket.taken, b"firstsecondclose");
        assert!(outbox.is_empty() && outbox.bytes() == 0);
    }

    #[test]
    fn one_frame_always_fits_into_an_empty_outbox() {
        let mut outbox = Outbox::default();
        assert!(outbox.has_room(10, 5));
        outbox.push(Bytes::from_static(b"0123456789").into());
        let two = 2 * (10 + ENTRY);
        assert!(!outbox.has_room(10, two - 1) && outbox.has_room(10, two));
    }

    #[test]
    fn what_is_held_is_counted_with_what_the_queue_needs() {
        let mut outbox = Outbox::default();
        for _ in 0..10_000 {
            outbox.push(Bytes::from_static(b"12").into());
        }
        let slots = outbox.rest.capacity() * size_of::<Batch>();
        assert!(slots + 10_000 * 48 <= outbox.bytes(), "{slots} of {}", outbox.bytes());
        let mut socket = Socket { taken: Vec::new(), room: 2 * 9_900 };
        assert!(!outbox.write_to(&mut socket).expect("no error").all);
        let slots = outbox.rest.capacity() * size_of::<Batch>();
        assert!(slots <= 2 * outbox.bytes(), "{slots} are kept for {}", outbox.bytes());
    }

    #[test]
    fn a_batch_counts_whole_until_its_last_byte_is_out() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from(vec![0; 1_000]).into());
        let whole = outbox.load();
        let mut socket = Socket { taken: Vec::new(), room: 999 };
        assert!(!outbox.write_to(&mut socket).expect("no error").all);
        assert_eq!(outbox.load(), whole);
        socket.room = 1;
        assert!(outbox.write_to(&mut socket).expect("no error").all);
        assert_eq!(outbox.load(), Load::default());
    }

    #[test]
    fn bytes_that_others_hold_too_are_not_its_own() {
        let mut outbox = Outbox::default();
        outbox.push(Batch::shared(Bytes::from(vec![0; 1_000]), 2));
        assert_eq!(outbox.load(), Load { all: 1_000 + ENTRY, own: ENTRY });
    }

    #[test]
    fn one_pong_waits_however_many_are_asked_for() {
        let mut outbox = Outbox::default();
        for frame in ["first", "second"] {
            outbox.push(Bytes::from(frame).into());
        }
        let mut socket = Socket { taken: Vec::new(), room: 2 };
        outbox.write_to(&mut socket).expect("no error");
        let before = outbox.bytes();
        for number in 0..9 {
            outbox.push_pong(Bytes::from(format!("pong{number}")).into());
            assert_eq!(outbox.bytes(), before + ENTRY + 5);
        }
        // The first is gone, and the pong begun: what comes now is another.
        socket.room = 5;
        outbox.write_to(&mut socket).expect("no error");
        for number in 0..9 {
            outbox.push_pong(Bytes::from(format!("PONG{number}")).into());
        }
        socket.room = 100;
        assert!(outbox.write_to(&mut socket).expect("no error").all);
        assert_eq!(socket.taken, b"firstpong8PONG8second");
        outbox.push_pong(Bytes::from("a").into());
        outbox.push_pong(Bytes::from("b").into());
        outbox.push(Bytes::from("c").into());
        outbox.push_pong(Bytes::from("d").into());
        assert!(outbox.write_to(&mut socket).expect("no error").all);
        assert!(socket.taken.ends_with(b"seconddc"));
        assert_eq!(outbox.load(), Load::default());
    }

    proptest! {
        /// Whatever is done: what is counted is what is held, and pongs stand between frames.
        #[test]
        fn the_load_is_the_sum_of_what_waits(steps in prop::collection::vec((0..6_u8, 1_usize..300), 0..200)) {
            let (mut outbox, mut socket) = (Outbox::default(), Socket { taken: Vec::new(), room: 0 });
            for (step, size) in steps {
                match step {
                    0 | 1 => drop(outbox.push(Bytes::from(vec![1; size]).into())),
                    2 => drop(outbox.push(Batch::shared(Bytes::from(vec![1; size]), 3))),
                    3 => outbox.push_pong(Bytes::from(vec![2; size % 125 + 2]).into()),
                    4 if size < 30 => drop(outbox.discard_unsent()),
                    _ => {
                        socket.room = size;
                        outbox.write_to(&mut socket).expect("no error");
                    }
                }
                let mut expected = Load::default();
                for (at, batch) in outbox.first.iter().chain(&outbox.rest).enumerate() {
                    expected += batch.load(if at == 0 { outbox.sent } else { 0 });
                }
                prop_assert_eq!(outbox.load(), expected);
                prop_assert!(outbox.rest.iter().filter(|batch| batch.wire[0] == 2).count() <= 1);
            }
            socket.room = usize::MAX;
            prop_assert!(outbox.write_to(&mut socket).expect("no error").all);
            prop_assert_eq!(outbox.load(), Load::default());
        }

        #[test]
        fn every_byte_leaves_once_and_in_order(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..200),
            rooms in prop::collection::vec(1_usize..400, 1..50),
        ) {
            let mut outbox = Outbox::default();
            for frame in &frames {
                outbox.push(Bytes::copy_from_slice(frame).into());
            }
            let mut socket = Socket { taken: Vec::new(), room: 0 };
            for room in rooms.into_iter().chain([usize::MAX]) {
                socket.room = room;
                let written = outbox.write_to(&mut socket).expect("no error");
                prop_assert_eq!(written.all, outbox.is_empty());
            }
            prop_assert_eq!(socket.taken, frames.concat());
        }
    }
}
