//! One connection: handshake, frames in, bytes out; who reads and when is the owner's choice.
//!
//! Rule: an idle connection owns no buffer; only a partial frame or unsent bytes are kept.

use std::io::{ErrorKind, Read, Write};
use std::{error, fmt, mem};

use anyhow::{Result, bail};
use mio::net::TcpStream;

use super::envelope::{Envelope, Packet};
use super::frame::{self, Frame, Opcode};
use super::handshake;
use super::http::{self, Answer};

/// What a connection reports to its owner.
#[derive(Debug)]
pub(crate) enum Incoming<'a> {
    /// From now on messages may be sent.
    Opened,
    Text(&'a [u8]),
    Binary,
    /// The answer to an HTTP request.
    Answer(Answer<&'a str>),
    /// The connection is gone; nothing follows.
    Closed,
}

/// What goes over a connection once it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    WebSocket(Envelope),
    /// Answers to the requests that were sent as bytes.
    Http,
}

/// The server has sent a close frame.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) code: Option<u16>,
    reason: String,
}

/// The states of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// TCP is connecting.
    Dialling,
    /// The request was sent.
    Upgrading,
    /// The server has not sent its welcome.
    Greeting,
    Open,
    Closed,
}

/// A client socket.
#[derive(Debug)]
pub(crate) struct Conn {
    stream: TcpStream,
    state: State,
    /// What to send when TCP is connected; none for a bare server, whose connections open at once.
    request: Option<Vec<u8>>,
    protocol: Protocol,
    /// The beginning of an incomplete frame.
    partial: Vec<u8>,
    /// What the socket has not accepted yet.
    unsent: Vec<u8>,
}

impl Conn {
    pub(crate) fn new(stream: TcpStream, request: Option<Vec<u8>>, protocol: Protocol) -> Self {
        Self {
            stream,
            state: State::Dialling,
            request,
            protocol,
            partial: Vec::new(),
            unsent: Vec::new(),
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Returns whether it is a WebSocket, which ends with a close frame.
    pub(crate) fn has_frames(&self) -> bool {
        matches!(self.protocol, Protocol::WebSocket(_))
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    pub(crate) fn stream_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Abandons the socket, which stays allocated until this is dropped.
    pub(crate) fn set_closed(&mut self) {
        self.state = State::Closed;
        self.partial = Vec::new();
        self.unsent = Vec::new();
    }

    /// Sends `bytes`; what the socket does not accept waits for the next [`Self::on_writable`].
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        if self.state == State::Closed {
            return Ok(());
        }
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        let sent = write_some(&mut self.stream, bytes)?;
        self.unsent.extend_from_slice(bytes.get(sent..).unwrap_or_default());
        Ok(())
    }

    /// Begins the handshake once TCP is connected, or sends what was kept.
    pub(crate) fn on_writable(&mut self) -> Result<()> {
        match self.state {
            State::Dialling => self.on_dialled(),
            State::Upgrading | State::Greeting | State::Open if !self.unsent.is_empty() => {
                let kept = mem::take(&mut self.unsent);
                self.send(&kept)
            }
            State::Upgrading | State::Greeting | State::Open | State::Closed => Ok(()),
        }
    }

    /// Reads until the socket is empty and hands over each complete message; fails when the
    /// connection is over.
    ///
    /// A read that does not fill `scratch` has emptied the socket (epoll(7), edge-triggered), which
    /// saves one system call per delivery; only after a hang-up must the end be read too.
    pub(crate) fn on_readable(
        &mut self,
        scratch: &mut [u8],
        hung_up: bool,
        deliver: &mut impl FnMut(Incoming<'_>),
    ) -> Result<()> {
        while let Some(n) = self.read_some(scratch, deliver)? {
            if n < scratch.len() && !hung_up {
                break;
            }
        }
        Ok(())
    }

    /// Reads once and hands over each complete message; returns the number of bytes, or nothing if
    /// there are none.
    pub(crate) fn read_some(
        &mut self,
        scratch: &mut [u8],
        deliver: &mut impl FnMut(Incoming<'_>),
    ) -> Result<Option<usize>> {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => bail!("server closed the TCP connection"),
                Ok(n) => {
                    self.take_in(scratch.get(..n).unwrap_or_default(), deliver)?;
                    return Ok(Some(n));
                }
                Err(err) if err.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(err) => return Err(err.into()),
            }
        }
    }

    fn on_dialled(&mut self) -> Result<()> {
        if let Some(err) = self.stream.take_error()? {
            return Err(err.into());
        }
        match self.request.take() {
            Some(request) => {
                self.state = State::Upgrading;
                self.send(&request)
            }
            None => {
                self.state = State::Open;
                Ok(())
            }
        }
    }

    fn take_in(&mut self, fresh: &[u8], deliver: &mut impl FnMut(Incoming<'_>)) -> Result<()> {
        if self.partial.is_empty() {
            let used = self.parse(fresh, deliver)?;
            self.partial.extend_from_slice(fresh.get(used..).unwrap_or_default());
            return Ok(());
        }
        let mut joined = mem::take(&mut self.partial);
        joined.extend_from_slice(fresh);
        let used = self.parse(&joined, deliver)?;
        if used < joined.len() {
            joined.drain(..used);
            self.partial = joined;
        }
        Ok(())
    }

    fn parse(&mut self, bytes: &[u8], deliver: &mut impl FnMut(Incoming<'_>)) -> Result<usize> {
        let Protocol::WebSocket(envelope) = self.protocol else {
            return parse_answers(bytes, deliver);
        };
        let mut used = 0;
        if self.state == State::Upgrading {
            let Some(head) = handshake::accept(bytes)? else {
                return Ok(0);
            };
            self.state = if envelope.has_welcome() { State::Greeting } else { State::Open };
            used = head;
        }
        while let Some((frame, len)) = frame::decode(bytes.get(used..).unwrap_or_default())? {
            used += len;
            self.on_frame(envelope, &frame, deliver)?;
        }
        Ok(used)
    }

    fn on_frame(
        &mut self,
        envelope: Envelope,
        frame: &Frame<'_>,
        deliver: &mut impl FnMut(Incoming<'_>),
    ) -> Result<()> {
        match frame.opcode {
            Opcode::Text => self.on_text(envelope.read(frame.payload), deliver)?,
            Opcode::Binary => deliver(Incoming::Binary),
            Opcode::Ping => self.answer(Opcode::Pong, frame.payload)?,
            Opcode::Pong => {}
            Opcode::Close => {
                self.answer(Opcode::Close, frame.payload.get(..2).unwrap_or_default())?;
                bail!(Closed::read(frame.payload));
            }
        }
        Ok(())
    }

    fn on_text(
        &mut self,
        packet: Packet<'_>,
        deliver: &mut impl FnMut(Incoming<'_>),
    ) -> Result<()> {
        match packet {
            Packet::Payload(payload) => deliver(Incoming::Text(payload)),
            Packet::Reply(reply) => self.answer(Opcode::Text, reply.as_bytes())?,
            Packet::Welcome => self.state = State::Open,
        }
        Ok(())
    }

    fn answer(&mut self, opcode: Opcode, payload: &[u8]) -> Result<()> {
        let mut wire = Vec::new();
        frame::encode_client(&mut wire, opcode, payload);
        self.send(&wire)
    }
}

fn parse_answers(bytes: &[u8], deliver: &mut impl FnMut(Incoming<'_>)) -> Result<usize> {
    let mut used = 0;
    while let Some((answer, len)) = http::decode(bytes.get(used..).unwrap_or_default())? {
        used += len;
        deliver(Incoming::Answer(answer));
    }
    Ok(used)
}

fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> Result<usize> {
    let mut sent = 0;
    while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
        match stream.write(rest) {
            Ok(n) => sent += n,
            Err(err) if err.kind() == ErrorKind::WouldBlock => break,
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            Err(err) => return Err(err.into()),
        }
    }
    Ok(sent)
}

impl Closed {
    fn read(payload: &[u8]) -> Self {
        let (code, reason) = payload
            .split_first_chunk()
            .map_or((None, payload), |(code, reason)| (Some(u16::from_be_bytes(*code)), reason));
        Self { code, reason: String::from_utf8_lossy(reason).into_owned() }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "server closed with {code} {}", self.reason),
            None => write!(f, "server closed with no code"),
        }
    }
}

impl error::Error for Closed {}
