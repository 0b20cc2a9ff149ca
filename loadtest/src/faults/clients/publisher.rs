//! Publishers: each posts numbered messages to the management API, one at a time, and notes what it
//! was told.
//!
//! Rule: what is neither certainly accepted nor certainly refused is in doubt.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::notes::Publications;
use crate::faults::log::{Answer, Channel, Clock, Id, Publication, path};
use crate::shared::http::{self, Failure};
use crate::shared::wait::Stop;

/// Somewhat longer than a node waits for Redis, so that its own answer comes first.
pub(crate) const PATIENCE: Duration = Duration::from_millis(2500);

/// The status of what only the members of one node receive.
const LOCAL: u16 = 202;
/// A message with an `Idempotency-Key` is sent this often at most, with pauses between.
const REPEATS: usize = 4;
const REPEAT_PAUSE: Duration = Duration::from_millis(20);

/// One publisher.
#[derive(Debug)]
pub(crate) struct Publisher {
    name: usize,
    /// Ports to post to, in turn.
    ports: Vec<u16>,
    channels: usize,
    clock: Clock,
    publications: Publications,
    posted: u32,
}

impl Publisher {
    pub(crate) fn new(
        name: usize,
        ports: Vec<u16>,
        channels: usize,
        (clock, publications): (Clock, Publications),
    ) -> Self {
        Self { name, ports, channels, clock, publications, posted: 0 }
    }

    /// Posts until it is stopped.
    pub(crate) fn start(mut self, period: Duration, stop: Stop) -> JoinHandle<()> {
        thread::spawn(move || {
            while stop.sleep(period) {
                // Each channel goes through each port in turn.
                let channel = (self.posted as usize / self.ports.len().max(1)) % self.channels;
                self.post(channel, PATIENCE);
            }
        })
    }

    /// Posts until it is stopped, each message several times with the same `Idempotency-Key`, each
    /// time through another port.
    pub(crate) fn start_keyed(mut self, period: Duration, stop: Stop) -> JoinHandle<()> {
        thread::spawn(move || {
            while stop.sleep(period) {
                self.post_keyed(self.posted as usize % self.channels, &stop);
            }
        })
    }

    /// Posts one message.
    pub(crate) fn post(&mut self, channel: Channel, patience: Duration) {
        let (id, place) = self.begin(channel, false);
        let answer = self.send((id, place), 0, "", patience);
        self.end(place, answer);
    }

    /// Posts one message several times: the first 200 counts, and before that any answer that
    /// leaves it in doubt.
    fn post_keyed(&mut self, channel: Channel, stop: &Stop) {
        let (id, place) = self.begin(channel, true);
        let key = format!("Idempotency-Key: k{}-{}\r\n", id.publisher, id.number);
        let mut whole = Answer::Refused;
        for attempt in 0..REPEATS.min(2 + id.number as usize % REPEATS) {
            if attempt > 0 && !stop.sleep(REPEAT_PAUSE) {
                break;
            }
            whole = match (whole, self.send((id, place), attempt, &key, PATIENCE)) {
                (Answer::Accepted(offset), _) | (_, Answer::Accepted(offset)) => {
                    Answer::Accepted(offset)
                }
                (Answer::InDoubt, _) | (_, Answer::InDoubt) => Answer::InDoubt,
                (Answer::Refused, Answer::Refused) => Answer::Refused,
            };
            self.end(place, whole);
        }
    }

    /// Notes the next message, in doubt until it is answered; returns its place in the notes.
    fn begin(&mut self, channel: Channel, keyed: bool) -> (Id, usize) {
        let id = Id { channel, publisher: self.name, number: self.posted };
        self.posted += 1;
        let now = self.clock.now();
        (id, self.publications.add(|_| Publication { keyed, ..Publication::begin(id, now) }))
    }

    fn end(&self, place: usize, answer: Answer) {
        let now = self.clock.now();
        self.publications.change(place, |publication| publication.end(answer, now));
    }

    /// Sends a message through the port whose turn it is, and says what the answer means.
    fn send(
        &self,
        (id, place): (Id, usize),
        attempt: usize,
        headers: &str,
        patience: Duration,
    ) -> Answer {
        let port = self.ports.get((id.number as usize + attempt) % self.ports.len().max(1));
        let port = port.copied().unwrap_or_default();
        let answer = http::post(port, &path(id.channel), (headers, &id.text()), patience);
        if answer.as_ref().is_ok_and(|answer| answer.status == LOCAL) {
            self.publications.change(place, |publication| publication.local = true);
        }
        read(answer)
    }
}

/// Says what an answer means for the message.
fn read(answer: Result<http::Answer<String>, Failure>) -> Answer {
    let answer = match answer {
        Ok(answer) => answer,
        Err(Failure::NotSent) => return Answer::Refused,
        Err(Failure::NoAnswer) => return Answer::InDoubt,
    };
    match answer.status {
        200 => Answer::Accepted(offset(&answer.body)),
        LOCAL => Answer::InDoubt,
        // The balancer's own answer: it found no node.
        503 if answer.header("x-amzn-requestid").is_none() => Answer::Refused,
        500..=599 => Answer::InDoubt,
        _ => Answer::Refused,
    }
}

fn offset(body: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(body).ok()?.get("offset")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_certain_is_accepted_or_refused() {
        let answer = |status, head: &str, body: &str| {
            read(Ok(http::Answer { status, head: head.to_owned(), body: body.to_owned() }))
        };
        assert_eq!(answer(200, "", "{\"offset\":12}"), Answer::Accepted(Some(12)));
        assert_eq!(answer(503, "cache-control: no-cache", "<html>"), Answer::Refused);
        assert_eq!(answer(503, "X-Amzn-RequestId: 1", "{}"), Answer::InDoubt);
        assert_eq!(answer(202, "", "{\"offset\":null,\"scope\":\"node\"}"), Answer::InDoubt);
        assert_eq!(answer(504, "", ""), Answer::InDoubt);
        assert_eq!(answer(429, "", ""), Answer::Refused);
        assert_eq!(read(Err(Failure::NotSent)), Answer::Refused);
        assert_eq!(read(Err(Failure::NoAnswer)), Answer::InDoubt);
    }
}
