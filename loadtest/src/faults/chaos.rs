//! `faults --random` and `--plan`: several faults at a time, random or given, and every promise
//! judged.
//!
//! Reading order: `plan` (what goes wrong, and when) → `run` (one run) → `executor` (does it) →
//! `windows` (what that excuses) → `violations` (the judgement) → `shrink` (makes a failing plan
//! shorter).

mod executor;
mod run;
mod shrink;
mod violations;
mod windows;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use self::run::Outcome;
use super::args::FaultsArgs;
use super::judge::Findings;
use super::plan::{Event, Plan};
use super::setup::Setup;
use crate::shared::args::OutputArgs;
use crate::shared::output::{self, put};
use crate::shared::progress;

/// Runs to make a plan shorter, at most, and their time together.
const SHRINK_TRIES: usize = 12;
const SHRINK_LIMIT: Duration = Duration::from_secs(300);
/// Members in a run.
const MEMBERS: usize = 12;
/// More subscribers find nothing more, and are slow to judge.
const MOST_SUBSCRIBERS: usize = 12;

/// All runs.
#[derive(Debug, Default, Serialize)]
struct Report {
    runs: Vec<Run>,
}

/// One plan and its result.
#[derive(Debug, Serialize)]
struct Run {
    seed: u64,
    redis: &'static str,
    plan: String,
    outcome: Option<Outcome>,
    /// Why there is no outcome.
    not_run: Option<String>,
    /// The part of the plan that is enough to break a promise of the same kind.
    short: Option<String>,
}

/// Runs plans, as many as asked for or until one breaks a promise; returns whether all promises
/// were kept.
pub(crate) fn run_plans(args: &FaultsArgs, files: &OutputArgs) -> Result<bool> {
    let mut setup = Setup::new(args)?;
    setup.size.subscribers = setup.size.subscribers.min(MOST_SUBSCRIBERS);
    setup.size.senders = setup.size.senders.min(setup.size.subscribers);
    setup.size.members = MEMBERS;
    let until = args.minutes.map(|minutes| Instant::now() + Duration::from_secs(60) * minutes);
    let mut report = Report::default();
    let mut next = args.seed;
    for number in 0_usize.. {
        let (seed, plan) = match args.plan.is_empty() {
            true => Plan::random_with(args.redis, next, setup.nodes),
            false => (next, args.plan.get(number % args.plan.len()).context("no plan")?.clone()),
        };
        next = seed.wrapping_add(1);
        let run = Run::of(&setup, &plan, seed, args)?;
        let is_broken = run.is_broken();
        report.runs.push(run);
        if let Some(path) = &files.json {
            output::write_json(path, &report)?;
        }
        if let Some(path) = &files.markdown {
            output::write_text(path, &report.markdown(args))?;
        }
        let is_last = match until {
            Some(until) => Instant::now() >= until,
            None => number + 1 >= args.rounds() * args.plan.len().max(1),
        };
        if is_last || (is_broken && !args.keep_going) {
            break;
        }
    }
    output::print(&report.markdown(args))?;
    Ok(report.is_good())
}

impl Run {
    /// Runs a plan; if it fails, also parts of it, to find out what of it is needed.
    fn of(setup: &Setup, plan: &Plan, seed: u64, args: &FaultsArgs) -> Result<Self> {
        progress::say(format!("seed {seed}: {plan}"));
        let outcome = attempt(setup, plan, seed, args);
        setup.interrupt.check()?;
        let (outcome, not_run) = match outcome {
            Ok(outcome) => (Some(outcome), None),
            Err(err) => (None, Some(format!("{err:#}"))),
        };
        let redis = plan.redis.name();
        let mut run = Self { seed, redis, plan: plan.to_string(), outcome, not_run, short: None };
        progress::say(format!("seed {seed}: {}", run.verdict()));
        let kinds = run.kinds();
        if !kinds.is_empty() && !args.keep_going {
            let until = Instant::now() + SHRINK_LIMIT;
            let short = shrink::shrink(plan, SHRINK_TRIES, |shorter| {
                if Instant::now() > until || setup.interrupt.check().is_err() {
                    return false;
                }
                let found = attempt(setup, shorter, seed, args);
                let fails = found.is_ok_and(|found| {
                    found.violations.iter().any(|each| kinds.contains(&each.kind))
                });
                progress::say(format!(
                    "{}: {shorter}",
                    if fails { "still broken" } else { "not broken" }
                ));
                fails
            });
            run.short = Some(short.to_string());
        }
        Ok(run)
    }

    /// Returns the events of the plan, or of the shorter one.
    fn events(&self) -> Vec<Event> {
        let plan: Option<Plan> = self.short.as_ref().unwrap_or(&self.plan).parse().ok();
        plan.map(|plan| plan.events).unwrap_or_default()
    }

    fn is_kept(&self) -> bool {
        self.outcome.as_ref().is_some_and(Outcome::is_kept)
    }

    fn is_broken(&self) -> bool {
        self.outcome.as_ref().is_none_or(|outcome| !outcome.violations.is_empty())
    }

    fn kinds(&self) -> Vec<&'static str> {
        let violations = self.outcome.iter().flat_map(|outcome| &outcome.violations);
        violations.map(|violation| violation.kind).collect()
    }

    fn verdict(&self) -> String {
        let Some(outcome) = &self.outcome else {
            return format!("NOT RUN: {}", self.not_run.as_deref().unwrap_or_default());
        };
        if let Some(reason) = &outcome.failed_action {
            return format!("NOT JUDGED: {reason}");
        }
        if outcome.violations.is_empty() {
            return format!("kept, {:.1} s", outcome.took_seconds);
        }
        let each = outcome
            .violations
            .iter()
            .map(|each| format!("{} ({}): {}", each.kind, each.count, each.examples.join(", ")));
        format!("BROKEN: {}", each.collect::<Vec<_>>().join("; "))
    }
}

impl Report {
    /// Returns whether all that was judged was kept.
    fn is_good(&self) -> bool {
        !self.runs.iter().any(Run::is_broken) && self.runs.iter().any(Run::is_kept)
    }

    /// Returns a table of the runs with each Redis.
    fn sums(&self) -> String {
        let mut text = String::from(
            "| Redis | runs | kept | not judged | minutes | accepted | owed | lost | cut |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        );
        let redis: BTreeSet<&str> = self.runs.iter().map(|run| run.redis).collect();
        for redis in redis {
            let runs = || self.runs.iter().filter(|run| run.redis == redis);
            let outcomes = || runs().filter_map(|run| run.outcome.as_ref());
            let sum =
                |of: fn(&Findings) -> u64| outcomes().map(|each| of(&each.findings)).sum::<u64>();
            let line = format!(
                "\n| {redis} | {} | {} | {} | {:.1} | {} | {} | {} ({}) | {} |",
                runs().count(),
                runs().filter(|run| run.is_kept()).count(),
                outcomes().filter(|each| each.failed_action.is_some()).count(),
                outcomes().map(|each| each.took_seconds).sum::<f64>() / 60.0,
                sum(|each| each.accepted),
                sum(|each| each.owed),
                sum(|each| each.lost),
                sum(|each| each.forgotten),
                sum(|each| each.cut),
            );
            text.push_str(&line);
        }
        text
    }

    /// Returns the result: each run that failed, with the command that repeats it, and counts of
    /// each kind of violation.
    fn markdown(&self, args: &FaultsArgs) -> String {
        let mut text = format!("## loadtest faults --random\n\n{}\n\n", self.sums());
        let mut kinds: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for run in self.runs.iter().filter(|run| !run.is_kept()) {
            put(&mut text, &format!("- seed {}: `{}`", run.seed, run.plan));
            put(&mut text, &format!("  - {}", run.verdict()));
            if let Some(short) = &run.short {
                put(&mut text, &format!("  - shorter: `{short}`"));
            }
            for event in run.events() {
                put(&mut text, &format!("  - {event}: {}", event.kind.about));
            }
            let (plan, program) =
                (run.short.as_ref().unwrap_or(&run.plan), args.gatecast.display());
            put(
                &mut text,
                &format!(
                    "  - again: `loadtest faults --gatecast {program} --seed {} --plan '{plan}'`",
                    run.seed
                ),
            );
            for violation in run.outcome.iter().flat_map(|outcome| &outcome.violations) {
                let (runs, count) = kinds.entry(violation.kind).or_default();
                (*runs, *count) = (*runs + 1, *count + violation.count);
            }
        }
        if !kinds.is_empty() {
            put(&mut text, "\n| violation | runs | times |\n|---|---:|---:|");
        }
        for (kind, (runs, count)) in kinds {
            put(&mut text, &format!("| {kind} | {runs} | {count} |"));
        }
        let is_good = self.is_good();
        put(
            &mut text,
            if is_good { "\nAll promises were kept." } else { "\nNot all promises were kept." },
        );
        text
    }
}

/// Runs a plan once.
fn attempt(setup: &Setup, plan: &Plan, seed: u64, args: &FaultsArgs) -> Result<Outcome> {
    let run = |setup: &Setup, directory: &Path| {
        let mut outcome = run::run(setup, plan, directory)?;
        outcome
            .violations
            .retain(|violation| !args.forgive.iter().any(|kind| kind == violation.kind));
        Ok(outcome)
    };
    setup.run((seed, &format!("seed-{seed}")), run, Outcome::is_kept)
}
