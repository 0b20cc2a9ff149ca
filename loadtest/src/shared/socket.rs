//! A WebSocket whose owner waits for it: handshake, whole messages in, text out.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::shared::frame::{self, Opcode};
use crate::shared::handshake;
use crate::shared::target::Target;

const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// The code of an end without a close frame, as RFC 6455 names it.
pub(crate) const LOST: u16 = 1006;
/// The code of a close frame that has none.
const NO_CODE: u16 = 1005;
/// The code of a close that is meant.
pub(crate) const NORMAL: u16 = 1000;

/// An open socket.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    /// Bytes that are not yet a whole message.
    partial: Vec<u8>,
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    Text(String),
    /// Nothing, in the time there was.
    Nothing,
    /// The socket has ended, with this code.
    Ended(u16),
}

impl Socket {
    /// Connects and opens.
    ///
    /// # Errors
    /// Nobody is there, or the handshake is refused.
    pub(crate) fn open(target: &Target) -> Result<Self> {
        let mut stream = TcpStream::connect_timeout(&target.addr, CONNECT_LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(CONNECT_LIMIT))?;
        stream.write_all(handshake::request(target).as_bytes())?;
        let mut partial = Vec::new();
        loop {
            if let Some(head) = handshake::accept(&partial)? {
                partial.drain(..head);
                return Ok(Self { stream, partial });
            }
            let mut scratch = [0; 4096];
            match stream.read(&mut scratch)? {
                0 => bail!("closed in the handshake"),
                n => partial.extend_from_slice(scratch.get(..n).unwrap_or_default()),
            }
        }
    }

    /// Waits for a message; pings are answered on the way.
    pub(crate) fn next(&mut self, limit: Duration) -> Incoming {
        loop {
            match frame::decode(&self.partial) {
                Err(_) => return Incoming::Ended(LOST),
                Ok(Some((frame, used))) => {
                    let (opcode, payload) = (frame.opcode, frame.payload.to_vec());
                    self.partial.drain(..used);
                    if let Some(incoming) = self.on_frame(opcode, &payload) {
                        return incoming;
                    }
                }
                Ok(None) => match self.read(limit) {
                    Ok(0) => return Incoming::Ended(LOST),
                    Ok(_) => {}
                    Err(err) if is_timeout(err.kind()) => return Incoming::Nothing,
                    Err(_) => return Incoming::Ended(LOST),
                },
            }
        }
    }

    /// Sends a text; a broken socket is found out by reading.
    pub(crate) fn send(&mut self, text: &str) {
        self.write(Opcode::Text, text.as_bytes());
    }

    /// Sends several texts at once, so that they are read at once.
    pub(crate) fn send_all(&mut self, texts: &[String]) {
        let mut wire = Vec::new();
        for text in texts {
            frame::encode_client(&mut wire, Opcode::Text, text.as_bytes());
        }
        drop(self.stream.write_all(&wire));
    }

    /// Sends a close frame, and waits a little for the answer.
    pub(crate) fn close(mut self, limit: Duration) {
        self.write(Opcode::Close, &NORMAL.to_be_bytes());
        while matches!(self.next(limit), Incoming::Text(_)) {}
    }

    fn on_frame(&mut self, opcode: Opcode, payload: &[u8]) -> Option<Incoming> {
        match opcode {
            Opcode::Text | Opcode::Binary => {
                Some(Incoming::Text(String::from_utf8_lossy(payload).into_owned()))
            }
            Opcode::Ping => {
                self.write(Opcode::Pong, payload);
                None
            }
            Opcode::Pong => None,
            Opcode::Close => {
                self.write(Opcode::Close, payload.get(..2).unwrap_or_default());
                let code = payload.first_chunk().map_or(NO_CODE, |code| u16::from_be_bytes(*code));
                Some(Incoming::Ended(code))
            }
        }
    }

    fn read(&mut self, limit: Duration) -> std::io::Result<usize> {
        let mut scratch = [0; 16 << 10];
        self.stream.set_read_timeout(Some(limit.max(Duration::from_millis(1))))?;
        let n = self.stream.read(&mut scratch)?;
        self.partial.extend_from_slice(scratch.get(..n).unwrap_or_default());
        Ok(n)
    }

    fn write(&mut self, opcode: Opcode, payload: &[u8]) {
        let mut wire = Vec::new();
        frame::encode_client(&mut wire, opcode, payload);
        drop(self.stream.write_all(&wire));
    }
}

fn is_timeout(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
