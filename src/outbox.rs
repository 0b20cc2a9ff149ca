//! One connection's send queue.
//!
//! Bounded in bytes; whoever pushes learns of the bound at once and never waits. It owns no memory while empty.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use bytes::{Buf as _, Bytes};

/// Frames that go into one system call. 64 is well under the kernel's 1,024, and more showed no gain.
const MAX_SLICES: usize = 64;

/// Frames that wait for the socket.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// Whether part of the first frame is already on the wire.
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
        self.frames.is_empty()
    }

    /// Returns whether `frame` fits. One always fits into an empty outbox.
    pub(crate) fn has_room(&self, frame: &Bytes, limit: usize) -> bool {
        self.frames.is_empty() || self.bytes + frame.len() <= limit
    }

    /// Adds a frame.
    pub(crate) fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    /// Drops the frames of which no byte has been written yet; returns how many.
    pub(crate) fn discard_unsent(&mut self) -> usize {
        let keep = usize::from(self.first_begun).min(self.frames.len());
        let dropped = self.frames.len() - keep;
        self.frames.truncate(keep);
        self.bytes = self.frames.iter().map(Bytes::len).sum();
        dropped
    }

    /// Writes until all is gone or the socket takes no more.
    ///
    /// # Errors
    /// The socket's, except that it would block.
    pub(crate) fn write_to(&mut self, socket: &mut impl Write) -> io::Result<Written> {
        let mut written = 0;
        while !self.frames.is_empty() {
            match self.write_once(socket) {
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
        self.frames = VecDeque::new();
        Ok(Written { bytes: written, all: true })
    }

    fn write_once(&self, socket: &mut impl Write) -> io::Result<usize> {
        if let (Some(frame), 1) = (self.frames.front(), self.frames.len()) {
            return socket.write(frame);
        }
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let count = self.frames.len().min(MAX_SLICES);
        for (slice, frame) in slices.iter_mut().zip(&self.frames) {
            *slice = IoSlice::new(frame);
        }
        socket.write_vectored(slices.get(..count).unwrap_or_default())
    }

    fn advance(&mut self, mut count: usize) {
        self.bytes -= count;
        while let Some(frame) = self.frames.front_mut() {
            if count < frame.len() {
                frame.advance(count);
                self.first_begun |= count > 0;
                return;
            }
            count -= frame.len();
            self.first_begun = false;
            self.frames.pop_front();
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
            outbox.push(Bytes::from(frame));
        }
        let mut socket = Socket { taken: Vec::new(), room: 7 };
        assert_eq!(outbox.write_to(&mut socket).expect("no error"), Written { bytes: 7, all: false });
        assert_eq!(outbox.discard_unsent(), 1);
        outbox.push(Bytes::from("close"));
        socket.room = 100;
        assert!(outbox.write_to(&mut socket).expect("no error").all);
        assert_eq!(socket.taken, b"firstsecondclose");
        assert!(outbox.is_empty() && outbox.bytes() == 0);
    }

    #[test]
    fn one_frame_always_fits_into_an_empty_outbox() {
        let mut outbox = Outbox::default();
        let frame = Bytes::from_static(b"0123456789");
        assert!(outbox.has_room(&frame, 5));
        outbox.push(frame.clone());
        assert!(!outbox.has_room(&frame, 19) && outbox.has_room(&frame, 20));
    }

    proptest! {
        #[test]
        fn every_byte_leaves_once_and_in_order(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..200),
            rooms in prop::collection::vec(1_usize..400, 1..50),
        ) {
            let mut outbox = Outbox::default();
            for frame in &frames {
                outbox.push(Bytes::copy_from_slice(frame));
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
