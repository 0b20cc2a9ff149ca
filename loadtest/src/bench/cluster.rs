//! `cluster`: nodes on one Redis, loaded as one server.
//!
//! Rule: connections go to the nodes in turn, so that most deliveries go through Redis.

use anyhow::Result;

use crate::bench::args::{ClusterArgs, Peer};
use crate::bench::fanout;
use crate::bench::fleet::{Fleet, Opening};
use crate::bench::relay::Plan;
use crate::bench::report::Report;
use crate::bench::servers::Programs;
use crate::shared::process;
use crate::shared::progress::Steps;

/// Measures broadcasts to every connection of every node.
pub(crate) fn cluster(args: &ClusterArgs) -> Result<Report> {
    let ClusterArgs { servers, load, peer, nodes, connections, senders, window, rate } = args;
    process::reserve_files(*connections)?;
    let programs = Programs::new(&servers.gatecast, &servers.peers);
    if *peer != Peer::Gatecast {
        programs.install_peers()?;
    }
    let service = programs.start_cluster(peer.server(), *nodes)?;
    let rate = rate.map(f64::from);
    let plan = Plan { window: *window, rate, ..load.plan(1, *connections, *senders) };
    let pace = rate.map_or_else(|| format!("window {window}"), |rate| format!("{rate} a second"));

    let mut report = Report::new("cluster");
    report.set(format!("{}, {nodes} nodes on one Redis, {pace}", load.describe(*connections)));
    report.set(format!("{}: {}", service.name, service.version));
    let work = format!("{nodes} nodes, {pace}");
    let mut fleet = Fleet::open(
        &service.targets,
        *connections,
        Opening::Handshake(service.dialect.envelope()),
    )?;
    let mut steps = Steps::new(load.repeat.rounds);
    for round in 1..=load.repeat.rounds {
        steps.begin(&format!("round {round}, {work}"));
        report.begin_round(round);
        let outcome = fanout::measure(&mut fleet, &plan, &service.processes, &service.dialect)?;
        report.add_outcome(&work, service.name, &outcome);
        if report.has_faults() {
            break;
        }
    }
    fleet.close()?;
    Ok(report)
}
