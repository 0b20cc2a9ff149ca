//! `latency`: how long messages take at a given rate.
//!
//! Rule: the loop is open. A message is due by the clock, whatever has become of those before it, and its latency counts from
//! that moment; so a server (or a client) that stands still is charged for all that had to wait, not for one message.

use anyhow::Result;

use crate::bench::args::LatencyArgs;
use crate::bench::crowd::Crowd;
use crate::bench::fleet::Pace;
use crate::bench::outcome::Outcome;
use crate::bench::relay::{self, Plan};
use crate::bench::report::Report;
use crate::shared::process::Processes;
use crate::shared::progress::Steps;

/// Measures latency at a rate.
///
/// # Errors
/// The server cannot be reached, or ends.
pub(crate) fn latency(args: &LatencyArgs) -> Result<Report> {
    let LatencyArgs { target, rate, seconds, bytes, rounds, connections, .. } = args;
    let plan = args.plan()?;
    let mut report = Report::new("latency");
    let mut crowd = Crowd::of((target, &args.dialect), *connections, &args.workers)?;
    report.set(format!(
        "{}, {rate} messages of {bytes} bytes a second for {seconds} s, {} senders, {rounds} rounds, {}",
        crowd.describe(),
        plan.senders,
        target.url
    ));
    let work = format!("latency, {rate} a second");
    let name = target.resolve()?.authority;
    let server = Processes::new(&target.pid);
    crowd.open(&Pace::default())?;
    let mut steps = Steps::new(*rounds);
    for round in 1..=*rounds {
        steps.begin(&format!("round {round}, {work}"));
        report.add_outcome(&work, &name, &measure(&mut crowd, &plan, &server)?);
        if report.has_faults() {
            break;
        }
    }
    crowd.close()?;
    Ok(report)
}

/// Runs a plan with a rate once over open connections, after a tenth of it that does not count.
///
/// # Errors
/// The server ends.
pub(crate) fn measure(crowd: &mut Crowd, plan: &Plan, server: &Processes) -> Result<Outcome> {
    relay::warm_run(plan, |plan| crowd.send(plan, server))
}
