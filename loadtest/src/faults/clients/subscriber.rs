//! Subscribers: each holds a WebSocket, notes what it receives, and connects again when it is closed.
//!
//! Some also send, as clients do: they learn of an error, or see their own message come back.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;

use super::publisher::Publications;
use crate::faults::log::{Answer, Channel, Clock, Connection, Id, group_name, parse_farewell, parse_post};
use crate::shared::random::Random;
use crate::shared::socket::{Incoming, Socket};
use crate::shared::target::Target;
use crate::shared::wait::Stop;

/// How long a read waits before it looks whether to stop.
const READ: Duration = Duration::from_millis(20);
/// Pauses before a subscriber connects again, from and to: jittered, as clients should.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(200));
/// A client that sends waits so long for its message to come back.
const PATIENCE: Duration = Duration::from_millis(2500);
/// A frame that no route takes; the answer to it names the connection.
pub(crate) const WHO_AM_I: &str = r#"{"action":"whoAmI"}"#;

/// The connections of one subscriber, the present one last.
pub(crate) type Connections = Arc<Mutex<Vec<Connection>>>;

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) number: usize,
    /// Where to connect, in turn.
    pub(crate) targets: Vec<Target>,
    pub(crate) group: Option<Channel>,
    /// Its name and period as a publisher, if it sends.
    pub(crate) sends: Option<(usize, Duration)>,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) connections: Connections,
    pub(crate) publications: Publications,
    /// Ends sending.
    pub(crate) quiet: Stop,
    pub(crate) stop: Stop,
}

/// Notes what is no message of a channel's publishers: a farewell, or what was sent to this connection alone.
pub(crate) fn note_aside(connections: &Connections, text: &str, now: Duration) -> bool {
    let mut connections = connections.lock();
    let Some(connection) = connections.last_mut() else { return false };
    if let Some(id) = parse_farewell(text) {
        connection.farewells.push((id.to_owned(), now));
    } else if let Some(number) = parse_post(text) {
        connection.posts.push(number);
    } else {
        return false;
    }
    true
}

/// What a client that sends has under way.
#[derive(Debug, Default)]
struct Sending {
    sent: u32,
    next_at: Duration,
    under_way: Option<(Id, usize, Duration)>,
}

impl Subscriber {
    /// Runs until told to stop.
    pub(crate) fn start(mut self) -> JoinHandle<()> {
        thread::spawn(move || {
            let mut sending = Sending::default();
            let mut attempt = self.number;
            while !self.stop.is_set() {
                let door = attempt % self.targets.len().max(1);
                let target = self.targets.get(door).cloned();
                if let Some(Ok(socket)) = target.map(|target| Socket::open(&target)) {
                    self.hold(socket, door, &mut sending);
                }
                attempt += 1;
                let more = self.random.below(1000);
                if !self.stop.sleep(PAUSE.0 + (PAUSE.1 - PAUSE.0).mul_f64(more as f64 / 1000.0)) {
                    return;
                }
            }
        })
    }

    /// Holds one connection to its end.
    fn hold(&self, mut socket: Socket, door: usize, sending: &mut Sending) {
        let connection = Connection {
            subscriber: self.number,
            opened: self.clock.now(),
            // Behind a balancer nobody knows.
            door: (self.targets.len() > 1).then_some(door),
            ..Connection::default()
        };
        self.connections.lock().push(connection);
        socket.send(WHO_AM_I);
        if let Some(group) = self.group {
            socket.send(&format!(r#"{{"action":"joinGroup","group":"{}"}}"#, group_name(group)));
        }
        while !self.stop.is_set() {
            self.send(&mut socket, sending);
            match socket.next(READ) {
                Incoming::Nothing => {}
                Incoming::Text(text) => self.on_text(&mut socket, &text, sending),
                Incoming::Ended(code) => {
                    let now = self.clock.now();
                    self.note(|connection| connection.ended = Some((now, code)));
                    self.settle(sending, Answer::InDoubt);
                    return;
                }
            }
        }
    }

    fn on_text(&self, socket: &mut Socket, text: &str, sending: &mut Sending) {
        let now = self.clock.now();
        if let Some(id) = Id::parse(text) {
            self.note(|connection| connection.received.push((id, now)));
            if sending.under_way.is_some_and(|(own, ..)| own == id) {
                self.settle(sending, Answer::Accepted(None));
            }
            return;
        }
        if note_aside(&self.connections, text, now) {
            return;
        }
        if let Some(group) = self.group.filter(|group| text == format!("joined {}", group_name(*group))) {
            self.note(|connection| connection.joined = Some((group, now)));
            return;
        }
        let answer: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        match answer.get("message").and_then(serde_json::Value::as_str) {
            Some("Forbidden") => {
                let id = answer.get("connectionId").and_then(serde_json::Value::as_str).unwrap_or_default();
                self.note(|connection| id.clone_into(&mut connection.id));
            }
            // Of the message under way, or of the wish to join: a member it must be.
            Some("Internal server error") => {
                self.settle(sending, Answer::InDoubt);
                let is_member = self.connections.lock().last().is_some_and(|each| each.joined.is_some());
                if let Some(group) = self.group.filter(|_| !is_member && self.stop.sleep(PAUSE.0)) {
                    socket.send(&format!(r#"{{"action":"joinGroup","group":"{}"}}"#, group_name(group)));
                }
            }
            _ => self.note(|connection| connection.foreign += 1),
        }
    }

    /// Sends the next message when it is time, and gives up the last one when it is past.
    fn send(&self, socket: &mut Socket, sending: &mut Sending) {
        let Some((publisher, period)) = self.sends else { return };
        let now = self.clock.now();
        if sending.under_way.is_some_and(|(_, _, posted)| now > posted + PATIENCE) {
            self.settle(sending, Answer::InDoubt);
        }
        if sending.under_way.is_some() || now < sending.next_at || self.quiet.is_set() {
            return;
        }
        let id = Id { channel: 0, publisher, number: sending.sent };
        let place = self.publications.begin(id, now, false);
        (sending.sent, sending.next_at) = (sending.sent + 1, now + period);
        sending.under_way = Some((id, place, now));
        socket.send(&format!(r#"{{"action":"sendMessage","data":"{}"}}"#, id.text()));
    }

    fn settle(&self, sending: &mut Sending, answer: Answer) {
        if let Some((_, place, _)) = sending.under_way.take() {
            self.publications.end(place, answer, self.clock.now());
        }
    }

    fn note(&self, note: impl FnOnce(&mut Connection)) {
        if let Some(connection) = self.connections.lock().last_mut() {
            note(connection);
        }
    }
}
