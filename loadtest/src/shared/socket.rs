//! A WebSocket whose owner waits for it: handshake, whole messages in, text out.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, ensure};
use socket2::SockRef;

use super::conn::{self, Closed, Conn, Protocol, State};
use super::envelope::Envelope;
use super::frame::{self, Opcode};
use super::handshake;
use super::target::Target;

const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// The code of an end without a close frame, as RFC 6455 names it.
const LOST: u16 = 1006;
/// The code of a close frame that has none.
const NO_CODE: u16 = 1005;
/// The code of a normal close.
pub(crate) const NORMAL: u16 = 1000;

/// An open socket.
#[derive(Debug)]
pub(crate) struct Socket {
    conn: Conn,
    received: VecDeque<Incoming>,
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    Text(String),
    /// Nothing, within the time given.
    Nothing,
    /// The socket has ended, with this code.
    Ended(u16),
}

impl Socket {
    /// Connects and opens.
    pub(crate) fn open(target: &Target) -> Result<Self> {
        Self::over(target.connect(None, CONNECT_LIMIT)?, target)
    }

    /// Opens a WebSocket over a connection.
    pub(crate) fn over(stream: TcpStream, target: &Target) -> Result<Self> {
        let stream = mio::net::TcpStream::from_std(stream);
        let request = handshake::request(target).into_bytes();
        let conn = Conn::new(stream, Some(request), Protocol::WebSocket(Envelope::Plain));
        let mut this = Self { conn, received: VecDeque::new() };
        this.conn.on_writable()?;
        while this.conn.state() != State::Open {
            ensure!(this.read()?, "the handshake was not answered");
        }
        Ok(this)
    }

    /// Gives the connection back, without what was received on it.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.conn.into_stream().into()
    }

    /// Waits for a message; pings are answered on the way.
    pub(crate) fn next(&mut self, limit: Duration) -> Incoming {
        loop {
            if let Some(incoming) = self.received.pop_front() {
                return incoming;
            }
            let limit = limit.max(Duration::from_millis(1));
            let stream = SockRef::from(self.conn.stream());
            let is_limited = stream.set_read_timeout(Some(limit));
            match is_limited.map_err(Into::into).and_then(|()| self.read()) {
                Ok(true) => {}
                Ok(false) => return Incoming::Nothing,
                Err(err) => {
                    let code = err
                        .downcast_ref()
                        .map_or(LOST, |Closed { code, .. }| code.unwrap_or(NO_CODE));
                    self.received.push_back(Incoming::Ended(code));
                }
            }
        }
    }

    /// Sends a text; that the socket is broken shows when it is read.
    pub(crate) fn send(&mut self, text: &str) {
        self.send_all(&[text]);
    }

    /// Sends several texts at once, so that they are read at once.
    pub(crate) fn send_all<T: AsRef<str>>(&mut self, texts: &[T]) {
        let mut wire = Vec::new();
        for text in texts {
            frame::encode_client(&mut wire, Opcode::Text, text.as_ref().as_bytes());
        }
        drop(self.conn.send(&wire));
    }

    /// Sends a close frame, and waits for the answer.
    pub(crate) fn close(mut self, limit: Duration) {
        let mut wire = Vec::new();
        frame::encode_client(&mut wire, Opcode::Close, &NORMAL.to_be_bytes());
        drop(self.conn.send(&wire));
        while matches!(self.next(limit), Incoming::Text(_)) {}
    }

    /// Reads once; returns whether anything came.
    fn read(&mut self) -> Result<bool> {
        let Self { conn, received } = self;
        let read = conn.read_some(&mut [0; 16 << 10], &mut |incoming| match incoming {
            conn::Incoming::Text(text) => {
                received.push_back(Incoming::Text(String::from_utf8_lossy(text).into_owned()));
            }
            // Nobody here sends any; an empty text is as unexpected.
            conn::Incoming::Binary => received.push_back(Incoming::Text(String::new())),
            conn::Incoming::Opened | conn::Incoming::Answer(_) | conn::Incoming::Closed => {}
        });
        Ok(read?.is_some())
    }
}
