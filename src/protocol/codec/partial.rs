//! What has arrived of a message that is not whole yet: header bytes, the frame under way,
//! fragments so far.

use super::frame::{Opcode, Violation, take_at_most, unmask};
use super::header::{HEADER_MAX, Header};

/// What the heads of four allocations take, in bytes.
const ALLOCATIONS: usize = 64;

/// State that exists only between the first and the last byte of a message.
#[derive(Debug, Default)]
pub(super) struct Partial {
    /// First bytes of a header of which more has to arrive.
    header: Vec<u8>,
    /// The frame whose payload is arriving.
    pub(super) frame: Option<Frame>,
    /// The data message under assembly, over all its frames so far.
    message: Option<Assembly>,
    /// Payload so far of the control frame under way; it may lie between two fragments of
    /// `message`.
    control: Vec<u8>,
}

/// A frame whose payload is arriving.
#[derive(Debug)]
pub(super) struct Frame {
    opcode: Opcode,
    fin: bool,
    /// The mask, rotated so that its first byte belongs to the next payload byte.
    mask: [u8; 4],
    /// Payload bytes still to arrive.
    pub(super) remaining: usize,
}

#[derive(Debug)]
struct Assembly {
    opcode: Opcode,
    bytes: Vec<u8>,
    /// How many of `bytes` are known to be whole UTF-8 characters (text only).
    valid: usize,
}

impl Partial {
    pub(super) fn has_header_bytes(&self) -> bool {
        !self.header.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.header.is_empty() && self.frame.is_none() && self.message.is_none()
    }

    /// Returns the bytes that all this takes.
    pub(super) fn held(&self) -> usize {
        let message = self.message.as_ref().map_or(0, |message| message.bytes.capacity());
        size_of::<Self>() + ALLOCATIONS + self.header.capacity() + self.control.capacity() + message
    }

    pub(super) fn message_len(&self) -> Option<usize> {
        self.message.as_ref().map(|message| message.bytes.len())
    }

    /// Moves bytes from `input` until the header is complete; `None` if `input` ended first.
    pub(super) fn complete_header(
        &mut self,
        input: &mut &mut [u8],
    ) -> Result<Option<Header>, Violation> {
        while self.header.len() < HEADER_MAX && !input.is_empty() {
            self.header.extend_from_slice(take_at_most(input, 1));
            if let Some(header) = Header::parse(&self.header)? {
                self.header = Vec::new();
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Starts the payload of a frame whose header has been checked.
    pub(super) fn begin(&mut self, header: &Header) {
        if matches!(header.opcode, Opcode::Text | Opcode::Binary) {
            self.message = Some(Assembly { opcode: header.opcode, bytes: Vec::new(), valid: 0 });
        }
        let Header { fin, opcode, mask, payload_len, .. } = *header;
        self.frame = Some(Frame { opcode, fin, mask, remaining: payload_len });
    }

    /// Goes on without keeping anything; returns whether a close frame ends in `input`, or has
    /// ended.
    pub(super) fn skip(&mut self, mut input: &[u8]) -> bool {
        self.message = None;
        self.control = Vec::new();
        loop {
            if let Some(frame) = &mut self.frame {
                let (skipped, rest) = input.split_at(frame.remaining.min(input.len()));
                frame.remaining -= skipped.len();
                input = rest;
                if frame.remaining > 0 {
                    return false;
                }
                if frame.opcode == Opcode::Close {
                    return true;
                }
                self.frame = None;
            }
            if let Some((opcode, remaining)) = Header::extent(&self.header) {
                self.header.clear();
                self.frame = Some(Frame { opcode, fin: true, mask: [0; 4], remaining });
            } else if let Some((next, rest)) = input.split_first() {
                self.header.push(*next);
                input = rest;
            } else {
                return false;
            }
        }
    }

    /// Notes that the client's close frame has come, although nothing else is known of it.
    pub(super) fn closed(&mut self) {
        self.frame = Some(Frame { opcode: Opcode::Close, fin: true, mask: [0; 4], remaining: 0 });
    }

    /// Takes the next payload bytes of the frame under way.
    pub(super) fn append(&mut self, chunk: &mut [u8]) -> Result<(), Violation> {
        let Some(frame) = &mut self.frame else { return Ok(()) };
        unmask(chunk, frame.mask);
        frame.mask.rotate_left(chunk.len() % 4);
        frame.remaining -= chunk.len();
        match &mut self.message {
            Some(message) if !frame.opcode.is_control() => message.append(chunk),
            _ => {
                self.control.extend_from_slice(chunk);
                Ok(())
            }
        }
    }

    /// Ends the frame under way; returns the message if it was the last of one.
    pub(super) fn end_frame(&mut self) -> Result<Option<(Opcode, Vec<u8>)>, Violation> {
        let Some(frame) = self.frame.take() else { return Ok(None) };
        if frame.opcode.is_control() {
            return Ok(Some((frame.opcode, std::mem::take(&mut self.control))));
        }
        if !frame.fin {
            return Ok(None);
        }
        let Some(message) = self.message.take() else { return Ok(None) };
        if message.opcode == Opcode::Text && message.valid != message.bytes.len() {
            return Err(Violation::InvalidUtf8);
        }
        Ok(Some((message.opcode, message.bytes)))
    }
}

impl Assembly {
    /// Appends a chunk; text that cannot become valid UTF-8 any more is refused at once (RFC 6455
    /// §8.1).
    fn append(&mut self, chunk: &[u8]) -> Result<(), Violation> {
        self.bytes.extend_from_slice(chunk);
        if self.opcode != Opcode::Text {
            return Ok(());
        }
        match str::from_utf8(self.bytes.get(self.valid..).unwrap_or_default()) {
            Ok(text) => self.valid += text.len(),
            Err(error) if error.error_len().is_none() => self.valid += error.valid_up_to(),
            Err(_) => return Err(Violation::InvalidUtf8),
        }
        Ok(())
    }
}
