//! One fault at a time.
//!
//! Reading order: `table` (the faults), `actions` (what goes wrong) → `round` (one round) →
//! `report`.

mod actions;
mod report;
mod round;
mod table;

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use self::report::Report;
use self::round::Outcome;
use self::table::{FAULTS, Fault, QUICK};
use crate::faults::args::FaultsArgs;
use crate::faults::setup::Setup;
use crate::shared::args::{OutputArgs, find};
use crate::shared::output;
use crate::shared::progress;

/// Runs the faults that were asked for; returns whether all promises were kept.
pub(crate) fn run_faults(args: &FaultsArgs, files: &OutputArgs) -> Result<bool> {
    let faults = chosen(args)?;
    let setup = Setup::new(args)?;
    let mut report = Report::new(vec![
        format!(
            "fault made {} a round; {} nodes, {} publishers ({} messages/s), {} subscribers in {} groups and the broadcast, {} of them send; seed {}",
            if args.repeat == 1 { "once".to_owned() } else { format!("{} times", args.repeat) },
            setup.nodes,
            args.publishers,
            args.rate,
            args.subscribers(),
            args.groups,
            setup.size.senders,
            args.seed
        ),
        format!(
            "{}; HAProxy: {}",
            versions(&args.gatecast),
            if setup.haproxy { "yes" } else { "no" }
        ),
        args.set.iter().map(|(name, value)| format!("{name}={value}; ")).collect::<String>()
            + "other settings of the nodes as usual, but for lease, heartbeat and drain",
    ]);
    for round in 1..=args.rounds() {
        for fault in &faults {
            let outcome = run(&setup, fault, round, args);
            setup.interrupt.check()?;
            report.add(fault, outcome);
        }
        // After each round, so that a run that is interrupted leaves its results.
        if let Some(path) = &files.json {
            output::write_json(path, &report)?;
        }
        if let Some(path) = &files.markdown {
            output::write_text(path, &report.markdown())?;
        }
    }
    output::print(&report.markdown())?;
    Ok(report.is_good())
}

/// Runs one round, and says how it went.
fn run(setup: &Setup, fault: &Fault, round: usize, args: &FaultsArgs) -> Result<Outcome, String> {
    let seed = args.seed.wrapping_mul(1000).wrapping_add(round as u64);
    let outcome = setup.run(
        (seed, &format!("{}-{round}", fault.name)),
        |setup, directory| round::run(setup, fault, directory),
        |outcome| outcome.broken.is_empty(),
    );
    let outcome =
        outcome.map(|outcome| Outcome { round, ..outcome }).map_err(|err| format!("{err:#}"));
    let verdict = match &outcome {
        Ok(outcome) if outcome.broken.is_empty() => format!("kept, {:.1} s", outcome.took_seconds),
        Ok(outcome) => format!("BROKEN: {}", outcome.broken.join("; ")),
        Err(reason) => format!("NOT RUN: {reason}"),
    };
    progress::say(format!("round {round}/{}, {}: {verdict}", args.rounds(), fault.name));
    outcome
}

fn chosen(args: &FaultsArgs) -> Result<Vec<&'static Fault>> {
    if args.fault.is_empty() {
        let is_wanted = |fault: &&Fault| !args.short || QUICK.contains(&fault.name);
        return Ok(FAULTS.iter().filter(is_wanted).collect());
    }
    args.fault.iter().map(|name| find(FAULTS, |fault| fault.name, ("fault ", name))).collect()
}

/// Returns the versions of the programs.
fn versions(gatecast: &Path) -> String {
    let of = |program: &Path, flag: &str| {
        let output = Command::new(program).arg(flag).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).lines().next()?.to_owned())
    };
    [
        (gatecast, "--version"),
        (Path::new("redis-server"), "--version"),
        (Path::new("haproxy"), "-v"),
    ]
    .into_iter()
    .filter_map(|(program, flag)| of(program, flag))
    .map(|line| {
        line.split(" - ")
            .next()
            .unwrap_or_default()
            .split(" sha=")
            .next()
            .unwrap_or_default()
            .to_owned()
    })
    .collect::<Vec<_>>()
    .join(", ")
}
