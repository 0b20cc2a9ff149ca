//! One fault at a time.
//!
//! Reading order: `table` (the faults), `acts` (what goes wrong) → `round` (one round) → `report`.

mod acts;
mod report;
mod round;
mod table;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use self::report::Report;
use self::table::{FAULTS, Fault, QUICK, find};
use crate::faults::args::FaultsArgs;
use crate::faults::setup::{Setup, keep_logs};
use crate::shared::args::OutputArgs;
use crate::shared::output;
use crate::shared::progress;

/// Runs the faults that are asked for; returns whether all promises were kept.
///
/// # Errors
/// Nothing could be run, or the user wants to stop.
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
        format!("{}; HAProxy: {}", versions(&args.gatecast), if setup.haproxy { "yes" } else { "no" }),
        args.set.iter().map(|(name, value)| format!("{name}={value}; ")).collect::<String>()
            + "other settings of the nodes as usual, but for lease, heartbeat and drain",
    ]);
    for round in 1..=args.rounds() {
        for fault in &faults {
            let outcome = run(&setup, fault, round, args);
            setup.interrupt.check()?;
            report.add(fault, outcome);
        }
        // After each round, so that a run that is ended early leaves what it has found.
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

/// Runs one round, in a directory that is removed afterwards; the logs of a bad one are kept where the user wants them.
fn run(setup: &Setup, fault: &Fault, round: usize, args: &FaultsArgs) -> Result<round::Outcome, String> {
    let run = || {
        let directory = tempfile::tempdir().context("no temporary directory")?;
        let mut setup = setup.clone();
        setup.size.seed = args.seed.wrapping_mul(1000).wrapping_add(round as u64);
        let outcome = round::run(&setup, fault, args.sabotage, directory.path());
        let is_bad = outcome.as_ref().map_or(true, |outcome| !outcome.broken.is_empty());
        if let Some(keep) = args.keep_logs.as_ref().filter(|_| is_bad) {
            keep_logs(directory.path(), &keep.join(format!("{}-{round}", fault.name)))?;
        }
        outcome.map(|outcome| round::Outcome { round, ..outcome })
    };
    let outcome = run().map_err(|err: anyhow::Error| format!("{err:#}"));
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
    let each = |name: &String| match find(name) {
        Some(fault) => Ok(fault),
        None => bail!(
            "there is no fault `{name}`; there are {}",
            FAULTS.iter().map(|fault| fault.name).collect::<Vec<_>>().join(", ")
        ),
    };
    args.fault.iter().map(each).collect()
}

/// Says what was tested with what.
fn versions(gatecast: &Path) -> String {
    let of = |program: &Path, flag: &str| {
        let output = Command::new(program).arg(flag).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).lines().next()?.to_owned())
    };
    [(gatecast, "--version"), (Path::new("redis-server"), "--version"), (Path::new("haproxy"), "-v")]
        .into_iter()
        .filter_map(|(program, flag)| of(program, flag))
        .map(|line| {
            line.split(" - ").next().unwrap_or_default().split(" sha=").next().unwrap_or_default().to_owned()
        })
        .collect::<Vec<_>>()
        .join(", ")
}
