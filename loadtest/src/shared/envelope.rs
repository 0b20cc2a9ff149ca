//! What lies between frames and payloads.

/// What lies between frames and payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Envelope {
    /// Nothing: a text is a payload.
    Plain,
    /// Engine.IO 4 packets (`2` is a ping) with Socket.IO 5 packets in them (`42["event","payload"]`).
    SocketIo,
}

/// What a text from the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard<'a> {
    Payload(&'a [u8]),
    /// To be answered by this.
    Question(&'static str),
    /// From now on messages may be sent.
    Welcome,
}

impl Envelope {
    /// Returns whether the server must welcome a client before it may send.
    pub(crate) fn has_welcome(self) -> bool {
        self == Self::SocketIo
    }

    /// Reads a text from the server. What is unknown is a payload, so that whoever checks payloads sees it.
    pub(crate) fn read(self, text: &[u8]) -> Heard<'_> {
        match (self, text) {
            (Self::Plain, _) => Heard::Payload(text),
            (Self::SocketIo, [b'0', ..]) => Heard::Question("40"),
            (Self::SocketIo, b"2") => Heard::Question("3"),
            (Self::SocketIo, [b'4', b'0', ..]) => Heard::Welcome,
            (Self::SocketIo, _) => Heard::Payload(event_data(text).unwrap_or(text)),
        }
    }
}

/// Returns the only argument of an event, a string in which nothing is escaped, since payloads are letters and digits.
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
            assert_eq!(Envelope::Plain.read(text), Heard::Payload(text));
        }
    }

    #[test]
    fn socket_io_opens_pings_and_wraps() {
        let cases: [(&[u8], Heard<'_>); 6] = [
            (br#"0{"sid":"a"}"#, Heard::Question("40")),
            (br#"40{"sid":"b"}"#, Heard::Welcome),
            (b"2", Heard::Question("3")),
            (br#"42["message","abc1"]"#, Heard::Payload(b"abc1")),
            (br#"42["message",{"a":1}]"#, Heard::Payload(br#"42["message",{"a":1}]"#)),
            (br#"44{"message":"no"}"#, Heard::Payload(br#"44{"message":"no"}"#)),
        ];
        for (text, heard) in cases {
            assert_eq!(Envelope::SocketIo.read(text), heard);
        }
    }
}
