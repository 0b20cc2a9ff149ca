//! Members come and go: each connects to a node, joins and leaves groups, stays a while, and ends in one of three ways.
//!
//! Rule: every wish is noted when it is sent, and every answer goes to the oldest wish that has none.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::subscriber::{Connections, WHO_AM_I, note_aside};
use crate::faults::log::{Channel, Clock, Connection, Id, Request, group_name};
use crate::shared::random::Random;
use crate::shared::socket::{Incoming, NORMAL, Socket};
use crate::shared::target::Target;
use crate::shared::wait::Stop;

const READ: Duration = Duration::from_millis(20);
/// How long a member stays, and between two connections, at most, in milliseconds.
const STAY: usize = 1500;
const PAUSE: usize = 200;
/// A wish without an answer for so long will have none.
pub(crate) const ANSWERED: Duration = Duration::from_secs(6);
/// The answer where a wish cannot be fulfilled now.
pub(crate) const REFUSED: &str = "Internal server error";
/// A close frame is answered in this time, or the client has lost its patience.
const CLOSING: Duration = Duration::from_millis(300);

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) number: usize,
    /// The nodes; any of them is as good.
    pub(crate) targets: Vec<Target>,
    /// Groups to which others publish.
    pub(crate) channels: usize,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) connections: Connections,
    pub(crate) quiet: Stop,
}

impl Member {
    /// Runs until it is to be quiet; its last connection ends before that.
    pub(crate) fn start(mut self) -> JoinHandle<()> {
        thread::spawn(move || {
            let mut count = 0;
            while self.quiet.sleep(millis(self.random.below(PAUSE))) {
                let door = self.random.below(self.targets.len());
                let Some(target) = self.targets.get(door).cloned() else { return };
                if let Ok(socket) = Socket::open(&target) {
                    self.hold(socket, door, count);
                    count += 1;
                }
            }
        })
    }

    /// Holds one connection to its end.
    fn hold(&mut self, mut socket: Socket, door: usize, count: usize) {
        let connection = Connection {
            subscriber: self.number,
            opened: self.clock.now(),
            door: Some(door),
            ..Connection::default()
        };
        self.connections.lock().push(connection);
        socket.send(WHO_AM_I);
        let leaves_at = self.clock.now() + millis(self.random.below(STAY));
        let gives_up_at = self.clock.now() + ANSWERED;
        let mut batches = self.batches(count).into_iter();
        loop {
            let now = self.clock.now();
            let is_answered = self.is_answered();
            if is_answered && let Some(wishes) = batches.next() {
                self.wish(&mut socket, &wishes);
            } else if now >= gives_up_at || (now >= leaves_at && is_answered) || self.is_amiss() {
                return self.leave(socket);
            }
            match socket.next(READ) {
                Incoming::Nothing => {}
                Incoming::Text(text) => self.on_text(&text),
                Incoming::Ended(code) => {
                    let now = self.clock.now();
                    return self.note(|connection| connection.ended = Some((now, code)));
                }
            }
        }
    }

    /// What a connection wishes: every other one to be a member where others publish, the rest to come and go at once.
    fn batches(&mut self, count: usize) -> Vec<Vec<(bool, String)>> {
        let own = |part: usize| format!("own-{}-{count}-{part}", self.number);
        if count.is_multiple_of(2) {
            return vec![
                vec![(true, own(0)), (false, own(0))],
                vec![(true, own(0)), (false, own(0)), (true, own(1)), (false, own(1))],
            ];
        }
        let channel: Channel = 1 + self.random.below(self.channels.saturating_sub(1));
        vec![vec![(true, group_name(channel))]]
    }

    fn wish(&self, socket: &mut Socket, wishes: &[(bool, String)]) {
        let sent = self.clock.now();
        self.note(|connection| {
            connection.requests.extend(wishes.iter().map(|(joins, group)| Request {
                reply: format!("{} {group}", if *joins { "joined" } else { "left" }),
                sent,
                answer: None,
            }));
        });
        let text = |(joins, group): &(bool, String)| {
            let action = if *joins { "joinGroup" } else { "leaveGroup" };
            format!(r#"{{"action":"{action}","group":"{group}"}}"#)
        };
        socket.send_all(&wishes.iter().map(text).collect::<Vec<_>>());
    }

    /// Ends the connection: with a close frame, by a route, or without a word.
    fn leave(&mut self, mut socket: Socket) {
        let now = self.clock.now();
        self.note(|connection| {
            (connection.ended, connection.by_client) = (Some((now, NORMAL)), true);
        });
        match self.random.below(3) {
            0 => socket.close(CLOSING),
            1 => {
                socket.send(r#"{"action":"disconnect"}"#);
                while matches!(socket.next(CLOSING), Incoming::Text(_)) {}
            }
            _ => {}
        }
    }

    fn on_text(&self, text: &str) {
        let now = self.clock.now();
        if let Some(id) = Id::parse(text) {
            return self.note(|connection| connection.received.push((id, now)));
        }
        if note_aside(&self.connections, text, now) {
            return;
        }
        let answer: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        let message = answer.get("message").and_then(serde_json::Value::as_str);
        if message == Some("Forbidden") {
            let id = answer.get("connectionId").and_then(serde_json::Value::as_str).unwrap_or_default();
            return self.note(|connection| id.clone_into(&mut connection.id));
        }
        self.note(|connection| {
            let oldest = connection.requests.iter_mut().find(|request| request.answer.is_none());
            let Some(request) = oldest else {
                connection.foreign += 1;
                return;
            };
            let answer = message.unwrap_or(text).to_owned();
            let channel = answer.strip_prefix("joined g").and_then(|channel| channel.parse().ok());
            if let Some(channel) = channel.filter(|_| answer == request.reply) {
                connection.joined = Some((channel, now));
            }
            request.answer = Some((answer, now));
        });
    }

    fn is_answered(&self) -> bool {
        let connections = self.connections.lock();
        connections.last().is_none_or(|each| each.requests.iter().all(|request| request.answer.is_some()))
    }

    /// Returns whether there was an answer to another wish: one that was skipped will not come any more.
    fn is_amiss(&self) -> bool {
        let connections = self.connections.lock();
        let requests = connections.last().into_iter().flat_map(|each| &each.requests);
        requests
            .filter_map(|each| each.answer.as_ref().map(|(answer, _)| (answer, &each.reply)))
            .any(|(answer, reply)| answer != reply && answer != REFUSED)
    }

    fn note(&self, note: impl FnOnce(&mut Connection)) {
        if let Some(connection) = self.connections.lock().last_mut() {
            note(connection);
        }
    }
}

fn millis(count: usize) -> Duration {
    Duration::from_millis(count as u64)
}
