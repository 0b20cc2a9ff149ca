//! Works of messages: the servers that take part, and the number of messages of a sample.
//!
//! Rule: CPU is read in nanoseconds, so a sample must only be long enough for its own noise: a
//! quarter of a second of a fast server, or more. A slow server gets fewer messages, since figures
//! are per delivery.

use std::time::Duration;

use anyhow::Result;

use super::participants::Participants;
use crate::bench::fanout;
use crate::bench::fleet::{Fleet, Opening};
use crate::bench::floor;
use crate::bench::join;
use crate::bench::relay::{Audience, Plan};
use crate::bench::report::Report;
use crate::bench::servers::Service;
use crate::bench::works::{
    CLUSTER, CLUSTER_LATENCY, DELIVERIES, FANOUT_1K, FANOUT_5K, FANOUT_15K, FLOOD_1K, FLOOD_15K,
    FLOOR, GATECAST, GROUPS_OF_2, GROUPS_OF_50, KIB_1, KIB_16, LATENCY, ONE_NODE_LATENCY,
    SOCKET_IO, SOCKET_IO_REDIS, UWEBSOCKETS, WS, Work, has_part,
};

/// A work that keeps a window full.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) work: &'static Work,
    servers: &'static [&'static str],
    messages: u32,
    nodes: Nodes,
}

/// A work at half of the peak of a flood in the same round: the lowest peak of the servers that are
/// compared.
#[derive(Debug)]
pub(super) struct Pace {
    pub(super) work: &'static Work,
    pub(super) peak: &'static Work,
    servers: &'static [&'static str],
    nodes: Nodes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nodes {
    /// One process, without Redis.
    Alone,
    OneOnRedis,
    ThreeOnRedis,
}

const SENDERS: usize = 8;
/// Servers that take ten times as long under a flood get this part of the messages.
const SLOW_SHARE: u32 = 10;
const LIMIT: Duration = Duration::from_secs(120);
/// Of an open loop: thousands of messages, so that the 99.9th percentile has many samples.
const PACE_SECONDS: f64 = 3.0;

const FAST: &[&str] = &[GATECAST, FLOOR, UWEBSOCKETS];
const ALL: &[&str] = &[GATECAST, FLOOR, UWEBSOCKETS, WS, SOCKET_IO];
const RELAYS: &[&str] = &[GATECAST, UWEBSOCKETS, WS, SOCKET_IO];
const BEST: &[&str] = &[GATECAST, UWEBSOCKETS];

/// Cases that need the same connections are neighbours.
pub(super) const CASES: &[Case] = &[
    case(&FANOUT_1K, ALL, 300),
    case(&FLOOD_1K, RELAYS, 3200),
    case(&KIB_1, BEST, 1600),
    case(&KIB_16, BEST, 100),
    case(&FANOUT_5K, FAST, 60),
    case(&FANOUT_15K, FAST, 25),
    case(&FLOOD_15K, &[GATECAST, UWEBSOCKETS, WS], 320),
    case(&GROUPS_OF_50, RELAYS, 20_000),
    case(&GROUPS_OF_2, RELAYS, 50_000),
    Case {
        work: &CLUSTER,
        servers: &[GATECAST, SOCKET_IO_REDIS],
        messages: 1600,
        nodes: Nodes::ThreeOnRedis,
    },
];

pub(super) const PACES: &[Pace] = &[
    Pace { work: &LATENCY, peak: &FLOOD_1K, servers: BEST, nodes: Nodes::Alone },
    Pace {
        work: &CLUSTER_LATENCY,
        peak: &CLUSTER,
        servers: &[GATECAST],
        nodes: Nodes::ThreeOnRedis,
    },
    Pace {
        work: &ONE_NODE_LATENCY,
        peak: &CLUSTER,
        servers: &[GATECAST],
        nodes: Nodes::OneOnRedis,
    },
];

const fn case(work: &'static Work, servers: &'static [&'static str], messages: u32) -> Case {
    Case { work, servers, messages, nodes: Nodes::Alone }
}

impl Case {
    pub(super) fn shares_connections(&self, other: &Self) -> bool {
        let size = |case: &Self| (case.work.groups, case.work.group_size, case.nodes);
        size(self) == size(other)
    }
}

/// Measures, over the same connections, the cases in which a server takes part.
pub(super) fn run(
    participants: &Participants,
    cases: &[&'static Case],
    name: &'static str,
    report: &mut Report,
) -> Result<()> {
    let cases: Vec<_> = cases.iter().filter(|case| has_part(case.servers, name)).collect();
    let Some(first) = cases.first() else { return Ok(()) };
    if name == FLOOR {
        for case in cases {
            let plan = Plan { senders: 1, ..plan(participants, case.work, case.messages) };
            report.add_outcome(&participants.scale.name(case.work), FLOOR, &floor::measure(&plan)?);
        }
        return Ok(());
    }
    let Some(service) = first.nodes.find(participants, name) else { return Ok(()) };
    let mut fleet = connect(service, &plan(participants, first.work, 0))?;
    for case in cases {
        let is_slow = case.work.window > 1 && !has_part(BEST, name);
        let messages = if is_slow { case.messages / SLOW_SHARE } else { case.messages };
        let plan = plan(participants, case.work, messages);
        let outcome = fanout::measure(&mut fleet, &plan, &service.processes, &service.dialect)?;
        report.add_outcome(&participants.scale.name(case.work), name, &outcome);
    }
    fleet.close()
}

/// Measures latency at a rate that is the same for all servers of this work.
pub(super) fn keep_pace(
    participants: &Participants,
    pace: &Pace,
    name: &'static str,
    report: &mut Report,
) -> Result<()> {
    if !has_part(pace.servers, name) {
        return Ok(());
    }
    let Some(service) = pace.nodes.find(participants, name) else { return Ok(()) };
    let peak = participants.scale.name(pace.peak);
    let peaks = pace
        .servers
        .iter()
        .filter_map(|server| report.samples(&peak, server, DELIVERIES.0).last().copied().flatten());
    let lowest = peaks.fold(f64::INFINITY, f64::min);
    anyhow::ensure!(lowest.is_finite(), "the peak of {peak} is not known");
    let (groups, size) = participants.scale.size(pace.work);
    let rate = lowest / 2.0 / (groups * size) as f64;
    // Below 2³², as no server delivers more than some millions a second.
    let messages: u32 = format!("{:.0}", rate * PACE_SECONDS).parse()?;
    let plan = Plan {
        rate: Some(rate),
        ..plan(participants, pace.work, participants.scale.messages(messages))
    };
    let mut fleet = connect(service, &plan)?;
    let outcome = fanout::measure(&mut fleet, &plan, &service.processes, &service.dialect)?;
    report.add_outcome(&participants.scale.name(pace.work), name, &outcome);
    report.add(&participants.scale.name(pace.work), name, ("messages sent", "/s"), rate);
    fleet.close()
}

impl Nodes {
    fn find<'a>(self, participants: &'a Participants, name: &str) -> Option<&'a Service> {
        match self {
            Self::Alone => participants.find(name, false),
            Self::OneOnRedis => participants.find_one_with_redis(name),
            Self::ThreeOnRedis => participants.find(name, true),
        }
    }
}

fn connect(service: &Service, plan: &Plan) -> Result<Fleet> {
    let opening = Opening::Handshake(service.dialect.envelope());
    let mut fleet = Fleet::open(&service.targets, plan.groups * plan.group_size, opening)?;
    if plan.audience == Audience::Group {
        join::by_plan(&mut fleet, plan, &service.dialect)?;
    }
    Ok(fleet)
}

fn plan(participants: &Participants, work: &Work, messages: u32) -> Plan {
    let (groups, group_size) = participants.scale.size(work);
    Plan {
        audience: if work.groups == 1 { Audience::Everybody } else { Audience::Group },
        groups,
        group_size,
        senders: SENDERS.min(group_size),
        messages: participants.scale.messages(messages),
        bytes: work.bytes,
        window: work.window.max(1),
        rate: None,
        limit: LIMIT,
    }
}
