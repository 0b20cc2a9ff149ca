//! One run of a plan: traffic, its events, repair, silence, judgement.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::executor::{Executor, LOOK};
use super::violations::{Facts, REAPED, Violation, violations};
use super::windows::{Deeds, hull};
use crate::faults::backend::Backend;
use crate::faults::judge::{self, Allowances, Findings, Window};
use crate::faults::log::{Answer, Log, Publication};
use crate::faults::phases::{self, BEFORE, Metrics, OPEN_LIMIT, REPAIR_LIMIT};
use crate::faults::plan::{Action, Outage, Plan};
use crate::faults::sabotage::Sabotage;
use crate::faults::setup::Setup;
use crate::faults::testbed::{Requirements, Testbed};
use crate::shared::redis::FORM_LIMIT;

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
        ensure!(
            executor.wait(&mut testbed, FORM_LIMIT, is_settled)?,
            "there is not exactly one master"
        );
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

    let mut outcome = judge(&mut executor, &mut testbed, plan, setup.sabotage, (over, healed))?;
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
    (over, healed): (Duration, Duration),
) -> Result<Outcome> {
    let deeds = Deeds {
        redis: plan.redis,
        nodes: testbed.nodes.len(),
        done: &executor.done,
        isolations: &executor.isolations,
        over,
        healed,
    };
    let (forgetful, unkept, alone) = (deeds.forgetful(), deeds.unkept(), deeds.alone());
    let unkept_anywhere: Vec<Window> = unkept.iter().flatten().copied().collect();
    let is_local = plan.outage == Outage::Local;
    let allowances = Allowances {
        recount: hull(forgetful.iter().copied().chain(deeds.short()))
            .map(|(from, to)| (from, to.max(healed))),
        forgetful: forgetful.clone(),
        unkept,
        away: deeds.away(),
        alone: if is_local { deeds.away_or_slow() } else { Vec::new() },
        resent: (plan.outage == Outage::Buffer).then_some(BUFFER_AGE),
        ..Allowances::default()
    };
    let facts = |executor: &Executor, testbed: &Testbed| Facts {
        lease: plan.lease,
        isolations: executor.isolations.clone(),
        exits: executor.exits.clone(),
        forgetful: forgetful.clone(),
        unkept: unkept_anywhere.clone(),
        local: is_local,
        end: testbed.clients.clock.now(),
    };
    let until = testbed.clients.clock.now() + plan.lease * 2 + REAPED;
    loop {
        executor.restart_ended(testbed)?;
        let found =
            violations(&testbed.clients.log(), &facts(executor, testbed), &Findings::default());
        let is_awaited = found.iter().any(|violation| violation.kind == "$disconnect never");
        if !is_awaited || testbed.clients.clock.now() > until {
            break;
        }
        testbed.sleep(LOOK * 10)?;
    }
    let mut log = phases::settle(testbed, &allowances, sabotage)?;
    if is_local {
        doubt_what_came_back(&mut log, &alone);
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

/// A client whose message comes back while its node may be alone does not know whether other nodes
/// have received it.
fn doubt_what_came_back(log: &mut Log, alone: &[Vec<Window>]) {
    let came_back = |each: &&mut Publication| {
        let own = each.node.map_or(alone, |node| alone.get(node..=node).unwrap_or_default());
        each.answer == Answer::Accepted(None)
            && own.iter().flatten().any(|window| each.touches(*window))
    };
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
    Ok((!is_joined)
        .then(|| format!("not within {REPAIR_LIMIT:?}: messages go through Redis for all nodes")))
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
