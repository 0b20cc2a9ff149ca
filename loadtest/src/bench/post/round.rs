//! One round of posts, and the check of where each arrives.
//!
//! Rule: a client sends its next post when the last is answered; the round ends when all have
//! arrived. Signatures are made before it begins, so that the figures do not contain them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;

use super::target::Posting;
use crate::bench::fleet::Fleet;
use crate::bench::payload::Payloads;
use crate::bench::report::Report;
use crate::bench::works::{POST_CPU, POSTS};
use crate::shared::conn::Incoming;
use crate::shared::histogram;
use crate::shared::http::Answer;
use crate::shared::process::{Meter, Processes, Spent};

/// What is missing after this long without any answer or arrival is lost.
const STALL: Duration = Duration::from_secs(10);
/// How long to listen for duplicates after the last arrival.
const SETTLE: Duration = Duration::from_millis(200);
const TICK: Duration = Duration::from_millis(50);
const ACCEPTED: u16 = 200;

/// The posts of a round.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) posts: u32,
    pub(crate) bytes: usize,
    /// A round that takes longer is cut, and has failed.
    pub(crate) limit: Duration,
}

/// The result of a round.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Accepted posts.
    posts: u64,
    spent: Spent,
    /// Nanoseconds from sending to the answer.
    answered: Histogram<u64>,
    /// Nanoseconds from sending to the socket.
    arrived: Histogram<u64>,
    pub(super) faults: Vec<String>,
}

struct Sent {
    at: Instant,
    arrivals: u32,
}

pub(super) struct Round {
    n_sockets: usize,
    payloads: Payloads,
    /// Headers by number of the post; empty if posts are not signed.
    signatures: Vec<String>,
    /// By number of the post, which its payload has.
    sent: Vec<Sent>,
    /// The post for whose answer each client waits.
    waiting: Vec<Option<usize>>,
    /// Clients that may send.
    free: Vec<usize>,
    n_answered: u32,
    n_arrived: u32,
    duplicated: u64,
    astray: u64,
    /// Posts that were refused, by status and error.
    refused: BTreeMap<(u16, String), u64>,
    answered: Histogram<u64>,
    arrived: Histogram<u64>,
}

impl Outcome {
    /// Adds the figures and faults to a report.
    pub(crate) fn add_to(&self, report: &mut Report, work: &str, name: &str) {
        let Self { posts, spent, answered, arrived, faults } = self;
        let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / (*posts).max(1) as f64;
        report.add(work, name, POSTS, *posts as f64 / spent.elapsed.as_secs_f64());
        report.add(work, name, POST_CPU, each(spent.server_cpu));
        if !spent.store_cpu.is_zero() {
            report.add(work, name, ("Redis CPU per post", "µs"), each(spent.store_cpu));
        }
        report.add(work, name, ("client CPU per post", "µs"), each(spent.client_cpu));
        report.add_histogram(work, name, answered);
        for (measure, quantile) in [("post to socket, p50", 0.5), ("post to socket, p99", 0.99)] {
            report.add(
                work,
                name,
                (measure, "µs"),
                arrived.value_at_quantile(quantile) as f64 / 1e3,
            );
        }
        for fault in faults {
            report.fault(format!("{work}, {name}: {fault}"));
        }
    }
}

impl Round {
    /// Runs a plan over open connections. Posts that are refused, lost, doubled or astray are
    /// faults of the outcome.
    pub(super) fn run(posting: &mut Posting, plan: &Plan, server: &Processes) -> Result<Outcome> {
        let mut round = Self::new(posting.n_sockets(), posting.clients, plan.bytes)?;
        round.signatures = posting.sign(&round.payloads, plan.posts)?;
        let meter = Meter::start(server)?;
        let cut = round.drive(posting, plan)?;
        let spent = meter.stop()?;
        round.turn(posting, SETTLE)?;
        let refused: u64 = round.refused.values().sum();
        let posts = u64::from(round.n_answered).saturating_sub(refused);
        let faults = round.faults(&posting.fleet, cut);
        Ok(Outcome { posts, spent, answered: round.answered, arrived: round.arrived, faults })
    }

    fn new(n_sockets: usize, clients: usize, bytes: usize) -> Result<Self> {
        Ok(Self {
            n_sockets,
            payloads: Payloads::new(bytes),
            signatures: Vec::new(),
            sent: Vec::new(),
            waiting: vec![None; clients],
            free: (0..clients).collect(),
            n_answered: 0,
            n_arrived: 0,
            duplicated: 0,
            astray: 0,
            refused: BTreeMap::new(),
            answered: histogram::empty()?,
            arrived: histogram::empty()?,
        })
    }

    /// Posts until all posts are answered and have arrived; returns why it was cut short, if it
    /// was.
    fn drive(&mut self, posting: &mut Posting, plan: &Plan) -> Result<Option<String>> {
        let started = Instant::now();
        let mut last_progress = (0, started);
        while self.n_answered < plan.posts || !self.have_all_arrived() {
            while self.sent.len() < plan.posts as usize
                && let Some(client) = self.free.pop()
            {
                self.post(posting, client)?;
            }
            self.turn(posting, TICK)?;
            let now = Instant::now();
            let sum = self.n_answered + self.n_arrived;
            if sum > last_progress.0 {
                last_progress = (sum, now);
            }
            if now - last_progress.1 > STALL {
                return Ok(Some(format!("nothing was answered and nothing arrived for {STALL:?}")));
            }
            if now - started > plan.limit {
                return Ok(Some(format!(
                    "cut after {:?}: {} posts answered",
                    plan.limit, self.n_answered
                )));
            }
        }
        Ok(None)
    }

    fn post(&mut self, posting: &mut Posting, client: usize) -> Result<()> {
        let (socket, payload) = self.next_post(client)?;
        // The post that was just noted.
        let signature = self.signatures.get(self.sent.len() - 1).map_or("", String::as_str);
        posting.post(client, socket, (signature, &payload))
    }

    /// Notes the next post, and returns its socket and its body.
    fn next_post(&mut self, client: usize) -> Result<(usize, String)> {
        let number = self.sent.len();
        self.sent.push(Sent { at: Instant::now(), arrivals: 0 });
        if let Some(waiting) = self.waiting.get_mut(client) {
            *waiting = Some(number);
        }
        Ok((number % self.n_sockets, self.payloads.build(u32::try_from(number)?)))
    }

    fn turn(&mut self, posting: &mut Posting, wait: Duration) -> Result<()> {
        let n_sockets = self.n_sockets;
        posting.fleet.turn(wait, &mut |conn, incoming| match incoming {
            Incoming::Text(payload) if conn < n_sockets => {
                if self.on_arrival(conn, payload).is_none() {
                    self.astray += 1;
                }
            }
            Incoming::Answer(answer) => self.on_answer(conn.wrapping_sub(n_sockets), &answer),
            Incoming::Text(_) | Incoming::Binary => self.astray += 1,
            // The fleet counts these.
            Incoming::Opened | Incoming::Closed => {}
        })
    }

    /// Returns nothing for a message that is not ours, was changed, or is for another socket.
    fn on_arrival(&mut self, socket: usize, payload: &[u8]) -> Option<()> {
        let number = self.payloads.number(payload)? as usize;
        let sent = self.sent.get_mut(number).filter(|_| number % self.n_sockets == socket)?;
        sent.arrivals += 1;
        if sent.arrivals == 1 {
            self.n_arrived += 1;
            histogram::record(&mut self.arrived, sent.at.elapsed());
        } else {
            self.duplicated += 1;
        }
        Some(())
    }

    fn on_answer(&mut self, client: usize, answer: &Answer<&str>) {
        let number = self.waiting.get_mut(client).and_then(Option::take);
        let Some(sent) = number.and_then(|number| self.sent.get(number)) else {
            // Nobody waits for an answer.
            self.astray += 1;
            return;
        };
        self.n_answered += 1;
        if answer.status == ACCEPTED {
            histogram::record(&mut self.answered, sent.at.elapsed());
        } else {
            let error = answer.header("x-amzn-errortype").unwrap_or_default();
            *self.refused.entry((answer.status, error.to_owned())).or_default() += 1;
        }
        self.free.push(client);
    }

    fn have_all_arrived(&self) -> bool {
        let refused: u64 = self.refused.values().sum();
        u64::from(self.n_arrived) + refused >= self.sent.len() as u64
    }

    fn faults(&self, fleet: &Fleet, cut: Option<String>) -> Vec<String> {
        let refused: u64 = self.refused.values().sum();
        let lost = (self.sent.len() as u64).saturating_sub(refused + u64::from(self.n_arrived));
        let counted = [
            (lost, "lost"),
            (self.duplicated, "duplicated"),
            (self.astray, "astray or not readable"),
        ];
        let counted =
            counted.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} posts {what}"));
        let refused = self.refused.iter().map(|((status, error), n)| {
            format!("{n} posts answered with {status} {error}").trim_end().to_owned()
        });
        cut.into_iter().chain(counted).chain(refused).chain(fleet.losses().fault()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, head: &str) -> Answer<&str> {
        Answer { status, head, body: "" }
    }

    /// Four posts to two sockets by one client, of which the last is refused with 410.
    fn round() -> (Round, Vec<String>) {
        let mut round = Round::new(2, 1, 64).unwrap();
        let mut bodies = Vec::new();
        for status in [200, 200, 200, 410] {
            bodies.push(round.next_post(0).unwrap().1);
            round.on_answer(
                0,
                &answer(status, if status == 410 { "x-amzn-ErrorType: GoneException" } else { "" }),
            );
        }
        (round, bodies)
    }

    fn faults(round: &Round) -> Vec<String> {
        round.faults(&Fleet::empty().unwrap(), None)
    }

    #[test]
    fn posts_that_arrive_once_where_they_should_are_no_faults_and_refused_ones_are() {
        let (mut round, bodies) = round();
        for (number, body) in bodies.iter().take(3).enumerate() {
            assert!(round.on_arrival(number % 2, body.as_bytes()).is_some());
        }
        assert!(round.have_all_arrived());
        assert_eq!(faults(&round), ["1 posts answered with 410 GoneException"]);
        assert_eq!((round.answered.len(), round.arrived.len()), (3, 3));
    }

    #[test]
    fn what_is_lost_doubled_or_astray_is_found() {
        let (mut round, bodies) = round();
        assert!(round.on_arrival(0, bodies[0].as_bytes()).is_some());
        round.on_arrival(0, bodies[0].as_bytes());
        // To the wrong socket, changed, of another run, never sent.
        assert!(round.on_arrival(0, bodies[1].as_bytes()).is_none());
        assert!(round.on_arrival(1, &bodies[1].as_bytes()[1..]).is_none());
        assert!(round.on_arrival(0, round.payloads.build(9).as_bytes()).is_none());
        assert!(!round.have_all_arrived());
        assert_eq!(
            faults(&round),
            ["2 posts lost", "1 posts duplicated", "1 posts answered with 410 GoneException"]
        );
    }

    #[test]
    fn an_answer_that_nobody_waits_for_is_astray() {
        let (mut round, _) = round();
        round.on_answer(0, &answer(200, ""));
        round.on_answer(7, &answer(200, ""));
        assert_eq!((round.astray, round.n_answered), (2, 4));
    }
}
