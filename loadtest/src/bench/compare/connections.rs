//! Works of idle connections: how fast they open, and their memory.
//!
//! Rule: each is measured on a process of its own, since what others left behind would hide it, and
//! memory against that process before the first connection.

use std::time::Instant;

use anyhow::{Result, bail};

use super::participants::Participants;
use super::scale::Scale;
use crate::bench::fleet::{Fleet, Opening};
use crate::bench::idle::{STEADY_SAMPLES, steady};
use crate::bench::join;
use crate::bench::relay::{Audience, Plan};
use crate::bench::report::Report;
use crate::bench::servers::Service;
use crate::bench::works::{
    CHURN, GATECAST, IDLE_IN_1, IDLE_IN_100, OPENED, OPENING_CPU, OPENINGS, RSS, SLAB, STORM,
    UWEBSOCKETS, WS, Work, has_part, rss_at,
};
use crate::shared::process;

/// Samples of the memory in a quick run.
const QUICK_SAMPLES: usize = 2;

/// A work and the servers that take part.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) work: &'static Work,
    servers: &'static [&'static str],
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Storm,
    /// Opened once; for gatecast, which promises it, again and again.
    Churn,
    Members,
}

pub(super) const CASES: &[Case] = &[
    Case { work: &STORM, servers: &[GATECAST, UWEBSOCKETS, WS], kind: Kind::Storm },
    Case { work: &CHURN, servers: &[GATECAST, UWEBSOCKETS, WS], kind: Kind::Churn },
    Case { work: &IDLE_IN_1, servers: &[GATECAST], kind: Kind::Members },
    Case { work: &IDLE_IN_100, servers: &[GATECAST], kind: Kind::Members },
];

/// Measures a case with a server, if it takes part.
pub(super) fn run(
    participants: &mut Participants,
    case: &Case,
    name: &'static str,
    report: &mut Report,
) -> Result<()> {
    if !has_part(case.servers, name) {
        return Ok(());
    }
    let Some(service) = participants.start_fresh(name)? else { return Ok(()) };
    let run = Run { scale: participants.scale, work: case.work, service: &service };
    match case.kind {
        Kind::Storm => run.storm(report),
        Kind::Churn => run.churn(report),
        Kind::Members => run.members(report),
    }
}

struct Run<'a> {
    scale: Scale,
    work: &'static Work,
    service: &'a Service,
}

impl Run<'_> {
    /// Opens all connections as fast as possible.
    fn storm(&self, report: &mut Report) -> Result<()> {
        let (started, (before, _)) = (Instant::now(), self.service.processes.cpu()?);
        let fleet = self.open(self.connections())?;
        let elapsed = started.elapsed();
        let cpu = self.service.processes.cpu()?.0.saturating_sub(before);
        let n = self.connections() as f64;
        self.add(report, OPENED, n / elapsed.as_secs_f64());
        self.add(report, OPENING_CPU, cpu.as_secs_f64() * 1e6 / n);
        fleet.close()
    }

    /// Opens and closes all connections in turns.
    fn churn(&self, report: &mut Report) -> Result<()> {
        let openings = match self.scale {
            Scale::Full if self.service.name == GATECAST => OPENINGS,
            Scale::Full => 1,
            Scale::Quick => 2,
        };
        let mut nobody = self.open(0)?;
        let (base, slab) = (self.memory(&mut nobody)?, process::slab()?);
        for opening in 1..=openings {
            let mut fleet = self.open(self.connections())?;
            let full = self.memory(&mut fleet)?;
            self.add(report, (&rss_at(opening), RSS.1), self.each(base, full));
            if opening == 1 {
                // Both ends of each connection are on this machine.
                self.add(report, SLAB, self.each(slab, process::slab()?) / 2.0);
            }
            if let Some(fault) = fleet.losses().fault() {
                bail!(fault);
            }
            fleet.close()?;
        }
        Ok(())
    }

    /// Opens all connections, each a member of one of the work's groups.
    fn members(&self, report: &mut Report) -> Result<()> {
        let (groups, group_size) = self.scale.size(self.work);
        let mut nobody = self.open(0)?;
        let base = self.memory(&mut nobody)?;
        let mut fleet = self.open(self.connections())?;
        let plan = Plan::silent(Audience::Group, groups, group_size);
        join::by_plan(&mut fleet, &plan, &self.service.dialect)?;
        let full = self.memory(&mut fleet)?;
        self.add(report, RSS, self.each(base, full));
        fleet.close()
    }

    fn connections(&self) -> usize {
        let (groups, group_size) = self.scale.size(self.work);
        groups * group_size
    }

    fn open(&self, n: usize) -> Result<Fleet> {
        Fleet::open(&self.service.targets, n, Opening::Handshake(self.service.dialect.envelope()))
    }

    fn memory(&self, fleet: &mut Fleet) -> Result<u64> {
        let looks = if self.scale == Scale::Quick { QUICK_SAMPLES } else { STEADY_SAMPLES };
        steady(&self.service.processes, looks, |time| fleet.linger(time))
    }

    fn each(&self, before: u64, after: u64) -> f64 {
        (after as f64 - before as f64) / self.connections() as f64
    }

    fn add(&self, report: &mut Report, measure: (&str, &str), sample: f64) {
        report.add(&self.scale.name(self.work), self.service.name, measure, sample);
    }
}
