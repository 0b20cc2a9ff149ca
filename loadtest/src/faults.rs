//! `faults`: whether the promises hold while nodes and Redis fail.
//!
//! Reading order: `single` (one fault at a time), `chaos` (several) → `scene` (what runs), `backend` (its Redis) → `clients` →
//! `log` (what they note) → `judge` (what it means).

pub(crate) mod args;
mod backend;
mod balancer;
mod chaos;
mod clients;
mod judge;
mod log;
mod phases;
mod plan;
mod sabotage;
mod scene;
mod setup;
mod single;

use anyhow::Result;

use self::args::FaultsArgs;
use crate::shared::args::OutputArgs;

/// Runs the faults or plans that are asked for; returns whether all promises were kept.
///
/// # Errors
/// Nothing could be run, a result cannot be written, or the user wants to stop.
pub(crate) fn faults(args: &FaultsArgs, output: &OutputArgs) -> Result<bool> {
    match args.random || !args.plan.is_empty() {
        true => chaos::run_plans(args, output),
        false => single::run_faults(args, output),
    }
}
