//! Judges what a run shows besides messages: ends of connections and nodes, posts, answers to
//! requests.
//!
//! Rule: pure. Every excuse is a promise that README and `docs/guarantees.md` do not make.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::Serialize;

use super::executor::{Exit, Isolation};
use super::windows::merged;
use crate::faults::clients::member::ANSWERED;
use crate::faults::clients::session::REFUSED;
use crate::faults::judge::{Findings, Window};
use crate::faults::log::{Connection, Log, Post, Request};

/// What happened to nodes and Redis.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) lease: Duration,
    pub(crate) isolations: Vec<Isolation>,
    pub(crate) exits: Vec<Exit>,
    /// Redis may have forgotten what it was told in these windows.
    pub(crate) forgetful: Vec<Window>,
    /// It may have let go of messages in these windows before all nodes had read them.
    pub(crate) unkept: Vec<Window>,
    /// Nodes without Redis serve their own clients alone.
    pub(crate) local: bool,
    /// The end of the run.
    pub(crate) end: Duration,
}

/// One kind of broken promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Violation {
    pub(crate) kind: &'static str,
    pub(crate) count: u64,
    /// The first few.
    pub(crate) examples: Vec<String>,
}

/// A lease is renewed well before it expires, so a node that misses this part of it may be taken
/// for dead.
const PART_OF_LEASE: f64 = 0.6;
/// A node that is back for no longer has not renewed its lease.
const BLINK: Duration = Duration::from_millis(100);
/// A client notes an event within this time.
const NOTED: Duration = Duration::from_secs(1);
/// A node ends within this time of its first closes.
const ENDING: Duration = Duration::from_secs(10);
/// After its lease, a dead node's connections are ended within this time.
pub(crate) const REAPED: Duration = Duration::from_secs(4);
const EXIT_FENCED: i32 = 75;
const EXIT_CUT: i32 = 1;
const EXIT_TERMINATED: i32 = 128 + 15;
/// A process that is told to end so soon after its start need not listen to signals yet.
const STARTING: Duration = Duration::from_secs(1);

/// Counts of violations by kind, with examples.
#[derive(Default)]
struct Tally(BTreeMap<&'static str, (u64, Vec<String>)>);

/// Examples kept of each kind.
const EXAMPLES: usize = 3;

/// Judges a run.
pub(crate) fn violations(log: &Log, facts: &Facts, findings: &Findings) -> Vec<Violation> {
    let mut tally = Tally::default();
    let first = findings.examples.first().cloned().unwrap_or_default();
    for (kind, count) in [
        ("lost", findings.lost),
        ("doubled", findings.duplicated),
        ("reordered", findings.reordered),
        ("phantom", findings.phantom),
    ] {
        tally.add(kind, count, || first.clone());
    }
    facts.judge_exits(&mut tally);
    facts.judge_closes(log, &mut tally);
    facts.judge_disconnects(log, &mut tally);
    facts.judge_posts(log, &mut tally);
    for connection in &log.connections {
        facts.judge_requests(connection, &mut tally);
    }
    tally
        .0
        .into_iter()
        .map(|(kind, (count, examples))| Violation { kind, count, examples })
        .collect()
}

impl Tally {
    fn add(&mut self, kind: &'static str, count: u64, example: impl FnOnce() -> String) {
        if count > 0 {
            let (sum, examples) = self.0.entry(kind).or_default();
            *sum += count;
            if examples.len() < EXAMPLES {
                examples.push(example());
            }
        }
    }
}

impl Facts {
    /// Returns whether a node may be taken for dead between two moments, since it was cut off or
    /// frozen for long enough.
    fn may_be_dead(&self, node: usize, since: Duration, now: Duration) -> bool {
        let is_long = |(from, to): &Window| *to - *from >= self.lease.mul_f64(PART_OF_LEASE);
        self.out_of_the_world(node, now).iter().any(|window| window.1 >= since && is_long(window))
    }

    /// Returns when a node could not do anything until then.
    fn out_of_the_world(&self, node: usize, now: Duration) -> Vec<Window> {
        let own = self.isolations.iter().filter(|each| each.node == node && each.from <= now);
        merged(own.map(|each| (each.from, each.to.unwrap_or(now).min(now))).collect(), BLINK)
    }

    /// Returns whether a node was frozen for some time in a window.
    fn was_frozen(&self, node: usize, (from, to): Window) -> bool {
        let mut frozen = self.isolations.iter().filter(|each| each.node == node && each.frozen);
        frozen.any(|each| each.from <= to && each.to.is_none_or(|end| end + NOTED >= from))
    }

    /// Nodes end only when they are told to, killed, or rightly taken for dead.
    fn judge_exits(&self, tally: &mut Tally) {
        for (number, exit) in self.exits.iter().enumerate() {
            let born = self.exits.iter().take(number).filter(|each| each.node == exit.node);
            let born = born.map(|each| each.at).max().unwrap_or_default();
            let is_right = exit.killed
                || match exit.code {
                    0 => exit.asked > 0,
                    EXIT_CUT => exit.asked > 1,
                    EXIT_FENCED => self.may_be_dead(exit.node, born, exit.at),
                    EXIT_TERMINATED => exit.asked > 0 && exit.at <= born + STARTING,
                    _ => false,
                };
            let kind = if exit.code == EXIT_FENCED { "exit 75" } else { "exit" };
            tally.add(kind, u64::from(!is_right), || {
                let seconds = exit.at.as_secs_f64();
                format!("node {} ended with {} at {seconds:.2} s", exit.node, exit.code)
            });
        }
    }

    /// Connections end only with their node or by their client.
    fn judge_closes(&self, log: &Log, tally: &mut Tally) {
        for connection in log.connections.iter().filter(|each| !each.by_client) {
            let (Some(node), Some((at, code))) = (connection.node, connection.ended) else {
                continue;
            };
            let is_right = self
                .exits
                .iter()
                .filter(|each| each.node == node)
                .any(|exit| at <= exit.at + NOTED && exit.at <= at + ENDING);
            tally.add("closed", u64::from(!is_right), || {
                format!(
                    "{} at node {node} was closed with {code} at {:.2} s",
                    connection.id,
                    at.as_secs_f64()
                )
            });
        }
    }

    /// Every end of a connection is told once.
    fn judge_disconnects(&self, log: &Log, tally: &mut Tally) {
        let by_id = by_id(log);
        let mut most: HashMap<&str, usize> = HashMap::new();
        for watcher in &log.connections {
            let mut counts: HashMap<&str, usize> = HashMap::new();
            for (id, _) in &watcher.disconnects {
                *counts.entry(id.as_str()).or_default() += 1;
            }
            for (id, count) in counts {
                let may_hear_both =
                    by_id.get(id).is_some_and(|ended| self.may_be_told_alone(ended, watcher));
                let count = if may_hear_both { count.div_ceil(2) } else { count };
                let most = most.entry(id).or_default();
                *most = count.max(*most);
            }
        }
        for connection in log.connections.iter().filter(|each| !each.id.is_empty()) {
            let told = most.get(connection.id.as_str()).copied().unwrap_or_default();
            let Some((at, _)) = connection.ended else {
                let is_wrong = told > 0 && !self.may_be_spared(connection);
                tally.add("$disconnect of an open connection", u64::from(is_wrong), || {
                    connection.id.clone()
                });
                continue;
            };
            if self.may_be_told_in(&self.forgetful, at) {
                continue;
            }
            let of = || {
                let node = connection.node.unwrap_or_default();
                format!(
                    "{} of node {node}, which ended at {:.2} s",
                    connection.id,
                    at.as_secs_f64()
                )
            };
            tally.add("$disconnect twice", u64::from(told > 1), of);
            let is_missed = !self.may_be_told_in(&self.unkept, at)
                && !self.may_be_unknown(connection, at)
                && self.is_watched(log, connection, at);
            tally.add("$disconnect never", u64::from(told == 0 && is_missed), of);
        }
    }

    /// Returns whether a watcher may be told of an end by the node of both, which was alone, and by
    /// those who took it for dead.
    fn may_be_told_alone(&self, ended: &Connection, watcher: &Connection) -> bool {
        let is_dead = |node| self.may_be_dead(node, ended.opened, self.end);
        self.local && ended.node == watcher.node && ended.node.is_some_and(is_dead)
    }

    /// Returns whether an end at that time may have been told in one of these windows.
    fn may_be_told_in(&self, windows: &[Window], at: Duration) -> bool {
        windows.iter().any(|(from, to)| at <= *to && at + self.lease * 2 + REAPED >= *from)
    }

    /// Returns whether Redis may have forgotten a connection, and its node not have said so again
    /// since: it was out of the world when Redis forgot, until the connection ended.
    fn may_be_unknown(&self, connection: &Connection, at: Duration) -> bool {
        let out = connection.node.map(|node| self.out_of_the_world(node, at)).unwrap_or_default();
        out.iter()
            .filter(|(_, to)| at <= *to + ENDING)
            .any(|(from, _)| self.may_be_told_in(&self.forgetful, *from))
    }

    /// Returns whether its node may have been taken for dead, and Redis have forgotten that before
    /// the node noticed.
    fn may_be_spared(&self, connection: &Connection) -> bool {
        let mut ends = self.forgetful.iter().map(|(_, to)| *to);
        connection
            .node
            .is_some_and(|node| ends.any(|to| self.may_be_dead(node, connection.opened, to)))
    }

    /// Returns whether a client must have been told of an end: one that was connected from then on.
    fn is_watched(&self, log: &Log, connection: &Connection, at: Duration) -> bool {
        let is_told = |node: Option<usize>| !self.local || node == connection.node;
        log.connections
            .iter()
            .any(|each| each.opened <= at && each.ended.is_none() && is_told(each.node))
    }

    /// A post to an open connection arrives once, and is not answered with 410.
    fn judge_posts(&self, log: &Log, tally: &mut Tally) {
        let by_id = by_id(log);
        for post in &log.posts {
            let Some(connection) = by_id.get(post.to.as_str()) else { continue };
            let is_open = connection.ended.is_none_or(|(end, _)| end > post.answered + NOTED);
            let received = connection.posts.iter().filter(|number| **number == post.number).count();
            let of = || {
                let node = connection.node.unwrap_or_default();
                format!("{} of node {node}, posted at {:.2} s", post.to, post.posted.as_secs_f64())
            };
            let is_gone =
                post.status == Some(410) && is_open && !self.may_be_gone(connection, post);
            tally.add("410 for an open connection", u64::from(is_gone), of);
            tally.add(
                "post lost",
                u64::from(post.status == Some(200) && is_open && received == 0),
                of,
            );
            tally.add("post doubled", u64::from(received > 1), of);
        }
    }

    /// Returns whether a node may be asked that takes the connection's for dead: rightly, or since
    /// it has just started with a Redis that has forgotten whom it knew.
    fn may_be_gone(&self, connection: &Connection, post: &Post) -> bool {
        let has_started = |exit: &Exit| (exit.at..=exit.at + self.lease).contains(&post.answered);
        let knows_nobody =
            |exit: &Exit| self.forgetful.iter().any(|(from, to)| (*from..=*to).contains(&exit.at));
        self.exits.iter().any(|exit| has_started(exit) && knows_nobody(exit))
            || connection
                .node
                .is_some_and(|node| self.may_be_dead(node, connection.opened, post.answered))
    }

    /// Every request is answered once, and in order.
    fn judge_requests(&self, connection: &Connection, tally: &mut Tally) {
        let of = |request: &Request| {
            let Request { reply, answer, sent } = request;
            let node = connection.node.unwrap_or_default();
            format!(
                "{} of node {node} awaited `{reply}` since {:.2} s, got {answer:?}",
                connection.id,
                sent.as_secs_f64()
            )
        };
        for (number, request) in connection.requests.iter().enumerate() {
            let mut later = connection.requests.iter().skip(number + 1);
            let Some((answer, _)) = &request.answer else {
                let end = connection.ended.map_or(self.end, |(at, _)| at);
                let is_late = end.saturating_sub(request.sent) >= ANSWERED.mul_f64(0.9);
                let is_frozen =
                    connection.node.is_some_and(|node| self.was_frozen(node, (request.sent, end)));
                let is_skipped = later.any(|later| later.answer.is_some());
                tally.add(
                    "join unanswered",
                    u64::from(is_skipped || (is_late && !is_frozen)),
                    || of(request),
                );
                continue;
            };
            let is_right = *answer == request.reply || answer == REFUSED;
            tally.add("join out of order", u64::from(!is_right), || of(request));
        }
    }
}

fn by_id(log: &Log) -> HashMap<&str, &Connection> {
    log.connections.iter().map(|connection| (connection.id.as_str(), connection)).collect()
}

#[cfg(test)]
mod tests;
