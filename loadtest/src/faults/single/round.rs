//! One round of one fault: traffic, the fault, repair, silence, judgement.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use super::table::{Fault, Loss};
use crate::faults::judge::{Allowances, Findings, judge};
use crate::faults::log::Log;
use crate::faults::phases::{BEFORE, Metrics, OPEN_LIMIT, REPAIR_LIMIT, UNDER_WAY, settle};
use crate::faults::setup::Setup;
use crate::faults::testbed::{Requirements, Testbed};

/// Traffic after the repair.
const AFTER: Duration = Duration::from_millis(300);

/// The result of a round.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Outcome {
    pub(crate) round: usize,
    pub(crate) findings: Findings,
    /// Connections that ended although their nodes were not harmed.
    pub(crate) unexpected_closes: u64,
    /// The longest time, from the start of the fault to the repair, in which no message was
    /// accepted.
    pub(crate) silence_seconds: Option<f64>,
    /// From the end of the fault (or its start if it has no end) to the first accepted message, and
    /// until all subscribers receive; `None` if that did not happen.
    pub(crate) first_accepted_seconds: Option<f64>,
    pub(crate) repair_seconds: Option<f64>,
    pub(crate) metrics: Metrics,
    /// Every promise that was broken, in words.
    pub(crate) broken: Vec<String>,
    /// Wall-clock time of the whole round.
    pub(crate) took_seconds: f64,
}

/// Runs a round in `directory`.
pub(crate) fn run(setup: &Setup, fault: &Fault, directory: &Path) -> Result<Outcome> {
    let started = Instant::now();
    let Fault { topology, lease, .. } = *fault;
    let requirements = Requirements { topology, lease, clock: false, routes: None };
    let mut testbed = Testbed::start(setup, &requirements, directory)?;
    let opened = testbed.clients.clock.now();
    testbed.wait_fresh(opened, OPEN_LIMIT).context("before the fault")?;
    testbed.sleep(BEFORE)?;
    let began = testbed.clients.clock.now();
    let (mut over, mut repaired) = (began, Ok(()));
    for _ in 0..setup.repeat {
        repaired?;
        (fault.action)(&mut testbed)?;
        over = testbed.over.context("the fault does not say when it is over")?;
        repaired = testbed.wait_fresh(over, REPAIR_LIMIT);
        testbed.sleep(AFTER)?;
    }
    let healed = testbed.clients.clock.now();

    testbed.clients.stop_publishing();
    let last = testbed.clients.clock.now();
    let arrived = testbed.wait_fresh(last, REPAIR_LIMIT);
    let from = began.saturating_sub(UNDER_WAY);
    let (forgetful, recount) = match fault.loss {
        Loss::Nothing => (None, None),
        Loss::BeforeIsOver => (Some((from, over)), Some((from, healed))),
        Loss::BeforeIsHealed => (Some((from, healed)), Some((from, healed))),
    };
    let forgetful = forgetful.into_iter().collect();
    let allowances =
        Allowances { forgetful, recount, frozen: fault.freezes, ..Allowances::default() };
    let log = settle(&testbed, &allowances, setup.sabotage)?;
    let metrics = Metrics::of(&testbed.counters());
    let findings = judge(&log, &allowances);
    let ended: u64 = findings.closed.values().sum();
    let mut outcome = Outcome {
        unexpected_closes: ended.saturating_sub(testbed.expected_closes),
        silence_seconds: silence(&log, began, healed),
        first_accepted_seconds: first_accepted(&log, over),
        repair_seconds: repaired
            .is_ok()
            .then(|| repair(&log, over, testbed.clients.n_subscribers()))
            .flatten(),
        metrics,
        broken: std::mem::take(&mut testbed.broken),
        took_seconds: started.elapsed().as_secs_f64(),
        findings,
        ..Outcome::default()
    };
    let silence = repaired.err().or(arrived.err()).map(|err| err.to_string());
    outcome.broken.extend(silence);
    outcome.judge();
    Ok(outcome)
}

/// Returns the longest time within a window in which no publication was accepted.
fn silence(log: &Log, from: Duration, to: Duration) -> Option<f64> {
    let accepted =
        log.publications.iter().filter(|each| each.is_accepted()).map(|each| each.answered);
    let mut times: Vec<Duration> =
        accepted.filter(|at| (from..to).contains(at)).chain([from, to]).collect();
    times.sort_unstable();
    let gaps = times.iter().zip(times.iter().skip(1)).map(|(one, two)| (*two - *one).as_secs_f64());
    gaps.reduce(f64::max)
}

/// Returns when the first publication posted since was accepted.
fn first_accepted(log: &Log, since: Duration) -> Option<f64> {
    let later = log.publications.iter().filter(|each| each.is_accepted() && each.posted >= since);
    later.map(|each| each.answered.saturating_sub(since).as_secs_f64()).reduce(f64::min)
}

/// Returns when the last subscriber had received, on all of its channels, a message posted since.
fn repair(log: &Log, since: Duration, n_subscribers: usize) -> Option<f64> {
    let fresh: std::collections::HashSet<_> =
        log.publications.iter().filter(|each| each.posted >= since).map(|each| each.id).collect();
    let mut first = std::collections::HashMap::new();
    for connection in &log.connections {
        for (id, at) in connection.received.iter().filter(|(id, _)| fresh.contains(id)) {
            let first = first.entry((connection.subscriber, id.channel)).or_insert(*at);
            *first = (*first).min(*at);
        }
    }
    let heard: std::collections::HashSet<usize> =
        first.keys().map(|(subscriber, _)| *subscriber).collect();
    let last = first.values().max()?;
    (heard.len() == n_subscribers).then(|| last.saturating_sub(since).as_secs_f64())
}

impl Outcome {
    /// Notes which promises were broken.
    fn judge(&mut self) {
        let Findings { accepted, lost, forgotten, duplicated, reordered, phantom, .. } =
            self.findings;
        let counts = [
            (lost, "deliveries lost"),
            (duplicated, "deliveries doubled"),
            (reordered, "deliveries out of order"),
            (phantom, "deliveries of what was refused, changed or not meant for the receiver"),
            (self.unexpected_closes, "connections closed without need"),
        ];
        let wrong = counts.iter().filter(|(count, _)| *count > 0);
        self.broken.extend(wrong.map(|(count, what)| format!("{count} {what}")));
        if accepted == 0 {
            self.broken.push("no message was accepted".to_owned());
        }
        if lost + forgotten > 0 && self.metrics.messages_lost + self.metrics.recoveries_lost == 0 {
            self.broken.push(format!(
                "{} deliveries are missing, and no metric of a node says so",
                lost + forgotten
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::log::{Answer, Connection, Id, Publication};

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn id(number: u32) -> Id {
        Id { channel: 0, publisher: 0, number }
    }

    /// Messages accepted at these times, posted 10 ms before each.
    fn log(accepted: &[u64]) -> Log {
        let publications = (0..).zip(accepted).map(|(number, millis)| Publication {
            id: id(number),
            posted: at(millis - 10),
            answered: at(*millis),
            answer: Answer::Accepted(None),
            keyed: false,
            local: false,
            node: None,
        });
        Log { publications: publications.collect(), ..Log::default() }
    }

    fn received(subscriber: usize, messages: &[(u32, u64)]) -> Connection {
        let received = messages.iter().map(|(number, millis)| (id(*number), at(*millis))).collect();
        Connection { subscriber, received, ..Connection::default() }
    }

    #[test]
    fn silence_is_the_longest_gap_its_ends_included() {
        let is = |log: &Log, seconds: f64| {
            silence(log, at(1000), at(4000)).is_some_and(|found| (found - seconds).abs() < 1e-9)
        };
        assert!(is(&log(&[500, 1100, 3000, 3100]), 1.9));
        assert!(is(&log(&[1100, 1200]), 2.8));
        assert!(is(&log(&[500, 5000]), 3.0));
    }

    #[test]
    fn repair_is_when_the_last_subscriber_got_a_message_posted_after_the_fault() {
        let mut log = log(&[900, 1500, 2000]);
        log.connections =
            vec![received(0, &[(0, 1600), (1, 1700), (2, 2010)]), received(1, &[(2, 2500)])];
        let repaired = repair(&log, at(1000), 2).unwrap();
        assert!((repaired - 1.5).abs() < 1e-9, "{repaired}");
        assert_eq!(repair(&log, at(1000), 3), None, "the third heard nothing");
        assert!(first_accepted(&log, at(1000)).is_some_and(|first| (first - 0.5).abs() < 1e-9));
    }

    #[test]
    fn a_loss_that_no_metric_shows_is_a_broken_promise_of_its_own() {
        let findings = Findings { accepted: 1, forgotten: 1, ..Findings::default() };
        let mut outcome = Outcome { findings, ..Outcome::default() };
        outcome.judge();
        assert_eq!(outcome.broken.len(), 1);
        let metrics = Metrics { recoveries_lost: 1, ..Metrics::default() };
        let mut outcome = Outcome { metrics, broken: Vec::new(), ..outcome };
        outcome.judge();
        assert!(outcome.broken.is_empty());
    }
}
