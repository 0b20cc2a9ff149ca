//! What frames are made of, and what a client may send.

/// Longest payload of a control frame (RFC 6455 §5.5), in bytes.
pub(crate) const CONTROL_MAX: usize = 125;

/// What a frame carries (RFC 6455 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opcode {
    /// Goes on with a fragmented message.
    Continuation,
    /// UTF-8 text.
    Text,
    /// Bytes.
    Binary,
    /// Ends the connection.
    Close,
    /// Asks for a pong.
    Ping,
    /// Answers a ping.
    Pong,
}

impl Opcode {
    pub(super) fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    pub(super) fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }

    /// Returns whether it is one of RFC 6455 §5.5.
    #[must_use]
    pub(crate) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// What a client may send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameLimits {
    /// Longest payload of one frame, in bytes.
    pub(crate) frame_bytes: usize,
    /// Longest message, all fragments together, in bytes.
    pub(crate) message_bytes: usize,
    /// Whether binary messages are taken.
    pub(crate) binary: bool,
}

/// How a client broke the protocol or a limit; [`crate::protocol::close::Close`] has the codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    /// Against RFC 6455; the text says where, for the close frame's reason.
    #[error("{0}")]
    Protocol(&'static str),
    /// A binary message where only text is taken.
    #[error("binary message")]
    BinaryRefused,
    /// A text message or a close reason that is not UTF-8.
    #[error("invalid UTF-8")]
    InvalidUtf8,
    /// A frame or a message over its limit.
    #[error("message too big")]
    TooBig,
}

pub(super) fn take_at_most<'a>(input: &mut &'a mut [u8], wanted: usize) -> &'a mut [u8] {
    let whole = std::mem::take(input);
    let at = wanted.min(whole.len());
    let (taken, rest) = whole.split_at_mut(at);
    *input = rest;
    taken
}

/// Removes (or applies) a mask, whose first byte belongs to the first of `payload` (RFC 6455 §5.3).
pub(super) fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let (words, tail) = payload.as_chunks_mut::<4>();
    let key = u32::from_ne_bytes(mask);
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ key).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(mask) {
        *byte ^= key;
    }
}
