//! WebSocket frames of a client: encodes masked ones, decodes unmasked ones.
//!
//! Rule: no I/O and no copies; a frame borrows its payload from the bytes it was read from.

use anyhow::{Result, bail, ensure};

/// Larger than any message of a load test; a server that announces more is broken.
const MAX_PAYLOAD: usize = 16 << 20;
/// Masks protect proxies from scripts in browsers, of which there are none here; a fixed one keeps
/// the client cheap and its bytes the same in every run.
const MASK: [u8; 4] = [0x5a, 0xc3, 0x17, 0x8e];

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// The kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opcode {
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// A frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) opcode: Opcode,
    pub(crate) payload: &'a [u8],
}

impl Opcode {
    fn bits(self) -> u8 {
        match self {
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    fn from_bits(bits: u8) -> Result<Self> {
        Ok(match bits {
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            other => {
                bail!("opcode {other:#x} is unknown or a fragment, which this client does not read")
            }
        })
    }
}

/// Reads the frame at the start of `bytes`; returns it with its length on the wire, or nothing
/// while it is incomplete. Refuses what a client must not accept: masked or fragmented frames,
/// reserved bits, unknown opcodes, absurd lengths.
pub(crate) fn decode(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    ensure!(first & RESERVED == 0, "reserved bits are set");
    ensure!(first & FIN != 0, "message is fragmented, which this client does not read");
    ensure!(second & MASKED == 0, "frame from the server is masked");
    let opcode = Opcode::from_bits(first & 0x0f)?;
    let Some((len, rest)) = split_length(*second, rest) else {
        return Ok(None);
    };
    let len = usize::try_from(len)?;
    ensure!(len <= MAX_PAYLOAD, "frame of {len} bytes is larger than {MAX_PAYLOAD}");
    let Some(payload) = rest.get(..len) else {
        return Ok(None);
    };
    let used = bytes.len() - rest.len() + len;
    Ok(Some((Frame { opcode, payload }, used)))
}

/// Appends a masked frame, as clients send them.
pub(crate) fn encode_client(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    put_header(out, opcode, MASKED, payload.len());
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// Appends an unmasked frame, as servers send them.
pub(crate) fn encode_server(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    put_header(out, opcode, 0, payload.len());
    out.extend_from_slice(payload);
}

fn split_length(second: u8, rest: &[u8]) -> Option<(u64, &[u8])> {
    match second & 0x7f {
        126 => rest
            .split_first_chunk::<2>()
            .map(|(len, rest)| (u64::from(u16::from_be_bytes(*len)), rest)),
        127 => rest.split_first_chunk::<8>().map(|(len, rest)| (u64::from_be_bytes(*len), rest)),
        short => Some((u64::from(short), rest)),
    }
}

fn put_header(out: &mut Vec<u8>, opcode: Opcode, mask_bit: u8, len: usize) {
    out.push(FIN | opcode.bits());
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short), _) if short < 126 => out.push(mask_bit | short),
        (_, Ok(medium)) => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: [usize; 8] = [0, 1, 125, 126, 127, 65_535, 65_536, 70_000];

    #[test]
    fn every_length_form_survives_a_round_trip() {
        for (len, header) in LENGTHS.into_iter().zip([2, 2, 2, 4, 4, 4, 10, 10]) {
            let payload = vec![b'p'; len];
            let mut wire = Vec::new();
            encode_server(&mut wire, Opcode::Text, &payload);
            assert_eq!(wire.len(), header + len);
            let (frame, used) = decode(&wire).unwrap().unwrap();
            assert_eq!(
                (frame.opcode, frame.payload, used),
                (Opcode::Text, &payload[..], wire.len())
            );
        }
    }

    #[test]
    fn a_partial_frame_waits_for_the_rest() {
        for len in [5, 300, 66_000] {
            let mut wire = Vec::new();
            encode_server(&mut wire, Opcode::Binary, &vec![b'p'; len]);
            for cut in (0..14).chain([wire.len() - 1]).filter(|cut| *cut < wire.len()) {
                assert_eq!(decode(&wire[..cut]).unwrap(), None, "{cut} of {}", wire.len());
            }
        }
    }

    #[test]
    fn only_the_first_of_two_frames_is_taken() {
        let mut wire = Vec::new();
        encode_server(&mut wire, Opcode::Ping, b"a");
        encode_server(&mut wire, Opcode::Text, b"second");
        let (first, used) = decode(&wire).unwrap().unwrap();
        assert_eq!((first.opcode, first.payload), (Opcode::Ping, &b"a"[..]));
        assert_eq!(decode(&wire[used..]).unwrap().unwrap().0.payload, b"second");
    }

    #[test]
    fn client_frames_are_masked_and_unmask_to_the_payload() {
        for len in LENGTHS {
            let payload: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let mut wire = Vec::new();
            encode_client(&mut wire, Opcode::Text, &payload);
            assert_eq!(wire[1] & MASKED, MASKED);
            let body = &wire[wire.len() - len..];
            let mask = &wire[wire.len() - len - 4..wire.len() - len];
            let plain: Vec<u8> =
                body.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]).collect();
            assert_eq!(plain, payload);
        }
    }

    #[test]
    fn frames_a_server_may_not_send_are_refused() {
        let mut masked = Vec::new();
        encode_client(&mut masked, Opcode::Text, b"hi");
        let reserved: &[u8] = &[0xc1, 0x00];
        let fragment: &[u8] = &[0x01, 0x00];
        let unknown: &[u8] = &[0x83, 0x00];
        let absurd: &[u8] = &[0x82, 0x7f, 0x7f, 0, 0, 0, 0, 0, 0, 0];
        for wire in [&masked, reserved, fragment, unknown, absurd] {
            assert!(decode(wire).is_err(), "{wire:x?}");
        }
    }
}
