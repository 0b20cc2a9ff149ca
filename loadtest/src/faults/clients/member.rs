//! Members come and go: each connects to a node, joins and leaves groups, stays for a while, and
//! ends in one of three ways.
//!
//! Rule: every request is noted when it is sent, and every answer belongs to the oldest request
//! that has none.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::session::{REFUSED, Received, Session};
use crate::faults::log::{Channel, Connection, Request, group_name};
use crate::shared::gateway;
use crate::shared::random::Random;
use crate::shared::socket::{Incoming, NORMAL, Socket};
use crate::shared::target::Target;
use crate::shared::wait::Stop;

const READ: Duration = Duration::from_millis(20);
/// How long a member stays, and between two connections, at most, in milliseconds.
const STAY: usize = 1500;
const PAUSE: usize = 200;
/// A request that is not answered in this time will not be.
pub(crate) const ANSWERED: Duration = Duration::from_secs(6);
/// A client waits this long for the answer to its close frame.
const CLOSING: Duration = Duration::from_millis(300);

/// One member.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) session: Session,
    /// The nodes; any of them will do.
    pub(crate) targets: Vec<Target>,
    /// Groups to which others publish, and the broadcast.
    pub(crate) channels: usize,
    pub(crate) random: Random,
    pub(crate) stop: Stop,
}

impl Member {
    /// Runs until it is stopped; its last connection ends before that.
    pub(crate) fn start(mut self) -> JoinHandle<()> {
        thread::spawn(move || {
            let mut count = 0;
            while self.stop.sleep(millis(self.random.below(PAUSE))) {
                let node = self.random.below(self.targets.len());
                let Some(target) = self.targets.get(node) else { return };
                if let Ok(socket) = Socket::open(target) {
                    self.hold(socket, node, count);
                    count += 1;
                }
            }
        })
    }

    /// Holds one connection until it ends.
    fn hold(&mut self, mut socket: Socket, node: usize, count: usize) {
        self.session.begin(&mut socket, Some(node));
        let clock = self.session.clock;
        let leaves_at = clock.now() + millis(self.random.below(STAY));
        let gives_up_at = clock.now() + ANSWERED;
        let mut batches = self.batches(count).into_iter();
        loop {
            let now = clock.now();
            let is_answered = self.is_answered();
            if is_answered && let Some(requests) = batches.next() {
                self.request(&mut socket, &requests);
            } else if now >= gives_up_at
                || (now >= leaves_at && is_answered)
                || self.is_out_of_order()
            {
                return self.leave(socket);
            }
            match socket.next(READ) {
                Incoming::Nothing => {}
                Incoming::Text(text) => self.on_text(text),
                Incoming::Ended(code) => return self.session.end(code),
            }
        }
    }

    /// Returns what a connection asks for: every other one to be a member where others publish, the
    /// rest to join and leave at once.
    fn batches(&mut self, count: usize) -> Vec<Vec<(bool, String)>> {
        let own = |part: usize| format!("own-{}-{count}-{part}", self.session.number);
        if count.is_multiple_of(2) {
            return vec![
                vec![(true, own(0)), (false, own(0))],
                vec![(true, own(0)), (false, own(0)), (true, own(1)), (false, own(1))],
            ];
        }
        let channel: Channel = 1 + self.random.below(self.channels.saturating_sub(1));
        vec![vec![(true, group_name(channel))]]
    }

    fn request(&self, socket: &mut Socket, requests: &[(bool, String)]) {
        let sent = self.session.clock.now();
        let group = requests.iter().find_map(|(_, group)| channel_of(group));
        self.session.note(|connection| {
            connection.asked = group.map(|group| (group, sent));
            connection.requests.extend(requests.iter().map(|(joins, group)| Request {
                reply: format!("{} {group}", if *joins { "joined" } else { "left" }),
                sent,
                answer: None,
            }));
        });
        let text = |(joins, group): &(bool, String)| {
            if *joins { gateway::join(group) } else { gateway::leave(group) }
        };
        socket.send_all(&requests.iter().map(text).collect::<Vec<_>>());
    }

    /// Ends the connection: with a close frame, by a route, or by closing TCP.
    fn leave(&mut self, mut socket: Socket) {
        let now = self.session.clock.now();
        self.session.note(|connection| {
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

    fn on_text(&self, text: String) {
        let now = self.session.clock.now();
        let Received::Answer(answer) = self.session.receive(text, now) else { return };
        self.session.note(|connection| {
            let oldest = connection.requests.iter_mut().find(|request| request.answer.is_none());
            let Some(request) = oldest else {
                connection.foreign += 1;
                return;
            };
            match answer.strip_prefix("joined ").and_then(channel_of) {
                Some(channel) if answer == request.reply => {
                    connection.joined = Some((channel, now));
                }
                _ => connection.asked = None,
            }
            request.answer = Some((answer, now));
        });
    }

    fn is_answered(&self) -> bool {
        let all = |each: &Connection| each.requests.iter().all(|request| request.answer.is_some());
        self.session.present(all).unwrap_or(true)
    }

    /// Returns whether an answer belongs to another request: the one that was skipped will never
    /// come.
    fn is_out_of_order(&self) -> bool {
        let is_wrong = |request: &Request| {
            let answer = request.answer.as_ref().map(|(answer, _)| answer);
            answer.is_some_and(|answer| *answer != request.reply && answer != REFUSED)
        };
        self.session.present(|each| each.requests.iter().any(is_wrong)).unwrap_or(false)
    }
}

/// Returns the channel of a group's name, if others publish there.
fn channel_of(group: &str) -> Option<Channel> {
    group.strip_prefix('g')?.parse().ok()
}

fn millis(count: usize) -> Duration {
    Duration::from_millis(count as u64)
}
