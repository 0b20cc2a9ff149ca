//! One run of a plan: traffic, its events, repair, silence, judgement.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use super::executor::Executor;
use super::violations::{Facts, REAPED, Violation, violations};
use crate::faults::backend::Backend;
use crate::faults::judge::{self, Allowances, Findings};
use crate::faults::log::{Answer, Log, Publication};
use crate::faults::phases::{self, BEFORE, Metrics, OPEN_LIMIT, REPAIR_LIMIT, UNDER_WAY};
use crate::faults::plan::{Action, Backing, Outage, Plan};
use crate::faults::sabotage::Sabotage;
use crate::faults::setup::Setup;
use crate::faults::testbed::{Requirements, Testbed};
use crate::shared::progress;

/// Between two checks of the nodes.
const LOOK: Duration = Duration::from_millis(20);
/// Until all nodes have noticed what happened to Redis.
const HEARD: Duration = Duration::from_secs(2);
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
    pub(crate) took_seconds: f64,
}

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
            progress::say(format!("{action:?} at {:.1} s: {err:#}", at.as_secs_f64()));
        }
    }
    executor.end_all(&mut testbed);
    if let Backend::Sentinels(sentinels) = &testbed.backend {
        sentinels.wait_settled()?;
    }
    let over = testbed.clients.clock.now();
    let repaired = heal(&mut executor, &mut testbed, over)?;
    let healed = testbed.clients.clock.now();
    // By then every dead node has been noticed.
    wait_until(&mut executor, &mut testbed, healed + plan.lease)?;
    testbed.clients.stop_publishing();
    let last = testbed.clients.clock.now();
    let arrived = heal(&mut executor, &mut testbed, last)?;

    let mut outcome = judge(&mut executor, &mut testbed, plan, setup.sabotage, (began, healed))?;
    for example in [repaired.err(), arrived.err()].into_iter().flatten() {
        let examples = vec![format!("{example:#}")];
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
    (began, healed): (Duration, Duration),
) -> Result<Outcome> {
    let forgetful = forgetful(plan, &timeline(plan)).map(|(from, to)| {
        ((began + from).saturating_sub(UNDER_WAY), to.map_or(healed, |to| began + to + HEARD))
    });
    let is_local = plan.outage == Outage::Local;
    let allowances = Allowances {
        forgetful,
        recount: forgetful.map(|(from, to)| (from, to.max(healed))),
        frozen: true,
        resent: plan.outage == Outage::Buffer,
        unheard: is_local.then_some((began, healed)),
    };
    let facts = |executor: &Executor, testbed: &Testbed| Facts {
        lease: plan.lease,
        isolations: executor.isolations.clone(),
        exits: executor.exits.clone(),
        forgetful,
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
    Ok(Outcome { findings, metrics, violations, took_seconds: 0.0 })
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

/// Returns the window in which Redis may have forgotten what it was told; without an end, it lasts until the repair.
fn forgetful(plan: &Plan, timeline: &[(Duration, Action)]) -> Option<(Duration, Option<Duration>)> {
    let kept = |name: &String| {
        let snapshot = timeline.iter().find(|(_, action)| *action == Action::Snapshot(name.clone()));
        snapshot.map_or(Duration::ZERO, |(at, _)| *at)
    };
    let killed = |before: Duration| {
        let kills = timeline.iter().filter(|(at, action)| *at <= before && *action == Action::KillRedis);
        kills.map(|(at, _)| *at).max().unwrap_or_default()
    };
    let windows = timeline.iter().filter_map(|(at, action)| match action {
        Action::StartRedisWith(name) => Some((kept(name), Some(*at))),
        Action::StartRedis if plan.redis == Backing::Forgetful => Some((killed(*at), Some(*at))),
        // Keys and streams expire by that clock; a FLUSHALL is executed at any time after it is sent.
        Action::Clock(_) => Some((*at, timeline.last().map(|(at, _)| *at))),
        Action::Tell(words) if words.contains(&"FLUSHALL") => Some((*at, timeline.last().map(|(at, _)| *at))),
        Action::FailOver | Action::KillMaster => Some((*at, None)),
        _ => None,
    });
    windows.reduce(|one, two| {
        let to = one.1.zip(two.1).map(|(one, two)| one.max(two));
        (one.0.min(two.0), to)
    })
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

/// Waits until all subscribers receive fresh messages; the inner result says whether they do.
fn heal(executor: &mut Executor, testbed: &mut Testbed, since: Duration) -> Result<Result<()>> {
    let until = testbed.clients.clock.now() + REPAIR_LIMIT;
    loop {
        executor.restart_ended(testbed)?;
        let fresh = testbed.wait_fresh(since, LOOK);
        testbed.interrupt.check()?;
        if fresh.is_ok() {
            return Ok(fresh);
        }
        if testbed.clients.clock.now() > until {
            return Ok(fresh.context(format!("not within {REPAIR_LIMIT:?}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(text: &str) -> Option<(f64, Option<f64>)> {
        let plan: Plan = text.parse().unwrap();
        let found = forgetful(&plan, &timeline(&plan));
        found.map(|(from, to)| (from.as_secs_f64(), to.map(|to| to.as_secs_f64())))
    }

    #[test]
    fn what_redis_may_forget_is_known_from_the_plan() {
        assert_eq!(window("redis_restart@1s+1s kill_node@2s redis_pause@3s+1s"), None);
        assert_eq!(window("redis=forgetful redis_restart@1s+1s"), Some((1.0, Some(2.0))));
        assert_eq!(window("redis=forgetful redis_restart_older@4s+1s/3s"), Some((1.0, Some(5.0))));
        assert_eq!(window("redis=sentinel sentinel_failover@1s kill_master@5s+1s"), Some((1.0, None)));
    }
}
