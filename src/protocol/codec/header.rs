//! The header of one frame: its layout (RFC 6455 §5.2) and what of it is refused.

use super::frame::{CONTROL_MAX, FrameLimits, Opcode, Violation};

/// Longest header: two bytes, eight of length, four of mask.
pub(super) const HEADER_MAX: usize = 14;

/// A parsed header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) fin: bool,
    pub(super) opcode: Opcode,
    pub(super) mask: [u8; 4],
    pub(super) payload_len: usize,
    /// Bytes of the header itself.
    pub(super) wire_len: usize,
}

impl Header {
    /// Reads a header from the front of `bytes`; `None` if more of it has to arrive.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, Violation> {
        let [first, rest @ ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Violation::Protocol("reserved bit set"));
        }
        let opcode =
            Opcode::from_bits(first & 0x0F).ok_or(Violation::Protocol("unknown opcode"))?;
        let [second, rest @ ..] = rest else { return Ok(None) };
        if second & 0x80 == 0 {
            return Err(Violation::Protocol("unmasked frame"));
        }
        let Some((payload_len, len_bytes)) = payload_len(second & 0x7F, rest)? else {
            return Ok(None);
        };
        let Some(mask) = rest.get(len_bytes..).and_then(|rest| rest.first_chunk::<4>()) else {
            return Ok(None);
        };
        let wire_len = 2 + len_bytes + mask.len();
        Ok(Some(Self { fin: first & 0x80 != 0, opcode, mask: *mask, payload_len, wire_len }))
    }

    /// Reads as much of a header as is needed to get past its frame, whatever is wrong with it:
    /// opcode and payload length; `None` if more of it has to arrive.
    pub(super) fn extent(bytes: &[u8]) -> Option<(Opcode, usize)> {
        let [first, second, rest @ ..] = bytes else { return None };
        let (payload_len, len_bytes) = match second & 0x7F {
            126 => (u16::from_be_bytes(*rest.first_chunk()?).into(), 2),
            127 => (u64::from_be_bytes(*rest.first_chunk()?), 8),
            len => (len.into(), 0),
        };
        let mask_bytes = if second & 0x80 == 0 { 0 } else { 4 };
        let opcode = Opcode::from_bits(first & 0x0F).unwrap_or(Opcode::Continuation);
        let is_whole = rest.len() >= len_bytes + mask_bytes;
        is_whole.then(|| (opcode, usize::try_from(payload_len).unwrap_or(usize::MAX)))
    }

    /// Checks the header against what came before (`message_len`: bytes so far of a message under
    /// way) and the limits.
    pub(super) fn check(
        &self,
        message_len: Option<usize>,
        limits: &FrameLimits,
    ) -> Result<(), Violation> {
        if self.opcode.is_control() {
            return match (self.fin, self.payload_len) {
                (false, _) => Err(Violation::Protocol("fragmented control frame")),
                (true, len) if len > CONTROL_MAX => {
                    Err(Violation::Protocol("control frame too long"))
                }
                (true, _) => Ok(()),
            };
        }
        match (self.opcode, message_len) {
            (Opcode::Continuation, None) => {
                return Err(Violation::Protocol("continuation without a message"));
            }
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(Violation::Protocol("message within a message"));
            }
            (Opcode::Binary, None) if !limits.binary => return Err(Violation::BinaryRefused),
            _ => {}
        }
        let message_len = message_len.unwrap_or(0).saturating_add(self.payload_len);
        if self.payload_len > limits.frame_bytes || message_len > limits.message_bytes {
            return Err(Violation::TooBig);
        }
        Ok(())
    }

    /// Returns whether the frame is a message of its own, given whether another message is under
    /// way.
    pub(super) fn is_whole_message(&self, within_message: bool) -> bool {
        self.opcode.is_control() || (self.fin && !within_message)
    }
}

/// Reads the length after its 7-bit form; returns it with the count of further bytes it took. The
/// shortest form is a must.
fn payload_len(short: u8, rest: &[u8]) -> Result<Option<(usize, usize)>, Violation> {
    const NOT_MINIMAL: Violation = Violation::Protocol("length not in its shortest form");
    match short {
        126 => {
            let Some(bytes) = rest.first_chunk::<2>() else { return Ok(None) };
            let len = u16::from_be_bytes(*bytes);
            if usize::from(len) <= CONTROL_MAX {
                Err(NOT_MINIMAL)
            } else {
                Ok(Some((len.into(), 2)))
            }
        }
        127 => {
            let Some(bytes) = rest.first_chunk::<8>() else { return Ok(None) };
            let len = u64::from_be_bytes(*bytes);
            if len <= u16::MAX.into() {
                return Err(NOT_MINIMAL);
            }
            if len >> 63 != 0 {
                return Err(Violation::Protocol("length with its highest bit set"));
            }
            usize::try_from(len).map(|len| Some((len, 8))).map_err(|_| Violation::TooBig)
        }
        len => Ok(Some((len.into(), 0))),
    }
}
