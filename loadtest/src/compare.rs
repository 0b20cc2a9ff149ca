//! `compare`: a gatecast of our own beside the floor, in turns, in one table.
//!
//! Rule: every round measures everything once, so that a machine that gets slower does so for all alike.

use std::path::Path;
use std::slice;

use anyhow::Result;

use crate::child::Server;
use crate::cli::CompareArgs;
use crate::fanout;
use crate::floor;
use crate::idle;
use crate::process;
use crate::progress::Steps;
use crate::relay::Plan;
use crate::report::Report;
use crate::target::Target;
use crate::works::{FLOOR, GATECAST};

/// Coalescing makes a delivery of the flood some ten times cheaper, so it takes ten times the messages to use enough
/// CPU to be counted.
const FLOOD_FACTOR: u32 = 10;
const FLOOD_WINDOW: u32 = 32;

/// Measures floor, fan-out one at a time, flood and idle memory, round by round.
///
/// # Errors
/// Gatecast cannot be started or ends.
pub(crate) fn compare(args: &CompareArgs) -> Result<Report> {
    process::reserve_files(args.connections.max(args.idle_connections))?;
    let dialect = args.dialect.to_everybody()?;
    let single = args.load.plan(1, args.connections, args.senders);
    let flood = Plan { window: FLOOD_WINDOW, messages: single.messages * FLOOD_FACTOR, ..single.clone() };
    let (gatecast, target) = start(&args.gatecast)?;

    let mut report = Report::new("compare");
    report.set(format!(
        "{}; window {FLOOD_WINDOW}: {} messages",
        args.load.describe(args.connections),
        flood.messages
    ));
    report.set(format!("gatecast: {}, {}", args.gatecast.display(), target.authority));
    let mut steps = Steps::new(args.load.rounds * 4);
    for round in 1..=args.load.rounds {
        report.begin_round(round);
        steps.begin(&format!("round {round}, {FLOOR}"));
        let outcome = floor::measure(&Plan { senders: 1, ..single.clone() })?;
        report.add_outcome(&fanout::work_name("fanout", &single), FLOOR, &outcome);
        for plan in [&single, &flood] {
            steps.begin(&format!("round {round}, {}", fanout::work_name("fanout", plan)));
            let outcome =
                fanout::measure_once(slice::from_ref(&target), plan, &gatecast.process().into(), &dialect)?;
            report.add_outcome(&fanout::work_name("fanout", plan), GATECAST, &outcome);
        }
        // A process of its own: memory that the fan-out left behind would hide what a connection takes.
        steps.begin(&format!("round {round}, idle"));
        let (fresh, target) = start(&args.gatecast)?;
        idle::measure(&mut report, &target, (GATECAST, fresh.process()), (args.idle_connections, 1))?;
        if report.has_faults() {
            break;
        }
    }
    Ok(report)
}

fn start(program: &Path) -> Result<(Server, Target)> {
    // What is measured is how fast connections open, not how fast a node lets them.
    let settings = [("GATECAST_LIMITS_HANDSHAKE_RATE", "1000000")];
    let ports = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let mut server = Server::start(program, ports, &settings)?;
    let target = Target::parse(&server.word("ws://")?, false)?;
    Ok((server, target))
}
