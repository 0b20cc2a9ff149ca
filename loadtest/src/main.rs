//! Load generator for Gatecast and other WebSocket servers, and a harness of faults and abuse.
//!
//! Reading order: `cli` → `bench` (what a server costs), `faults` (whether promises hold), `abuse`
//! (what hostile clients cost the others) → `shared` (clients, servers, figures).
//!
//! Invariant: nothing of Gatecast is used here. Frames, handshake and checks are this crate's own,
//! so that a bug cannot hide by being on both sides. `shared` uses none of the programs, and these
//! do not use each other.

mod abuse;
mod bench;
mod cli;
mod faults;
mod shared;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use crate::bench::report::Report;
use crate::cli::{Cli, Command};
use crate::shared::args::OutputArgs;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(err) => {
            shared::progress::say(format!("error: {err:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let report = match &cli.command {
        Command::Idle(args) => bench::idle::idle(args)?,
        Command::Storm(args) => bench::storm::storm(args)?,
        Command::Churn(args) => bench::idle::churn(args)?,
        Command::Fanout(args) => bench::fanout::fanout(args)?,
        Command::Flood(args) => bench::fanout::flood(args)?,
        Command::Latency(args) => bench::latency::latency(args)?,
        Command::Groups(args) => bench::fanout::groups(args)?,
        Command::Post(args) => bench::post::post(args)?,
        Command::Floor(args) => bench::floor::floor(args)?,
        Command::Cluster(args) => bench::cluster::cluster(args)?,
        Command::Compare(args) => bench::compare::compare(args)?,
        Command::Report => stored(&cli.output)?,
        Command::Faults(args) => {
            let is_good = faults::faults(args, &cli.output)?;
            return Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Abuse(args) => {
            let is_good = abuse::abuse(args)?;
            return Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::FloorServer(args) => return bench::floor::serve(args).map(|()| ExitCode::SUCCESS),
        Command::Worker(args) => return bench::clients::serve(args).map(|()| ExitCode::SUCCESS),
        Command::DieWithParent { command } => {
            return shared::child::die_with_parent(command).map(|()| ExitCode::SUCCESS);
        }
    };
    // `report` must not write what it has read.
    let json = cli.output.json.as_deref().filter(|_| !matches!(cli.command, Command::Report));
    let is_good = bench::output::write(&report, json, &cli.output)?;
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn stored(output: &OutputArgs) -> Result<Report> {
    let path = output.json.as_deref().context("--json must name the file to read")?;
    Report::read_json(path)
}
