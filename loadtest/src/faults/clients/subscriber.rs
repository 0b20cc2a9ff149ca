//! Subscribers: each holds a WebSocket, notes what it receives, and connects again when it is
//! closed.
//!
//! Some also send, as clients do: they learn of an error, or see their own message come back.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::notes::Publications;
use super::publisher::PATIENCE;
use super::session::{REFUSED, Received, Session};
use crate::faults::log::{Answer, Channel, Id, Publication, group_name};
use crate::shared::gateway;
use crate::shared::random::Random;
use crate::shared::socket::{Incoming, Socket};
use crate::shared::target::Target;
use crate::shared::wait::Stop;

/// How long a read waits before the client looks whether to stop.
const READ: Duration = Duration::from_millis(20);
/// Pauses before a subscriber connects again, shortest and longest: with jitter, as clients should.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(200));

/// One subscriber.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) session: Session,
    /// Where to connect, in turn.
    pub(crate) targets: Vec<Target>,
    pub(crate) group: Option<Channel>,
    /// Its name and period as a publisher, if it sends.
    pub(crate) sends: Option<(usize, Duration)>,
    pub(crate) random: Random,
    pub(crate) publications: Publications,
    pub(crate) stop_sending: Stop,
    pub(crate) stop: Stop,
}

/// The messages of a client that sends.
#[derive(Debug, Default)]
struct Sending {
    sent: u32,
    /// Where it is connected, if that is known.
    node: Option<usize>,
    next_at: Duration,
    /// The last message until it is settled: its id, its place in the notes, when it was sent.
    under_way: Option<(Id, usize, Duration)>,
}

impl Subscriber {
    /// Runs until it is stopped.
    pub(crate) fn start(mut self) -> JoinHandle<()> {
        thread::spawn(move || {
            let mut sending = Sending::default();
            let mut attempt = self.session.number;
            while !self.stop.is_set() {
                let node = attempt % self.targets.len().max(1);
                if let Some(Ok(socket)) = self.targets.get(node).map(Socket::open) {
                    self.hold(socket, node, &mut sending);
                }
                attempt += 1;
                let jitter = self.random.below(1000) as f64 / 1000.0;
                if !self.stop.sleep(PAUSE.0 + (PAUSE.1 - PAUSE.0).mul_f64(jitter)) {
                    return;
                }
            }
        })
    }

    /// Holds one connection until it ends.
    fn hold(&self, mut socket: Socket, node: usize, sending: &mut Sending) {
        // Behind a balancer the node is not known.
        sending.node = (self.targets.len() > 1).then_some(node);
        self.session.begin(&mut socket, sending.node);
        self.join(&mut socket);
        while !self.stop.is_set() {
            self.send(&mut socket, sending);
            match socket.next(READ) {
                Incoming::Nothing => {}
                Incoming::Text(text) => self.on_text(&mut socket, text, sending),
                Incoming::Ended(code) => {
                    self.session.end(code);
                    return self.settle(sending, Answer::InDoubt);
                }
            }
        }
    }

    fn join(&self, socket: &mut Socket) {
        if let Some(group) = self.group {
            let now = self.session.clock.now();
            self.session
                .note(|connection| connection.asked = connection.asked.or(Some((group, now))));
            socket.send(&gateway::join(&group_name(group)));
        }
    }

    fn on_text(&self, socket: &mut Socket, text: String, sending: &mut Sending) {
        let now = self.session.clock.now();
        let answer = match self.session.receive(text, now) {
            Received::Publication(id) if sending.under_way.is_some_and(|(own, ..)| own == id) => {
                return self.settle(sending, Answer::Accepted(None));
            }
            Received::Publication(_) | Received::Noted => return,
            Received::Answer(answer) => answer,
        };
        let joined = self.group.filter(|group| answer == format!("joined {}", group_name(*group)));
        if let Some(group) = joined {
            self.session.note(|connection| connection.joined = Some((group, now)));
        } else if answer == REFUSED {
            // That was the message under way, or the join, which is then repeated.
            self.settle(sending, Answer::InDoubt);
            let is_member = self.session.present(|each| each.joined.is_some()).unwrap_or(false);
            self.session.note(|connection| connection.asked = connection.joined);
            if !is_member && self.group.is_some() && self.stop.sleep(PAUSE.0) {
                self.join(socket);
            }
        } else {
            self.session.note(|connection| connection.foreign += 1);
        }
    }

    /// Sends the next message when it is due, and gives up the last one when it takes too long.
    fn send(&self, socket: &mut Socket, sending: &mut Sending) {
        let Some((publisher, period)) = self.sends else { return };
        let now = self.session.clock.now();
        if sending.under_way.is_some_and(|(_, _, posted)| now > posted + PATIENCE) {
            self.settle(sending, Answer::InDoubt);
        }
        if sending.under_way.is_some() || now < sending.next_at || self.stop_sending.is_set() {
            return;
        }
        let id = Id { channel: 0, publisher, number: sending.sent };
        let node = sending.node;
        let place = self.publications.add(|_| Publication { node, ..Publication::begin(id, now) });
        (sending.sent, sending.next_at) = (sending.sent + 1, now + period);
        sending.under_way = Some((id, place, now));
        socket.send(&gateway::send_to_all(&id.text()));
    }

    fn settle(&self, sending: &mut Sending, answer: Answer) {
        if let Some((_, place, _)) = sending.under_way.take() {
            let now = self.session.clock.now();
            self.publications.change(place, |publication| publication.end(answer, now));
        }
    }
}
