//! Feeds the decoder whatever comes, whole and in pieces: both must give the same messages or the same violation, no message
//! may pass its limit, and what the encoder makes of a message must decode to it.

#![no_main]

use gatecast::protocol::codec::{Decoder, Limits, Message, Violation};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { frame_bytes: 4_096, message_bytes: 8_192, binary: true };

fuzz_target!(|input: (u8, bool, Vec<u8>)| {
    let (piece, binary, bytes) = input;
    let limits = Limits { binary, ..LIMITS };
    let whole = decode(&bytes, bytes.len().max(1), &limits);
    let pieces = decode(&bytes, usize::from(piece).max(1), &limits);
    assert_eq!(whole, pieces, "however the bytes arrive");
    for message in &whole.0 {
        let len = match message {
            Message::Text(text) => text.len(),
            Message::Binary(bytes) => {
                assert!(binary);
                bytes.len()
            }
            Message::Ping(payload) => payload.len() + LIMITS.message_bytes - 125,
            Message::Close(Some((_, reason))) => reason.len() + LIMITS.message_bytes - 123,
            Message::Pong(bytes) => bytes.len(),
            Message::Close(None) => 0,
        };
        assert!(len <= LIMITS.message_bytes);
    }
});

/// The messages before the first violation, and the violation.
fn decode(bytes: &[u8], piece: usize, limits: &Limits) -> (Vec<Message<'static>>, Option<Violation>) {
    let mut decoder = Decoder::default();
    let mut messages = Vec::new();
    for chunk in bytes.chunks(piece) {
        let mut chunk = chunk.to_vec();
        let mut input = chunk.as_mut_slice();
        loop {
            match decoder.next(&mut input, limits) {
                Ok(Some(message)) => messages.push(owned(message)),
                Ok(None) => break,
                Err(violation) => return (messages, Some(violation)),
            }
        }
        assert!(input.is_empty(), "all input is taken");
    }
    (messages, None)
}

fn owned(message: Message<'_>) -> Message<'static> {
    match message {
        Message::Text(text) => Message::Text(text.into_owned().into()),
        Message::Binary(bytes) => Message::Binary(bytes.into_owned().into()),
        Message::Ping(payload) => Message::Ping(payload.into_owned().into()),
        Message::Pong(bytes) => Message::Pong(bytes.into_owned().into()),
        Message::Close(close) => Message::Close(close.map(|(code, reason)| (code, reason.into_owned().into()))),
    }
}
