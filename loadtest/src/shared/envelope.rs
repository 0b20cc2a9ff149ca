//! The layer between frames and payloads: none, or Engine.IO and Socket.IO.

/// A layer between frames and payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Envelope {
    /// None: a text is a payload.
    Plain,
    /// Engine.IO 4 packets (`2` is a ping) with Socket.IO 5 packets in them
    /// (`42["event","payload"]`).
    SocketIo,
}

/// A text from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    Payload(&'a [u8]),
    /// A packet that requires this answer.
    Reply(&'static str),
    /// From now on messages may be sent.
    Welcome,
}

impl Envelope {
    /// Returns whether a client must wait for the server's welcome before it sends.
    pub(crate) fn has_welcome(self) -> bool {
        self == Self::SocketIo
    }

    /// Reads a text from the server. What is unknown is taken for a payload, so that the check of
    /// payloads sees it.
    pub(crate) fn read(self, text: &[u8]) -> Packet<'_> {
        match (self, text) {
            (Self::Plain, _) => Packet::Payload(text),
            (Self::SocketIo, [b'0', ..]) => Packet::Reply("40"),
            (Self::SocketIo, b"2") => Packet::Reply("3"),
            (Self::SocketIo, [b'4', b'0', ..]) => Packet::Welcome,
            (Self::SocketIo, _) => Packet::Payload(event_data(text).unwrap_or(text)),
        }
    }
}

/// Returns the only argument of an event, a string without escapes, since payloads are letters and
/// digits.
fn event_data(text: &[u8]) -> Option<&[u8]> {
    let event = text.strip_prefix(br#"42[""#)?.strip_suffix(br#""]"#)?;
    let comma = event.windows(3).position(|three| three == br#"",""#)?;
    event.get(comma + 3..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_text_is_a_payload_whatever_it_looks_like() {
        for text in [&b"2"[..], b"40{}", b"", br#"42["a","b"]"#] {
            assert_eq!(Envelope::Plain.read(text), Packet::Payload(text));
        }
    }

    #[test]
    fn socket_io_opens_pings_and_wraps() {
        let cases: [(&[u8], Packet<'_>); 6] = [
            (br#"0{"sid":"a"}"#, Packet::Reply("40")),
            (br#"40{"sid":"b"}"#, Packet::Welcome),
            (b"2", Packet::Reply("3")),
            (br#"42["message","abc1"]"#, Packet::Payload(b"abc1")),
            (br#"42["message",{"a":1}]"#, Packet::Payload(br#"42["message",{"a":1}]"#)),
            (br#"44{"message":"no"}"#, Packet::Payload(br#"44{"message":"no"}"#)),
        ];
        for (text, packet) in cases {
            assert_eq!(Envelope::SocketIo.read(text), packet);
        }
    }
}
