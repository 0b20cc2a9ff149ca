//! `faults`: whether the promises hold while nodes and Redis fail.
//!
//! Reading order: `single` (one fault at a time), `chaos` (several) → `testbed` (what runs),
//! `backend` (its Redis) → `clients` → `log` (what they note) → `judge`.

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
mod setup;
mod single;
mod testbed;

use anyhow::Result;

use self::args::FaultsArgs;
use crate::shared::args::OutputArgs;

/// Runs the faults or plans that were asked for; returns whether all promises were kept.
pub(crate) fn faults(args: &FaultsArgs, output: &OutputArgs) -> Result<bool> {
    match args.random || !args.plan.is_empty() {
        true => chaos::run_plans(args, output),
        false => single::run_faults(args, output),
    }
}
