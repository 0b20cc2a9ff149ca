//! One run of a plan: traffic, its events, repair, silence, judgement.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::executor::{Done, Executor, Isolation, LOOK};
use super::violations::{Facts, REAPED, Violation, violations};
use crate::faults::backend::Backend;
use crate::faults::judge::{self, Allowances, Findings};
use crate::faults::log::{Answer, Log, Publication};
use crate::faults::phases::{self, BEFORE, Metrics, OPEN_LIMIT, REPAIR_LIMIT, UNDER_WAY};
use crate::faults::plan::{Action, Backing, FULL, Outage, Plan};
use crate::faults::sabotage::Sabotage;
use crate::faults::setup::Setup;
use crate::faults::testbed::{Requirements, Testbed};
use crate::shared::redis::FORM_LIMIT;

/// Until all nodes have noticed what happened to Redis.
const HEARD: Duration = Duration::from_secs(2);
/// A node may be so far behind: it reconnects in this time, even if each answer is slow.
const BEHIND: Duration = Duration::from_secs(4);
/// How long a node keeps what Redis has not accepted yet: `redis.buffer_age`.
const BUFFER_AGE: Duration = Duration::from_secs(10);
/// Every end of a connection is told to all clients.
const ROUTES: &str = concat!(
    include_str!("../../../../deploy/examples/chat.toml"),
    "\n[routes.\"$disconnect\"]\nintegration = \"broadcast\"\ndata = \"${context.connectionId} left\"\n"
);

/// The result of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Outcome {
    pub(crate) findings: Findings,
    pub(crate) metrics: Metrics,
    pub(crate) violations: Vec<Violation>,
    /// The action that failed; then nothing is judged.
    pub(crate) failed_action: Option<String>,
    pub(crate) took_seconds: f64,
}

impl Outcome {
    /// Returns whether every action was executed and every promise kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.violations.is_empty() && self.failed_action.is_none()
    }
}

type Window = (Duration, Duration);

/// Runs a plan in `directory`.
pub(crate) fn run(setup: &Setup, plan: &Plan, directory: &Path) -> Result<Outcome> {
    let started = Instant::now();
    let mut setup = setup.clone();
    setup.environment.insert("GATECAST_REDIS_ON_OUTAGE".to_owned(), plan.outage.name().to_owned());
    let timeline = timeline(plan);
    let clock = timeline.iter().any(|(_, action)| matches!(action, Action::Clock(_)));
    let requirements =
        Requirements { topology: plan.topology(), lease: plan.lease, clock, routes: Some(ROUTES) };
    let mut testbed = Testbed::start(&setup, &requirements, directory)?;
    let mut executor = Executor::new(setup.nodes);
    let opened = testbed.clients.clock.now();
    testbed.wait_fresh(opened, OPEN_LIMIT).context("before the plan")?;
    testbed.sleep(BEFORE)?;

    let began = testbed.clients.clock.now();
    for (at, action) in &timeline {
        wait_until(&mut executor, &mut testbed, began + *at)?;
        if let Err(err) = executor.perform(action, &mut testbed) {
            testbed.interrupt.check()?;
            let failed_action = Some(format!("{action:?} at {:.1} s: {err:#}", at.as_secs_f64()));
            let took_seconds = started.elapsed().as_secs_f64();
            return Ok(Outcome { failed_action, took_seconds, ..Outcome::default() });
        }
    }
    executor.end_all(&mut testbed);
    if let Backend::Sentinels(_) = &testbed.backend {
        let is_settled = |testbed: &mut Testbed| Ok(testbed.backend.sentinels()?.is_settled());
        ensure!(executor.wait(&mut testbed, FORM_LIMIT, is_settled)?, "there is not exactly one master");
    }
    let over = testbed.clients.clock.now();
    // A node that is alone delivers fresh messages, too.
    let joined = rejoin(&mut executor, &mut testbed)?;
    let repaired = heal(&mut executor, &mut testbed, over)?;
    let healed = testbed.clients.clock.now();
    // By then every dead node has been noticed.
    wait_until(&mut executor, &mut testbed, healed + plan.lease)?;
    testbed.clients.stop_publishing();
    let last = testbed.clients.clock.now();
    let arrived = heal(&mut executor, &mut testbed, last)?;

    let mut outcome = judge(&mut executor, &mut testbed, plan, setup.sabotage, (began, over, healed))?;
    for example in [joined, repaired, arrived].into_iter().flatten() {
        let examples = vec![example];
        outcome.violations.push(Violation { kind: "not repaired", count: 1, examples });
    }
    Ok(Outcome { took_seconds: started.elapsed().as_secs_f64(), ..outcome })
}

/// Waits until every end was told, and judges the run.
fn judge(
    executor: &mut Executor,
    testbed: &mut Testbed,
    plan: &Plan,
    sabotage: Option<Sabotage>,
    (began, over, healed): (Duration, Duration, Duration),
) -> Result<Outcome> {
    let forgetful = forgetful(plan.redis, &executor.done, (over, healed));
    let forgetful = forgetful.map(|(from, to)| (from.saturating_sub(UNDER_WAY), to + HEARD));
    let emptied = emptied(plan.redis, &executor.done, over);
    let unkept = emptied.map(|(from, to)| (behind(&executor.isolations, from), to + HEARD));
    let is_local = plan.outage == Outage::Local;
    let allowances = Allowances {
        forgetful,
        unkept,
        recount: forgetful.map(|(from, to)| (from, to.max(healed))),
        frozen: true,
        resent: (plan.outage == Outage::Buffer).then_some(BUFFER_AGE),
        unheard: is_local.then_some((began, healed)),
    };
    let facts = |executor: &Executor, testbed: &Testbed| Facts {
        lease: plan.lease,
        isolations: executor.isolations.clone(),
        exits: executor.exits.clone(),
        forgetful,
        unkept,
        local: is_local,
        end: testbed.clients.clock.now(),
    };
    let until = testbed.clients.clock.now() + plan.lease * 2 + REAPED;
    loop {
        executor.restart_ended(testbed)?;
        let found = violations(&testbed.clients.log(), &facts(executor, testbed), &Findings::default());
        let is_awaited = found.iter().any(|violation| violation.kind == "$disconnect never");
        if !is_awaited || testbed.clients.clock.now() > until {
            break;
        }
        testbed.sleep(LOOK * 10)?;
    }
    let mut log = phases::settle(testbed, &allowances, sabotage)?;
    if is_local {
        doubt_what_came_back(&mut log);
    }
    let findings = judge::judge(&log, &allowances);
    let metrics = Metrics::of(&testbed.counters());
    let mut violations = violations(&log, &facts(executor, testbed), &findings);
    let is_known = executor.exits.iter().all(|exit| exit.asked > 0 || exit.killed);
    let missing = findings.lost + findings.forgotten;
    if missing > 0 && is_known && metrics.messages_lost + metrics.recoveries_lost == 0 {
        let examples = vec![format!("{missing} deliveries are missing")];
        violations.push(Violation { kind: "loss not counted", count: 1, examples });
    }
    Ok(Outcome { findings, metrics, violations, ..Outcome::default() })
}

/// A client whose message comes back does not know whether other nodes have received it.
fn doubt_what_came_back(log: &mut Log) {
    let came_back = |each: &&mut Publication| each.answer == Answer::Accepted(None);
    for each in log.publications.iter_mut().filter(came_back) {
        (each.answer, each.local) = (Answer::InDoubt, true);
    }
}

/// Returns all actions in the order of their times.
fn timeline(plan: &Plan) -> Vec<(Duration, Action)> {
    let mut all: Vec<(Duration, Action)> =
        plan.events.iter().flat_map(|event| (event.kind.actions)(event)).collect();
    all.sort_by_key(|(at, _)| *at);
    all
}

/// Returns the window in which Redis may have forgotten what it was told.
fn forgetful(redis: Backing, done: &[Done], (over, healed): Window) -> Option<Window> {
    let kept = |name: &String| {
        let snapshot = done.iter().find(|each| each.action == Action::Snapshot(name.clone()));
        snapshot.map_or(Duration::ZERO, |each| each.from)
    };
    let windows = done.iter().filter_map(|Done { from, to, action }| match action {
        Action::StartRedisWith(name) => Some((kept(name), *to)),
        Action::FailOver | Action::KillMaster => Some((*from, healed)),
        _ => None,
    });
    hull(windows.chain(emptyings(redis, done, over)))
}

/// Returns the window in which Redis may have let go of everything, or of messages alone: short of memory, streams hold less.
fn emptied(redis: Backing, done: &[Done], over: Duration) -> Option<Window> {
    let full = done.iter().filter(|each| each.action == Action::Tell(FULL)).map(|each| (each.from, over));
    hull(full.chain(emptyings(redis, done, over)))
}

/// Returns the windows in which Redis may have lost everything.
fn emptyings(redis: Backing, done: &[Done], over: Duration) -> impl Iterator<Item = Window> {
    let killed = move |before: Duration| {
        let kills = done.iter().filter(|each| each.from <= before && each.action == Action::KillRedis);
        kills.map(|each| each.from).max().unwrap_or_default()
    };
    done.iter().filter_map(move |Done { from, to, action }| match action {
        Action::StartRedis if redis == Backing::Forgetful => Some((killed(*from), *to)),
        // Keys and streams expire by that clock; a FLUSHALL is executed at any time after it is sent.
        Action::Clock(_) => Some((*from, over)),
        Action::Tell(words) if words.contains(&"FLUSHALL") => Some((*from, over)),
        _ => None,
    })
}

fn hull(windows: impl Iterator<Item = Window>) -> Option<Window> {
    windows.reduce(|one, two| (one.0.min(two.0), one.1.max(two.1)))
}

/// Returns the time of the oldest message that a node may not have read at another time.
fn behind(isolations: &[Isolation], at: Duration) -> Duration {
    let is_behind = |each: &&Isolation| each.from <= at && each.to.is_none_or(|to| to + BEHIND >= at);
    let oldest = isolations.iter().filter(is_behind).map(|each| each.from.saturating_sub(UNDER_WAY));
    oldest.chain([at.saturating_sub(BEHIND)]).min().unwrap_or_default()
}

fn wait_until(executor: &mut Executor, testbed: &mut Testbed, until: Duration) -> Result<()> {
    loop {
        executor.restart_ended(testbed)?;
        let left = until.saturating_sub(testbed.clients.clock.now());
        if left.is_zero() {
            return testbed.interrupt.check();
        }
        testbed.sleep(left.min(LOOK))?;
    }
}

/// Waits until messages go through Redis for all nodes; returns what is wrong if they do not.
fn rejoin(executor: &mut Executor, testbed: &mut Testbed) -> Result<Option<String>> {
    let mut least = Vec::new();
    let look = |testbed: &mut Testbed| Ok(testbed.has_heartbeats(&mut least));
    let is_joined = executor.wait(testbed, REPAIR_LIMIT, look)?;
    Ok((!is_joined).then(|| format!("not within {REPAIR_LIMIT:?}: messages go through Redis for all nodes")))
}

/// Waits until all subscribers receive fresh messages; returns what is wrong if they do not.
fn heal(executor: &mut Executor, testbed: &mut Testbed, since: Duration) -> Result<Option<String>> {
    let mut missing = None;
    let look = |testbed: &mut Testbed| {
        missing = testbed.wait_fresh(since, LOOK).err();
        testbed.interrupt.check()?;
        Ok(missing.is_none())
    };
    executor.wait(testbed, REPAIR_LIMIT, look)?;
    Ok(missing.map(|missing| format!("not within {REPAIR_LIMIT:?}: {missing:#}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Actions that were done at these times, in milliseconds, each within 100 more.
    fn done(actions: &[(u64, Action)]) -> Vec<Done> {
        actions
            .iter()
            .map(|(from, action)| Done { from: at(*from), to: at(from + 100), action: action.clone() })
            .collect()
    }

    #[test]
    fn what_redis_may_forget_is_known_from_what_was_done() {
        let window =
            |redis, actions: &[(u64, Action)]| forgetful(redis, &done(actions), (at(8000), at(9000)));
        let restart = [(1000, Action::KillRedis), (2000, Action::StartRedis)];
        assert_eq!(window(Backing::Durable, &restart), None);
        assert_eq!(window(Backing::Forgetful, &restart), Some((at(1000), at(2100))));
        let name = "older".to_owned();
        let older = [
            (500, Action::Snapshot(name.clone())),
            (4000, Action::KillRedis),
            (5000, Action::StartRedisWith(name)),
        ];
        assert_eq!(window(Backing::Forgetful, &older), Some((at(500), at(5100))));
        let flush = [(3000, Action::Tell(&["FLUSHALL"])), (4000, Action::WakeRedis)];
        assert_eq!(window(Backing::Durable, &flush), Some((at(3000), at(8000))));
        let failover = [(1000, Action::FailOver), (5000, Action::KillMaster)];
        assert_eq!(window(Backing::Sentinel, &failover), Some((at(1000), at(9000))));
    }

    #[test]
    fn what_is_let_go_of_is_missed_by_who_could_not_read_it_before() {
        let emptied = |actions: &[(u64, Action)]| emptied(Backing::Durable, &done(actions), at(8000));
        assert_eq!(emptied(&[(1000, Action::KillRedis), (2000, Action::StartRedis)]), None);
        assert_eq!(emptied(&[(6000, Action::Tell(FULL))]), Some((at(6000), at(8000))));
        assert_eq!(
            emptied(&[(6000, Action::Tell(FULL)), (5000, Action::Clock(60))]),
            Some((at(5000), at(8000)))
        );

        let isolation =
            |from, to: Option<u64>| Isolation { node: 0, from: at(from), to: to.map(at), frozen: false };
        assert_eq!(behind(&[], at(6000)), at(2000));
        assert_eq!(behind(&[isolation(1000, None)], at(6000)), at(500));
        assert_eq!(behind(&[isolation(1000, Some(3000))], at(6000)), at(500), "it may still be reading");
        assert_eq!(behind(&[isolation(500, Some(1500)), isolation(7000, None)], at(6000)), at(2000));
    }
}
