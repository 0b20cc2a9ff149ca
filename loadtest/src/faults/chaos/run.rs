//! One run of a plan: traffic, what goes wrong, repair, silence, judgement.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use super::keeper::Keeper;
use super::verdict::{Facts, REAPED, Violation, violations};
use crate::faults::backend::Backend;
use crate::faults::judge::{self, Findings, Terms};
use crate::faults::log::{Answer, Log, Publication};
use crate::faults::phases::{self, BEFORE, Metrics, OPEN_LIMIT, REPAIR_LIMIT, UNDER_WAY};
use crate::faults::plan::{Act, Backing, Outage, Plan};
use crate::faults::sabotage::Sabotage;
use crate::faults::scene::{Scene, Stage};
use crate::faults::setup::Setup;
use crate::shared::progress;

/// Between two looks at the nodes.
const LOOK: Duration = Duration::from_millis(20);
/// After what happened to Redis, until all have heard of it.
const HEARD: Duration = Duration::from_secs(2);
/// Every end of a connection is told to all, by their nodes.
const ROUTES: &str = concat!(
    include_str!("../../../../deploy/examples/chat.toml"),
    "\n[routes.\"$disconnect\"]\nintegration = \"broadcast\"\ndata = \"${context.connectionId} left\"\n"
);

/// What a run found.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Outcome {
    pub(crate) findings: Findings,
    pub(crate) metrics: Metrics,
    pub(crate) violations: Vec<Violation>,
    pub(crate) took_seconds: f64,
}

/// Runs a plan in `directory`.
///
/// # Errors
/// It could not be run.
pub(crate) fn run(
    setup: &Setup,
    plan: &Plan,
    sabotage: Option<Sabotage>,
    directory: &Path,
) -> Result<Outcome> {
    let started = Instant::now();
    let mut setup = setup.clone();
    setup.environment.insert("GATECAST_REDIS_ON_OUTAGE".to_owned(), plan.outage.name().to_owned());
    let timeline = timeline(plan);
    let clock = timeline.iter().any(|(_, act)| matches!(act, Act::Clock(_)));
    let stage = Stage { topology: plan.topology(), lease: plan.lease, clock, routes: Some(ROUTES) };
    let mut scene = Scene::start(&setup, &stage, directory)?;
    let mut keeper = Keeper::new(setup.nodes);
    let opened = scene.clients.clock.now();
    scene.wait_fresh(opened, OPEN_LIMIT).context("before the plan")?;
    scene.hold(BEFORE)?;

    let began = scene.clients.clock.now();
    for (at, act) in &timeline {
        tend_until(&mut keeper, &mut scene, began + *at)?;
        if let Err(err) = keeper.perform(act, &mut scene) {
            scene.interrupt.check()?;
            progress::say(format!("{act:?} at {:.1} s: {err:#}", at.as_secs_f64()));
        }
    }
    keeper.relent(&mut scene);
    if let Backend::Sentinels(sentinels) = &scene.backend {
        sentinels.wait_settled()?;
    }
    let over = scene.clients.clock.now();
    let repaired = heal(&mut keeper, &mut scene, over)?;
    let healed = scene.clients.clock.now();
    // Whoever is still to be missed is missed by now.
    tend_until(&mut keeper, &mut scene, healed + plan.lease)?;
    scene.clients.stop_publishing();
    let last = scene.clients.clock.now();
    let arrived = heal(&mut keeper, &mut scene, last)?;

    let mut outcome = judge(&mut keeper, &mut scene, plan, sabotage, (began, healed))?;
    for example in [repaired.err(), arrived.err()].into_iter().flatten() {
        let examples = vec![format!("{example:#}")];
        outcome.violations.push(Violation { kind: "not repaired", count: 1, examples });
    }
    Ok(Outcome { took_seconds: started.elapsed().as_secs_f64(), ..outcome })
}

/// Waits until every end was told, and says what the run showed.
fn judge(
    keeper: &mut Keeper,
    scene: &mut Scene,
    plan: &Plan,
    sabotage: Option<Sabotage>,
    (began, healed): (Duration, Duration),
) -> Result<Outcome> {
    let forgetful = forgetful(plan, &timeline(plan)).map(|(from, to)| {
        ((began + from).saturating_sub(UNDER_WAY), to.map_or(healed, |to| began + to + HEARD))
    });
    let is_local = plan.outage == Outage::Local;
    let terms = Terms {
        forgetful,
        recount: forgetful.map(|(from, to)| (from, to.max(healed))),
        frozen: true,
        resent: plan.outage == Outage::Buffer,
        unheard: is_local.then_some((began, healed)),
    };
    let facts = |keeper: &Keeper, scene: &Scene| Facts {
        lease: plan.lease,
        apart: keeper.apart.clone(),
        exits: keeper.exits.clone(),
        forgetful,
        local: is_local,
        end: scene.clients.clock.now(),
    };
    let until = scene.clients.clock.now() + plan.lease * 2 + REAPED;
    loop {
        keeper.tend(scene)?;
        let found = violations(&scene.clients.log(), &facts(keeper, scene), &Findings::default());
        let is_awaited = found.iter().any(|violation| violation.kind == "$disconnect never");
        if !is_awaited || scene.clients.clock.now() > until {
            break;
        }
        scene.hold(LOOK * 10)?;
    }
    let mut log = phases::settle(scene, &terms, sabotage)?;
    if is_local {
        doubt_what_came_back(&mut log);
    }
    let findings = judge::judge(&log, &terms);
    let metrics = Metrics::of(&scene.counters());
    let mut violations = violations(&log, &facts(keeper, scene), &findings);
    let is_known = keeper.exits.iter().all(|exit| exit.asked > 0 || exit.killed);
    let missing = findings.lost + findings.forgotten;
    if missing > 0 && is_known && metrics.messages_lost + metrics.recoveries_lost == 0 {
        let examples = vec![format!("{missing} deliveries are missing")];
        violations.push(Violation { kind: "loss not counted", count: 1, examples });
    }
    Ok(Outcome { findings, metrics, violations, took_seconds: 0.0 })
}

/// A client whose message comes back does not know whether anybody else than its own node has seen it.
fn doubt_what_came_back(log: &mut Log) {
    let came_back = |each: &&mut Publication| each.answer == Answer::Accepted(None);
    for each in log.publications.iter_mut().filter(came_back) {
        (each.answer, each.local) = (Answer::InDoubt, true);
    }
}

/// Returns what is done, and when.
fn timeline(plan: &Plan) -> Vec<(Duration, Act)> {
    let mut all: Vec<(Duration, Act)> =
        plan.events.iter().flat_map(|event| (event.what.acts)(event)).collect();
    all.sort_by_key(|(at, _)| *at);
    all
}

/// Returns from when to when Redis may have forgotten what it was told; without an end, until all is repaired.
fn forgetful(plan: &Plan, timeline: &[(Duration, Act)]) -> Option<(Duration, Option<Duration>)> {
    let kept = |name: &String| {
        let snapshot = timeline.iter().find(|(_, act)| *act == Act::Snapshot(name.clone()));
        snapshot.map_or(Duration::ZERO, |(at, _)| *at)
    };
    let killed = |before: Duration| {
        let kills = timeline.iter().filter(|(at, act)| *at <= before && *act == Act::KillRedis);
        kills.map(|(at, _)| *at).max().unwrap_or_default()
    };
    let windows = timeline.iter().filter_map(|(at, act)| match act {
        Act::StartRedisWith(name) => Some((kept(name), Some(*at))),
        Act::StartRedis if plan.redis == Backing::Forgetful => Some((killed(*at), Some(*at))),
        // Keys and streams end by that clock; and who may take all away does it when he likes.
        Act::Clock(_) => Some((*at, timeline.last().map(|(at, _)| *at))),
        Act::Tell(words) if words.contains(&"FLUSHALL") => Some((*at, timeline.last().map(|(at, _)| *at))),
        Act::FailOver | Act::KillMaster => Some((*at, None)),
        _ => None,
    });
    windows.reduce(|one, two| {
        let to = one.1.zip(two.1).map(|(one, two)| one.max(two));
        (one.0.min(two.0), to)
    })
}

fn tend_until(keeper: &mut Keeper, scene: &mut Scene, until: Duration) -> Result<()> {
    loop {
        keeper.tend(scene)?;
        let left = until.saturating_sub(scene.clients.clock.now());
        if left.is_zero() {
            return scene.interrupt.check();
        }
        scene.hold(left.min(LOOK))?;
    }
}

/// Waits until everybody gets fresh messages; the inner result says whether they did.
fn heal(keeper: &mut Keeper, scene: &mut Scene, since: Duration) -> Result<Result<()>> {
    let until = scene.clients.clock.now() + REPAIR_LIMIT;
    loop {
        keeper.tend(scene)?;
        let fresh = scene.wait_fresh(since, LOOK);
        scene.interrupt.check()?;
        if fresh.is_ok() {
            return Ok(fresh);
        }
        if scene.clients.clock.now() > until {
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
