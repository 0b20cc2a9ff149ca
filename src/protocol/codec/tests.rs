//! The codec against itself, against hand-made frames, and cut at every place.

use proptest::prelude::*;

use super::*;

const LIMITS: FrameLimits =
    FrameLimits { frame_bytes: 1 << 20, message_bytes: 1 << 20, binary: true };
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// A frame as a client sends it.
fn client_frame(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let unmasked = encode(opcode, payload);
    let header_len = unmasked.len() - payload.len();
    let mut frame = unmasked[..header_len].to_vec();
    frame[0] = u8::from(fin) << 7 | opcode.bits();
    frame[1] |= 0x80;
    frame.extend_from_slice(&MASK);
    let mut masked = payload.to_vec();
    unmask(&mut masked, MASK);
    frame.extend_from_slice(&masked);
    frame
}

#[test]
fn what_is_encoded_can_be_taken_apart() {
    for len in [0, 1, 125, 126, 127, 65_535, 65_536, 131_072] {
        let payload = vec![b'x'; len];
        for opcode in [Opcode::Text, Opcode::Binary] {
            assert_eq!(
                payload_of(&encode(opcode, &payload)),
                Some((opcode, &payload[..])),
                "{len}"
            );
        }
    }
    assert_eq!(payload_of(&[]), None);
    assert_eq!(payload_of(&[0x81]), None);
    assert_eq!(payload_of(&[0x81, 126, 0]), None);
}

/// Decodes `wire` handed over in pieces of the given sizes, again and again.
fn decode(
    wire: &[u8],
    pieces: &[usize],
    limits: &FrameLimits,
) -> Result<Vec<Message<'static>>, Violation> {
    let mut decoder = Decoder::default();
    let mut messages = Vec::new();
    let mut rest = wire;
    let mut sizes = pieces.iter().copied().cycle();
    while !rest.is_empty() {
        let size = sizes.next().unwrap_or(rest.len()).clamp(1, rest.len());
        let mut piece = rest[..size].to_vec();
        rest = &rest[size..];
        let mut input = piece.as_mut_slice();
        while let Some(message) = decoder.next(&mut input, limits)? {
            messages.push(owned(message));
        }
        assert!(input.is_empty(), "all input is taken");
    }
    Ok(messages)
}

fn owned(message: Message<'_>) -> Message<'static> {
    match message {
        Message::Text(text) => Message::Text(text.into_owned().into()),
        Message::Binary(bytes) => Message::Binary(bytes.into_owned().into()),
        Message::Ping(bytes) => Message::Ping(bytes.into_owned().into()),
        Message::Pong(bytes) => Message::Pong(bytes.into_owned().into()),
        Message::Close(close) => {
            Message::Close(close.map(|(code, reason)| (code, reason.into_owned().into())))
        }
    }
}

fn violation(wire: &[u8], limits: &FrameLimits) -> Violation {
    let whole = decode(wire, &[wire.len()], limits).expect_err("a violation");
    let bytewise = decode(wire, &[1], limits).expect_err("a violation");
    assert_eq!(whole, bytewise, "however the bytes arrive");
    whole
}

#[test]
fn frame_of_the_rfc_is_decoded() {
    // RFC 6455 §5.7: a single-frame masked text message, "Hello".
    let wire = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(decode(&wire, &[wire.len()], &LIMITS), Ok(vec![Message::Text("Hello".into())]));
    assert_eq!(encode(Opcode::Text, b"Hello")[..], [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
}

#[test]
fn control_frames_may_lie_between_fragments() {
    let mut wire = client_frame(false, Opcode::Text, "Grüße, ".as_bytes());
    wire.extend(client_frame(true, Opcode::Ping, b"are you there?"));
    wire.extend(client_frame(true, Opcode::Continuation, "Major Tom ✓".as_bytes()));
    wire.extend(client_frame(true, Opcode::Close, b"\x03\xe8bye"));
    let expected = vec![
        Message::Ping(b"are you there?".to_vec().into()),
        Message::Text("Grüße, Major Tom ✓".into()),
        Message::Close(Some((1000, "bye".into()))),
    ];
    for size in 1..=wire.len() {
        assert_eq!(decode(&wire, &[size], &LIMITS), Ok(expected.clone()), "pieces of {size}");
    }
}

#[test]
fn nothing_is_held_between_messages() {
    let mut decoder = Decoder::default();
    let wire = client_frame(true, Opcode::Text, b"hello");
    let (mut head, mut tail) = (wire[..3].to_vec(), wire[3..].to_vec());
    assert_eq!(decoder.next(&mut head.as_mut_slice(), &LIMITS), Ok(None));
    assert!(decoder.is_mid_message());
    let message = decoder.next(&mut tail.as_mut_slice(), &LIMITS).expect("valid");
    assert_eq!(message.map(owned), Some(Message::Text("hello".into())));
    assert!(!decoder.is_mid_message(), "the buffers are gone");
}

#[test]
fn violations_are_named() {
    let protocol = |wire: &[u8]| match violation(wire, &LIMITS) {
        Violation::Protocol(what) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(protocol(&[0xC1, 0x80, 0, 0, 0, 0]), "reserved bit set");
    assert_eq!(protocol(&[0x83, 0x80, 0, 0, 0, 0]), "unknown opcode");
    assert_eq!(protocol(&[0x81, 0x01, b'a']), "unmasked frame");
    assert_eq!(protocol(&[0x81, 0xFE, 0, 125, 0, 0, 0, 0]), "length not in its shortest form");
    let highest_bit = [0x81, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(protocol(&highest_bit), "length with its highest bit set");
    assert_eq!(protocol(&client_frame(false, Opcode::Ping, b"")), "fragmented control frame");
    assert_eq!(protocol(&client_frame(true, Opcode::Ping, &[0; 126])), "control frame too long");
    assert_eq!(
        protocol(&client_frame(true, Opcode::Continuation, b"")),
        "continuation without a message"
    );
    assert_eq!(
        protocol(&client_frame(true, Opcode::Close, b"\x03")),
        "close frame with half a code"
    );
    assert_eq!(
        protocol(&client_frame(true, Opcode::Close, &1005_u16.to_be_bytes())),
        "invalid close code"
    );
    let twice =
        [client_frame(false, Opcode::Text, b"a"), client_frame(true, Opcode::Text, b"b")].concat();
    assert_eq!(protocol(&twice), "message within a message");
}

#[test]
fn utf8_is_refused_at_the_first_hopeless_byte() {
    assert_eq!(
        violation(&client_frame(true, Opcode::Text, b"\xce\xba\xff"), &LIMITS),
        Violation::InvalidUtf8
    );
    assert_eq!(
        violation(&client_frame(true, Opcode::Text, b"cut \xe2\x82"), &LIMITS),
        Violation::InvalidUtf8
    );
    let reason = client_frame(true, Opcode::Close, b"\x03\xe8\xff");
    assert_eq!(violation(&reason, &LIMITS), Violation::InvalidUtf8);
    // The message never ends, and is refused all the same.
    let early = client_frame(false, Opcode::Text, b"\xf4\x90");
    assert_eq!(decode(&early, &[1], &LIMITS), Err(Violation::InvalidUtf8));
}

#[test]
fn limits_hold_before_the_payload_arrives() {
    let limits = FrameLimits { frame_bytes: 10, message_bytes: 15, binary: false };
    let header_only = &client_frame(true, Opcode::Text, &[b'a'; 11])[..6];
    assert_eq!(violation(header_only, &limits), Violation::TooBig);
    let claims_much = [0x81, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];
    assert_eq!(violation(&claims_much, &limits), Violation::TooBig);
    let fragments = [
        client_frame(false, Opcode::Text, &[b'a'; 10]),
        client_frame(true, Opcode::Continuation, &[b'b'; 6]),
    ];
    assert_eq!(violation(&fragments.concat(), &limits), Violation::TooBig);
    assert_eq!(
        violation(&client_frame(true, Opcode::Binary, b""), &limits),
        Violation::BinaryRefused
    );
}

#[test]
fn close_frames_carry_only_what_may_be_sent() {
    assert_eq!(encode_close(1001, "Going away")[..], *b"\x88\x0c\x03\xe9Going away");
    assert_eq!(encode_close(1006, "not on the wire")[..], *b"\x88\x00");
    let cut = encode_close(1000, &"ä".repeat(100));
    assert_eq!(cut.len(), 2 + 2 + 122, "cut at a character's edge");
}

fn any_messages() -> impl Strategy<Value = Vec<Message<'static>>> {
    let payload = prop::collection::vec(any::<u8>(), 0..300);
    let control = prop::collection::vec(any::<u8>(), 0..=CONTROL_MAX);
    let one = prop_oneof![
        ".{0,200}".prop_map(|text: String| Message::Text(text.into())),
        payload.prop_map(|bytes| Message::Binary(bytes.into())),
        control.clone().prop_map(|bytes| Message::Ping(bytes.into())),
        control.prop_map(|bytes| Message::Pong(bytes.into())),
        Just(Message::Text("x".repeat(70_000).into())),
    ];
    prop::collection::vec(one, 1..8)
}

/// Puts messages on the wire, data messages in fragments of at most `fragment` bytes.
fn wire(messages: &[Message<'_>], fragment: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    for message in messages {
        let (opcode, payload): (_, &[u8]) = match message {
            Message::Text(text) => (Opcode::Text, text.as_bytes()),
            Message::Binary(bytes) => (Opcode::Binary, bytes),
            Message::Ping(bytes) => {
                wire.extend(client_frame(true, Opcode::Ping, bytes));
                continue;
            }
            Message::Pong(bytes) => {
                wire.extend(client_frame(true, Opcode::Pong, bytes));
                continue;
            }
            Message::Close(_) => {
                wire.extend(client_frame(true, Opcode::Close, b""));
                continue;
            }
        };
        let count = payload.len().div_ceil(fragment).max(1);
        for index in 0..count {
            let piece = &payload[index * fragment..payload.len().min((index + 1) * fragment)];
            let opcode = if index == 0 { opcode } else { Opcode::Continuation };
            wire.extend(client_frame(index + 1 == count, opcode, piece));
        }
    }
    wire
}

proptest! {
    #[test]
    fn decode_undoes_encode_however_it_is_cut(
        messages in any_messages(),
        fragment in 1_usize..100_000,
        pieces in prop::collection::vec(1_usize..5_000, 1..6),
    ) {
        let wire = wire(&messages, fragment.max(messages.iter().map(weight).max().unwrap_or(0) / 50 + 1));
        prop_assert_eq!(decode(&wire, &pieces, &LIMITS), Ok(messages));
    }

    #[test]
    fn no_bytes_make_it_panic_or_hoard(bytes in prop::collection::vec(any::<u8>(), 0..2_000), size in 1_usize..64) {
        let limits = FrameLimits { frame_bytes: 512, message_bytes: 1_024, binary: true };
        let whole = decode(&bytes, &[bytes.len().max(1)], &limits);
        let pieces = decode(&bytes, &[size], &limits);
        prop_assert_eq!(whole.is_ok(), pieces.is_ok(), "however the bytes arrive");
        if whole.is_ok() {
            prop_assert_eq!(whole, pieces);
        }
        let skipped = |piece| closes_behind_violation(&bytes, piece, &limits);
        prop_assert_eq!(skipped(bytes.len().max(1)), skipped(size));
    }
}

fn weight(message: &Message<'_>) -> usize {
    match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) => bytes.len(),
        _ => 0,
    }
}

/// Decodes up to a violation, and skips what is left, in pieces.
fn closes_behind_violation(wire: &[u8], piece: usize, limits: &FrameLimits) -> bool {
    let (mut decoder, mut broken) = (Decoder::default(), false);
    wire.chunks(piece).any(|chunk| {
        let mut chunk = chunk.to_vec();
        let mut input = chunk.as_mut_slice();
        while !broken {
            match decoder.next(&mut input, limits) {
                Ok(Some(_)) => {}
                Ok(None) => return false,
                Err(_) => broken = true,
            }
        }
        decoder.skip(input)
    })
}

#[test]
fn a_close_frame_is_found_behind_every_violation() {
    let limits = FrameLimits { frame_bytes: 200, message_bytes: 300, binary: false };
    let unmasked = encode(Opcode::Text, &[b'x'; 150]).to_vec();
    let mut reserved = client_frame(true, Opcode::Text, &[b'x'; 150]);
    reserved[0] |= 0x40;
    let mut unknown = client_frame(true, Opcode::Text, &[0x88; 150]);
    unknown[0] = 0x83;
    let violations = [
        client_frame(true, Opcode::Text, &[0x88; 70_000]),
        client_frame(true, Opcode::Binary, &[0x88; 150]),
        client_frame(true, Opcode::Text, &[0xFF; 150]),
        [
            client_frame(false, Opcode::Text, b"\xce"),
            client_frame(true, Opcode::Continuation, &[b'x'; 150]),
        ]
        .concat(),
        [
            client_frame(false, Opcode::Text, &[b'x'; 150]),
            client_frame(true, Opcode::Text, &[b'x'; 150]),
        ]
        .concat(),
        client_frame(true, Opcode::Ping, &[0x88; 126]),
        unmasked,
        reserved,
        unknown,
    ];
    let behind =
        [client_frame(true, Opcode::Text, &[0x88; 150]), client_frame(true, Opcode::Ping, b"")]
            .concat();
    let close = client_frame(true, Opcode::Close, b"\x03\xe8bye");
    for (number, violation) in violations.iter().enumerate() {
        let wire = [&violation[..], &behind, &close].concat();
        for piece in [1, 2, 3, 7, 4_096, wire.len()] {
            assert!(
                closes_behind_violation(&wire, piece, &limits),
                "{number} in pieces of {piece}"
            );
            assert!(
                !closes_behind_violation(&wire[..wire.len() - 1], piece, &limits),
                "{number}: not whole yet"
            );
        }
    }
}

#[test]
fn a_close_frame_that_is_the_violation_is_one() {
    for close in [&b"\x03"[..], b"\x03\xe7", b"\x03\xe8\xff"] {
        let wire = client_frame(true, Opcode::Close, close);
        assert!(
            closes_behind_violation(&wire, wire.len(), &LIMITS)
                && closes_behind_violation(&wire, 1, &LIMITS)
        );
    }
}
proptest! {
    #[test]
    fn what_is_encoded_is_a_message_and_nothing_else_is(payload in prop::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let binary = encode(Opcode::Binary, &payload);
        prop_assert!(is_message(&binary, payload.len()));
        prop_assert!(payload.is_empty() || !is_message(&binary, payload.len() - 1), "too long");
        prop_assert_eq!(is_message(&encode(Opcode::Text, &payload), 300), str::from_utf8(&payload).is_ok());
        for other in [Opcode::Close, Opcode::Ping, Opcode::Pong, Opcode::Continuation] {
            prop_assert!(!is_message(&encode(other, &payload), 300));
        }
        prop_assert!(!is_message(&[&binary[..], b"x"].concat(), 400), "something behind it");
        prop_assert!(!is_message(&binary[..binary.len() - 1], 400), "cut");
        let header = binary.len() - payload.len();
        let mut bent = binary.to_vec();
        bent[at.index(header)] ^= 1 << bit;
        prop_assert!(!is_message(&bent, 400) || bent[0] & 0x0F == 1, "a bent header: {:?}", &bent[..header]);
    }

    #[test]
    fn any_bytes_are_looked_at_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        if is_message(&bytes, 40) {
            let (opcode, payload) = payload_of(&bytes).expect("a message");
            prop_assert_eq!(&encode(opcode, payload)[..], &bytes[..]);
        }
    }
}
