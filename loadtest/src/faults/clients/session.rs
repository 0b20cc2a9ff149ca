//! What every WebSocket client does and notes, whatever else it does.

use std::time::Duration;

use super::notes::Connections;
use crate::faults::log::{Clock, Connection, Id, parse_disconnect, parse_post};
use crate::shared::gateway::{Notice, WHO_AM_I};
use crate::shared::socket::Socket;

/// The answer to a request that cannot be carried out now.
pub(crate) const REFUSED: &str = "Internal server error";

/// One client's number, clock and notes.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) number: usize,
    pub(crate) clock: Clock,
    pub(crate) connections: Connections,
}

/// What a client received.
#[derive(Debug)]
pub(crate) enum Received {
    /// A message of a channel, which is noted.
    Publication(Id),
    /// Something else that any client notes.
    Noted,
    /// An answer: the message of the gateway's own notice, or the text itself.
    Answer(String),
}

impl Session {
    /// Notes a connection that has opened, at a node if that is known, and asks for its id.
    pub(crate) fn begin(&self, socket: &mut Socket, node: Option<usize>) {
        let opened = self.clock.now();
        let subscriber = self.number;
        self.connections.add(|_| Connection { subscriber, opened, node, ..Connection::default() });
        socket.send(WHO_AM_I);
    }

    /// Notes that the connection has ended.
    pub(crate) fn end(&self, code: u16) {
        let now = self.clock.now();
        self.note(|connection| connection.ended = Some((now, code)));
    }

    /// Changes the note of the present connection.
    pub(crate) fn note(&self, change: impl FnOnce(&mut Connection)) {
        self.connections.change_last(change);
    }

    /// Returns what is noted of the present connection.
    pub(crate) fn present<R>(&self, read: impl FnOnce(&Connection) -> R) -> Option<R> {
        self.connections.read(|all| all.last().map(read))
    }

    /// Reads a text and notes what any client notes.
    pub(crate) fn receive(&self, text: String, now: Duration) -> Received {
        if let Some(id) = Id::parse(&text) {
            self.note(|connection| connection.received.push((id, now)));
            return Received::Publication(id);
        }
        if let Some(id) = parse_disconnect(&text) {
            self.note(|connection| connection.disconnects.push((id.to_owned(), now)));
            return Received::Noted;
        }
        if let Some(number) = parse_post(&text) {
            self.note(|connection| connection.posts.push(number));
            return Received::Noted;
        }
        let Some(notice) = Notice::read(text.as_bytes()) else { return Received::Answer(text) };
        if !notice.is_forbidden() {
            return Received::Answer(notice.message);
        }
        self.note(|connection| connection.id = notice.connection_id.unwrap_or_default());
        Received::Noted
    }
}
