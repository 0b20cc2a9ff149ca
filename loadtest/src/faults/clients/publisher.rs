//! Publishers: each posts numbered messages to the management API, one at a time, and notes what it was told.
//!
//! Rule: a message is posted once. What is not surely accepted or surely refused is in doubt.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;

use crate::faults::log::{Answer, Channel, Clock, Id, Publication, path};
use crate::shared::request::{self as http, Failure};
use crate::shared::wait::Stop;

/// Somewhat longer than a node waits for Redis, so that its own answer comes first.
const PATIENCE: Duration = Duration::from_millis(2500);

/// The status of what is for the members of one node alone.
const LOCAL: u16 = 202;
/// A message with a name is sent so often at most, with pauses between.
const REPEATS: usize = 4;
const REPEAT_PAUSE: Duration = Duration::from_millis(20);

/// Publications of all publishers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Publications(Arc<Mutex<Vec<Publication>>>);

/// Posts messages under one name.
#[derive(Debug)]
pub(crate) struct Publisher {
    name: usize,
    /// Ports to post to, in turn.
    doors: Vec<u16>,
    channels: usize,
    clock: Clock,
    publications: Publications,
    posted: u32,
}

impl Publications {
    /// Notes a publication that begins, in doubt until told otherwise; returns its place.
    pub(crate) fn begin(&self, id: Id, now: Duration, named: bool) -> usize {
        let mut all = self.0.lock();
        let answer = Answer::InDoubt;
        all.push(Publication { id, posted: now, answered: Duration::MAX, answer, named, local: false });
        all.len() - 1
    }

    pub(crate) fn end(&self, place: usize, answer: Answer, now: Duration) {
        if let Some(publication) = self.0.lock().get_mut(place) {
            (publication.answer, publication.answered) = (answer, now);
        }
    }

    /// Notes that it may be for the members of one node alone.
    fn note_local(&self, place: usize) {
        if let Some(publication) = self.0.lock().get_mut(place) {
            publication.local = true;
        }
    }

    pub(crate) fn all(&self) -> Vec<Publication> {
        self.0.lock().clone()
    }

    /// Returns what was posted since.
    pub(crate) fn since(&self, since: Duration) -> HashSet<Id> {
        let all = self.0.lock();
        all.iter()
            .filter(|publication| publication.posted >= since)
            .map(|publication| publication.id)
            .collect()
    }
}

impl Publisher {
    pub(crate) fn new(
        name: usize,
        doors: Vec<u16>,
        channels: usize,
        (clock, publications): (Clock, Publications),
    ) -> Self {
        Self { name, doors, channels, clock, publications, posted: 0 }
    }

    /// Posts all the time, until told to stop.
    pub(crate) fn start(mut self, period: Duration, stop: Stop) -> JoinHandle<()> {
        thread::spawn(move || {
            while stop.sleep(period) {
                // Runs over doors and channels do not fall together, so that each channel gets in by each door.
                let channel = (self.posted as usize / self.doors.len().max(1)) % self.channels;
                self.post(channel, PATIENCE);
            }
        })
    }

    /// Posts messages under names all the time, each several times in a row and each time through another door.
    pub(crate) fn start_named(mut self, period: Duration, stop: Stop) -> JoinHandle<()> {
        thread::spawn(move || {
            while stop.sleep(period) {
                self.post_named(self.posted as usize % self.channels, &stop);
            }
        })
    }

    /// Posts one message under a name: the first 200 counts, and whatever leaves it open before that.
    fn post_named(&mut self, channel: Channel, stop: &Stop) {
        let id = Id { channel, publisher: self.name, number: self.posted };
        self.posted += 1;
        let place = self.publications.begin(id, self.clock.now(), true);
        let key = format!("Idempotency-Key: k{}-{}\r\n", id.publisher, id.number);
        let mut whole = Answer::Refused;
        for attempt in 0..REPEATS.min(2 + id.number as usize % REPEATS) {
            if attempt > 0 && !stop.sleep(REPEAT_PAUSE) {
                break;
            }
            let door = self.doors.get((id.number as usize + attempt) % self.doors.len().max(1));
            let door = door.copied().unwrap_or_default();
            let sent = http::request_with(door, ("POST", &path(channel)), &key, &id.text(), PATIENCE);
            whole = match (whole, self.read(sent, place)) {
                (Answer::Accepted(offset), _) | (_, Answer::Accepted(offset)) => Answer::Accepted(offset),
                (Answer::InDoubt, _) | (_, Answer::InDoubt) => Answer::InDoubt,
                (Answer::Refused, Answer::Refused) => Answer::Refused,
            };
            self.publications.end(place, whole, self.clock.now());
        }
    }

    /// Posts one message.
    pub(crate) fn post(&mut self, channel: Channel, patience: Duration) {
        let id = Id { channel, publisher: self.name, number: self.posted };
        let door =
            self.doors.get(self.posted as usize % self.doors.len().max(1)).copied().unwrap_or_default();
        self.posted += 1;
        let place = self.publications.begin(id, self.clock.now(), false);
        let answer = http::request(door, ("POST", &path(channel)), &id.text(), patience);
        let answer = self.read(answer, place);
        self.publications.end(place, answer, self.clock.now());
    }

    fn read(&self, answer: Result<http::Answer, Failure>, place: usize) -> Answer {
        if answer.as_ref().is_ok_and(|answer| answer.status == LOCAL) {
            self.publications.note_local(place);
        }
        read(answer)
    }
}

/// Says what an answer means for the message.
fn read(answer: Result<http::Answer, Failure>) -> Answer {
    let answer = match answer {
        Ok(answer) => answer,
        Err(Failure::NotSent) => return Answer::Refused,
        Err(Failure::NoAnswer) => return Answer::InDoubt,
    };
    let is_from_gatecast = answer.head.to_ascii_lowercase().contains("x-amzn-requestid");
    match answer.status {
        200 => Answer::Accepted(offset(&answer.body)),
        LOCAL => Answer::InDoubt,
        // The balancer's own: it found no node to take the request to.
        503 if !is_from_gatecast => Answer::Refused,
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
    fn only_what_is_sure_is_accepted_or_refused() {
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
