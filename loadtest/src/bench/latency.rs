//! `latency`: how long messages take at a given rate.
//!
//! Rule: the loop is open. A message is due by the clock, regardless of the ones before it, and its
//! latency counts from then; a server (or a client) that stalls is charged for every message that
//! had to wait.

use anyhow::Result;

use crate::bench::args::LatencyArgs;
use crate::bench::clients::Clients;
use crate::bench::fleet::Pace;
use crate::bench::outcome::Outcome;
use crate::bench::relay::{self, Plan};
use crate::bench::report::Report;
use crate::shared::process::Processes;
use crate::shared::progress::Steps;

/// Measures latency at a rate.
pub(crate) fn latency(args: &LatencyArgs) -> Result<Report> {
    let LatencyArgs { target, rate, seconds, bytes, rounds, connections, .. } = args;
    let plan = args.plan()?;
    let mut report = Report::new("latency");
    let mut clients = Clients::of((target, &args.dialect), *connections, &args.workers)?;
    report.set(format!(
        "{}, {rate} messages of {bytes} bytes a second for {seconds} s, {} senders, {rounds} rounds, {}",
        clients.describe(),
        plan.senders,
        target.url
    ));
    let work = format!("latency, {rate} a second");
    let name = target.resolve()?.authority;
    let server = Processes::new(&target.pid);
    clients.open(&Pace::default())?;
    let mut steps = Steps::new(*rounds);
    for round in 1..=*rounds {
        steps.begin(&format!("round {round}, {work}"));
        report.add_outcome(&work, &name, &measure(&mut clients, &plan, &server)?);
        if report.has_faults() {
            break;
        }
    }
    clients.close()?;
    Ok(report)
}

/// Runs a plan with a rate over open connections, after a warm-up.
pub(crate) fn measure(clients: &mut Clients, plan: &Plan, server: &Processes) -> Result<Outcome> {
    relay::run_after_warm_up(plan, |plan| clients.send(plan, server))
}
