//! One connection's send queue.
//!
//! Bounded in bytes; whoever pushes learns of the bound at once and never waits. It owns no memory while empty.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use bytes::{Buf as _, Bytes};

/// Batches that go into one system call. 64 is well under the kernel's 1,024, and more showed no gain.
const MAX_SLICES: usize = 64;

/// Whole frames that go to a connection as one piece.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) wire: Bytes,
    pub(crate) frames: usize,
}

impl From<Bytes> for Batch {
    /// One frame.
    fn from(wire: Bytes) -> Self {
        Self { wire, frames: 1 }
    }
}

/// Frames that wait for the socket.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Apart from the rest, so that a single batch, which is the rule, needs no memory of its own.
    first: Option<Batch>,
    /// Empty while there is no first.
    rest: VecDeque<Batch>,
    bytes: usize,
    /// Whether part of the first batch is already on the wire.
    first_begun: bool,
}

/// What a write achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) bytes: usize,
    /// Whether the socket took everything.
    pub(crate) all: bool,
}

impl Outbox {
    /// Returns the bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Returns whether `bytes` more fit. Whatever it is fits into an empty outbox.
    pub(crate) fn has_room(&self, bytes: usize, limit: usize) -> bool {
        self.is_empty() || self.bytes + bytes <= limit
    }

    /// Adds frames.
    pub(crate) fn push(&mut self, batch: Batch) {
        self.bytes += batch.wire.len();
        match &self.first {
            None => self.first = Some(batch),
            Some(_) => self.rest.push_back(batch),
        }
    }

    /// Drops the batches of which no byte has been written yet; returns how many frames that were.
    pub(crate) fn discard_unsent(&mut self) -> usize {
        let mut dropped = std::mem::take(&mut self.rest);
        if !self.first_begun {
            dropped.extend(self.first.take());
        }
        self.bytes = self.first.as_ref().map_or(0, |batch| batch.wire.len());
        dropped.iter().map(|batch| batch.frames).sum()
    }

    /// Writes until all is gone or the socket takes no more.
    ///
    /// # Errors
    /// The socket's, except that it would block.
    pub(crate) fn write_to(&mut self, socket: &mut impl Write) -> io::Result<Written> {
        let mut written = 0;
        while let Some(first) = &self.first {
            let result = match self.rest.is_empty() {
                true => socket.write(&first.wire),
                false => self.write_many(socket),
            };
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    written += count;
                    self.advance(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
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

    fn advance(&mut self, mut count: usize) {
        self.bytes -= count;
        while let Some(first) = &mut self.first {
            if count < first.wire.len() {
                first.wire.advance(count);
                self.first_begun |= count > 0;
                return;
            }
            count -= first.wire.len();
            self.first_begun = false;
            self.first = self.rest.pop_front();
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
        assert_eq!(outbox.write_to(&mut socket).expect("no error"), Written { bytes: 7, all: false });
        outbox.push(Batch { wire: Bytes::from("fourthfifth"), frames: 2 });
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
        assert!(!outbox.has_room(10, 19) && outbox.has_room(10, 20));
    }

    proptest! {
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
                let before = outbox.bytes();
                let written = outbox.write_to(&mut socket).expect("no error");
                prop_assert_eq!(before - written.bytes, outbox.bytes());
                prop_assert_eq!(written.all, outbox.is_empty());
            }
            prop_assert_eq!(socket.taken, frames.concat());
        }
    }
}
