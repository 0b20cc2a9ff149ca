//! WebSocket frames (RFC 6455), without I/O: bytes in, messages out, and the reverse.
//!
//! Rule: what a stranger sent can end in an error but not in a panic, and memory follows the bytes
//! that have really arrived, never the length that a header claims. A message that lies whole in
//! the input is handed out in place; only a partial one is copied, so an idle connection holds no
//! buffer.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};

pub(crate) use self::frame::{CONTROL_MAX, FrameLimits, Opcode, Violation};
use self::frame::{take_at_most, unmask};
use self::header::Header;
use self::partial::{Frame, Partial};

mod frame;
mod header;
mod partial;

/// Longest header that is sent: two bytes, and eight of length.
pub(crate) const SENT_HEADER_MAX: usize = 10;

/// One message from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// Text, whole.
    Text(Cow<'a, str>),
    /// Bytes, whole.
    Binary(Cow<'a, [u8]>),
    /// Wants a pong with the same payload.
    Ping(Cow<'a, [u8]>),
    /// Answers a ping of ours with its payload, or is unsolicited.
    Pong(Cow<'a, [u8]>),
    /// Ends the connection; without a code if the frame was empty.
    Close(Option<(u16, Cow<'a, str>)>),
}

/// Turns the bytes of one connection into messages.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// What has arrived of a message that is not whole yet; `None` while idle.
    partial: Option<Box<Partial>>,
}

impl Decoder {
    /// Takes the next message from the front of `input` (unmasking it in place) and advances it;
    /// `None` once all of `input` is taken. What is left of an unfinished message is kept.
    ///
    /// # Errors
    /// The first violation; from then on the decoder can only [`Decoder::skip`].
    pub(crate) fn next<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        limits: &FrameLimits,
    ) -> Result<Option<Message<'a>>, Violation> {
        loop {
            if self.partial.as_ref().is_some_and(|partial| partial.frame.is_some()) {
                match self.continue_frame(input)? {
                    Progress::Message(message) => return Ok(Some(message)),
                    Progress::FrameEnded => continue,
                    Progress::NeedsInput => return Ok(None),
                }
            }
            let Some(header) = self.next_header(input)? else { return Ok(None) };
            if let Err(violation) = header.check(self.message_len(), limits) {
                self.partial.get_or_insert_default().begin(&header);
                return Err(violation);
            }
            if header.is_whole_message(self.message_len().is_some())
                && let Some(payload) = take_exactly(input, header.payload_len)
            {
                unmask(payload, header.mask);
                return self.message(header.opcode, Cow::Borrowed(payload)).map(Some);
            }
            self.partial.get_or_insert_default().begin(&header);
        }
    }

    /// Takes all of `input` and keeps nothing of it; returns whether the client's close frame ends
    /// in there, or was what broke the rules. It goes on behind a violation, and checks nothing
    /// itself: the lengths in headers are what it goes by.
    pub(crate) fn skip(&mut self, input: &[u8]) -> bool {
        self.partial.get_or_insert_default().skip(input)
    }

    fn message<'a>(
        &mut self,
        opcode: Opcode,
        payload: Cow<'a, [u8]>,
    ) -> Result<Message<'a>, Violation> {
        let message = message(opcode, payload);
        if message.is_err() && opcode == Opcode::Close {
            self.partial.get_or_insert_default().closed();
        }
        message
    }

    /// Returns whether a message has begun that is not whole yet.
    #[must_use]
    pub(crate) fn is_mid_message(&self) -> bool {
        self.partial.is_some()
    }

    /// Returns the bytes held of a message that is not whole yet, with what the buffers keep in
    /// reserve.
    #[must_use]
    pub(crate) fn held(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.held())
    }

    fn message_len(&self) -> Option<usize> {
        self.partial.as_ref().and_then(|partial| partial.message_len())
    }

    fn next_header(&mut self, input: &mut &mut [u8]) -> Result<Option<Header>, Violation> {
        let kept = self.partial.as_deref_mut().filter(|partial| partial.has_header_bytes());
        let header = match kept {
            Some(partial) => partial.complete_header(input)?,
            None => Header::parse(input)?.inspect(|header| {
                take_at_most(input, header.wire_len);
            }),
        };
        if header.is_none() && !input.is_empty() {
            self.partial.get_or_insert_default().complete_header(input)?;
        } else if header.is_some() {
            self.release_if_idle();
        }
        Ok(header)
    }

    fn continue_frame<'a>(&mut self, input: &mut &'a mut [u8]) -> Result<Progress<'a>, Violation> {
        let Some(partial) = self.partial.as_deref_mut() else { return Ok(Progress::NeedsInput) };
        let Some(Frame { remaining, .. }) = &partial.frame else { return Ok(Progress::FrameEnded) };
        let wanted = *remaining;
        let chunk = take_at_most(input, wanted);
        let taken = chunk.len();
        partial.append(chunk)?;
        if taken < wanted {
            return Ok(Progress::NeedsInput);
        }
        let ended = partial.end_frame()?;
        self.release_if_idle();
        Ok(match ended {
            Some((opcode, payload)) => {
                Progress::Message(self.message(opcode, Cow::Owned(payload))?)
            }
            None => Progress::FrameEnded,
        })
    }

    fn release_if_idle(&mut self) {
        if self.partial.as_ref().is_some_and(|partial| partial.is_empty()) {
            self.partial = None;
        }
    }
}

enum Progress<'a> {
    Message(Message<'a>),
    FrameEnded,
    NeedsInput,
}

/// Builds one unfragmented, unmasked frame, header and payload in one buffer.
#[must_use]
pub(crate) fn encode(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(payload.len() + SENT_HEADER_MAX);
    put_header(&mut frame, opcode, payload.len());
    frame.put_slice(payload);
    frame.freeze()
}

#[inline]
fn put_header(frame: &mut impl BufMut, opcode: Opcode, len: usize) {
    frame.put_u8(0x80 | opcode.bits());
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(len), _) if usize::from(len) <= CONTROL_MAX => frame.put_u8(len),
        (_, Ok(len)) => {
            frame.put_u8(126);
            frame.put_u16(len);
        }
        _ => {
            frame.put_u8(127);
            frame.put_u64(len as u64);
        }
    }
}

/// Takes apart what [`encode`] has built.
#[must_use]
pub(crate) fn payload_of(frame: &[u8]) -> Option<(Opcode, &[u8])> {
    let opcode = Opcode::from_bits(frame.first()? & 0x0F)?;
    let header = match frame.get(1)? {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    Some((opcode, frame.get(header..)?))
}

/// Returns whether bytes from elsewhere are what [`encode`] builds for a message of at most
/// `longest` bytes: the one frame in its shortest form and nothing behind it, and text is UTF-8.
#[must_use]
pub(crate) fn is_message(frame: &[u8], longest: usize) -> bool {
    let Some((opcode, payload)) = payload_of(frame) else { return false };
    let is_readable = match opcode {
        Opcode::Text => payload.len() <= longest && str::from_utf8(payload).is_ok(),
        Opcode::Binary => payload.len() <= longest,
        _ => false,
    };
    let mut header = [0; SENT_HEADER_MAX];
    let mut space = &mut header[..];
    put_header(&mut space, opcode, payload.len());
    let unused = space.len();
    is_readable
        && header.get(..SENT_HEADER_MAX - unused) == frame.get(..frame.len() - payload.len())
}

/// Builds a close frame; `reason` is cut at 123 bytes, at a character's edge. A code that may not
/// be sent (RFC 6455 §7.4.1) gives an empty close frame.
#[must_use]
pub(crate) fn encode_close(code: u16, reason: &str) -> Bytes {
    if !may_be_sent(code) {
        return encode(Opcode::Close, &[]);
    }
    let reason = reason.get(..reason.floor_char_boundary(CONTROL_MAX - 2)).unwrap_or_default();
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    encode(Opcode::Close, &payload)
}

fn message<'a>(opcode: Opcode, payload: Cow<'a, [u8]>) -> Result<Message<'a>, Violation> {
    Ok(match opcode {
        Opcode::Text => Message::Text(text(payload)?),
        Opcode::Binary | Opcode::Continuation => Message::Binary(payload),
        Opcode::Ping => Message::Ping(payload),
        Opcode::Pong => Message::Pong(payload),
        Opcode::Close => Message::Close(close(payload)?),
    })
}

fn text(payload: Cow<'_, [u8]>) -> Result<Cow<'_, str>, Violation> {
    match payload {
        Cow::Borrowed(bytes) => {
            str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| Violation::InvalidUtf8)
        }
        Cow::Owned(bytes) => {
            String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Violation::InvalidUtf8)
        }
    }
}

fn close(payload: Cow<'_, [u8]>) -> Result<Option<(u16, Cow<'_, str>)>, Violation> {
    let Some((code, _)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() {
            Ok(None)
        } else {
            Err(Violation::Protocol("close frame with half a code"))
        };
    };
    let code = u16::from_be_bytes(*code);
    if !may_be_sent(code) {
        return Err(Violation::Protocol("invalid close code"));
    }
    let reason = match payload {
        Cow::Borrowed(bytes) => Cow::Borrowed(bytes.get(2..).unwrap_or_default()),
        Cow::Owned(mut bytes) => Cow::Owned(bytes.split_off(2)),
    };
    Ok(Some((code, text(reason)?)))
}

/// Codes that may stand in a close frame: RFC 6455 §7.4 and the IANA registry (1012 to 1014).
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

fn take_exactly<'a>(input: &mut &'a mut [u8], wanted: usize) -> Option<&'a mut [u8]> {
    (input.len() >= wanted).then(|| take_at_most(input, wanted))
}

#[cfg(test)]
mod tests;
