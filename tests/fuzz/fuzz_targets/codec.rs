//! Feeds the decoder whatever comes, whole and in pieces: both must give the same messages or the
//! same violation, and no message may pass its limit.

#![no_main]

use gatecast::fuzz::{MESSAGE_BYTES, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, bool, Vec<u8>)| {
    let (piece, binary, bytes) = input;
    let whole = decode(&bytes, bytes.len(), binary);
    let pieces = decode(&bytes, usize::from(piece), binary);
    assert_eq!(whole, pieces, "however the bytes arrive");
    for message in &whole.0 {
        let longest = match message.kind {
            "ping" | "pong" => 125,
            "close" => 123,
            _ => MESSAGE_BYTES,
        };
        assert!(message.payload.len() <= longest, "{}", message.kind);
        assert!(binary || message.kind != "binary");
    }
});
