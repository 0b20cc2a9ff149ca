//! The performance goals, and whether a report meets them.
//!
//! Rule: a goal is a line of data. It is judged by the median over the rounds of gatecast's figure,
//! or of its ratio to a reference in the same round. A goal without figures is not measured, which
//! is neither met nor missed.

use serde::Serialize;

use self::Bound::{AtLeast, AtMost, Stated};
use self::Of::{Own, Server, Unit};
use crate::bench::report::Report;
use crate::bench::works::{
    CHURN, CLUSTER, CLUSTER_LATENCY, DELIVERIES, FANOUT_1K, FANOUT_5K, FANOUT_15K, FLOOD_1K,
    FLOOD_15K, FLOOR, GATECAST, GROUPS_OF_2, GROUPS_OF_50, IDLE_IN_1, IDLE_IN_100, KIB_1, KIB_16,
    LATENCY, Measure, ONE_NODE_LATENCY, OPENED, OPENING_CPU, P50, P99, P999, POST_CPU, POST_HERE,
    POST_SIGNED, POST_THERE, REDIS_CPU, RSS, RSS_REOPENED, SERVER_CPU, SLAB, SOCKET_IO_REDIS,
    STORM, UWEBSOCKETS, WS, Work,
};
use crate::shared::numbers::{self, Spread, number};

/// A bound for a measure of gatecast in a work.
#[derive(Debug)]
struct Goal(&'static Work, Measure, Bound);

/// A bound, in the unit of the measure or as a multiple of another figure.
#[derive(Clone, Copy, Debug)]
enum Bound {
    AtMost(f64, Of),
    AtLeast(f64, Of),
    /// Reported without a bound.
    Stated,
}

#[derive(Clone, Copy, Debug)]
enum Of {
    Unit,
    /// The same work and measure of another server.
    Server(&'static str),
    /// Another work or measure of gatecast itself.
    Own(&'static Work, Measure),
}

/// Microseconds of CPU per post, to a connection of the same node and of another.
const POST_MICROS: (f64, f64) = (1e6 / 30_000.0, 1e6 / 15_000.0);

const GOALS: &[Goal] = &[
    // One message to many, one at a time.
    Goal(&FANOUT_1K, SERVER_CPU, AtMost(1.1, Server(FLOOR))),
    Goal(&FANOUT_1K, SERVER_CPU, AtMost(1.0, Server(UWEBSOCKETS))),
    Goal(&FANOUT_15K, SERVER_CPU, AtMost(1.1, Server(FLOOR))),
    Goal(&FANOUT_15K, SERVER_CPU, AtMost(1.0, Server(UWEBSOCKETS))),
    // The same with 32 under way.
    Goal(&FLOOD_1K, DELIVERIES, AtLeast(0.8, Server(UWEBSOCKETS))),
    Goal(&FLOOD_1K, DELIVERIES, AtLeast(20.0, Server(WS))),
    Goal(&FLOOD_1K, SERVER_CPU, AtMost(1.0 / 0.8, Server(UWEBSOCKETS))),
    Goal(&FLOOD_1K, SERVER_CPU, AtMost(1.0 / 20.0, Server(WS))),
    Goal(&FLOOD_15K, DELIVERIES, AtLeast(0.8, Server(UWEBSOCKETS))),
    Goal(&FLOOD_15K, DELIVERIES, AtLeast(20.0, Server(WS))),
    Goal(&FLOOD_15K, SERVER_CPU, AtMost(1.0 / 0.8, Server(UWEBSOCKETS))),
    Goal(&FLOOD_15K, SERVER_CPU, AtMost(1.0 / 20.0, Server(WS))),
    // Groups, and larger messages.
    Goal(&GROUPS_OF_50, DELIVERIES, AtLeast(0.8, Server(UWEBSOCKETS))),
    Goal(&GROUPS_OF_2, DELIVERIES, AtLeast(0.8, Server(UWEBSOCKETS))),
    Goal(&KIB_1, DELIVERIES, AtLeast(0.9, Server(UWEBSOCKETS))),
    Goal(&KIB_16, DELIVERIES, AtLeast(0.9, Server(UWEBSOCKETS))),
    // Latency at a rate.
    Goal(&LATENCY, P50, AtMost(1.0, Server(UWEBSOCKETS))),
    Goal(&LATENCY, P99, AtMost(1.0, Server(UWEBSOCKETS))),
    Goal(&LATENCY, P999, AtMost(1.0, Server(UWEBSOCKETS))),
    Goal(&LATENCY, P999, AtMost(10.0, Own(&LATENCY, P50))),
    // Connections.
    Goal(&CHURN, RSS, AtMost(2048.0, Unit)),
    Goal(&CHURN, RSS_REOPENED, AtMost(1.1, Own(&CHURN, RSS))),
    Goal(&CHURN, SLAB, Stated),
    Goal(&STORM, OPENED, AtLeast(0.5, Server(UWEBSOCKETS))),
    Goal(&STORM, OPENING_CPU, AtMost(1.0 / 0.5, Server(UWEBSOCKETS))),
    // Three nodes on one Redis.
    Goal(&CLUSTER, DELIVERIES, AtLeast(3.0, Server(SOCKET_IO_REDIS))),
    Goal(&CLUSTER, REDIS_CPU, Stated),
    Goal(&CLUSTER_LATENCY, P99, AtMost(2.0, Own(&ONE_NODE_LATENCY, P99))),
    // The management API.
    Goal(&POST_HERE, POST_CPU, AtMost(POST_MICROS.0, Unit)),
    Goal(&POST_THERE, POST_CPU, AtMost(POST_MICROS.1, Unit)),
    Goal(&POST_SIGNED, POST_CPU, Stated),
    // Growth.
    Goal(&FANOUT_5K, SERVER_CPU, AtMost(1.2, Own(&FANOUT_1K, SERVER_CPU))),
    Goal(&FANOUT_15K, SERVER_CPU, AtMost(1.2, Own(&FANOUT_1K, SERVER_CPU))),
    Goal(&IDLE_IN_100, RSS, AtMost(1.2, Own(&IDLE_IN_1, RSS))),
];

/// A goal, what was measured, and the judgement.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) work: &'static str,
    pub(crate) measure: &'static str,
    /// The bound in words.
    pub(crate) goal: String,
    pub(crate) measured: Option<Spread>,
    /// Of the figure; × for a ratio.
    pub(crate) unit: &'static str,
    pub(crate) rounds: usize,
    pub(crate) judgement: Judgement,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Judgement {
    Met,
    Missed,
    Stated,
    NotMeasured,
}

/// Returns the works of all goals.
#[cfg(test)]
pub(crate) fn works() -> impl Iterator<Item = &'static Work> {
    GOALS.iter().map(|Goal(work, ..)| *work)
}

/// Judges every goal; empty if none was measured, as by commands with another purpose.
pub(crate) fn table(report: &Report) -> Vec<Verdict> {
    let verdicts: Vec<Verdict> = GOALS.iter().map(|goal| goal.judge(report)).collect();
    let is_measured = |verdict: &Verdict| verdict.judgement != Judgement::NotMeasured;
    if verdicts.iter().any(is_measured) { verdicts } else { Vec::new() }
}

/// Returns whether a goal is missed.
pub(crate) fn is_any_missed(report: &Report) -> bool {
    table(report).iter().any(|verdict| verdict.judgement == Judgement::Missed)
}

impl Goal {
    fn judge(&self, report: &Report) -> Verdict {
        let Self(work, measure, bound) = *self;
        let (samples, bound) = self.samples(report, bound);
        let measured = Spread::of(&samples);
        let judgement =
            measured.map_or(Judgement::NotMeasured, |Spread { median, .. }| bound.judge(median));
        let unit = if bound.of().is_some_and(|of| !matches!(of, Unit)) { "×" } else { measure.1 };
        Verdict {
            work: work.name,
            measure: measure.0,
            goal: bound.describe(self),
            measured,
            unit,
            rounds: samples.len(),
            judgement,
        }
    }

    /// Returns the samples and their bound. Where uWebSockets cannot be installed the floor is the
    /// reference, which no server that writes to each socket can beat.
    fn samples(&self, report: &Report, bound: Bound) -> (Vec<f64>, Bound) {
        let Self(work, (measure, _), _) = *self;
        let own = report.samples(work.name, GATECAST, measure);
        let of_server = |server| numbers::ratios(own, report.samples(work.name, server, measure));
        match bound.of() {
            None | Some(Unit) => (own.iter().flatten().copied().collect(), bound),
            Some(Own(work, (measure, _))) => {
                (numbers::ratios(own, report.samples(work.name, GATECAST, measure)), bound)
            }
            Some(Server(UWEBSOCKETS))
                if report.samples(work.name, UWEBSOCKETS, measure).is_empty() =>
            {
                match of_server(FLOOR) {
                    none if none.is_empty() => (none, bound),
                    samples => (samples, bound.with(Server(FLOOR))),
                }
            }
            Some(Server(server)) => (of_server(server), bound),
        }
    }
}

impl Bound {
    fn of(self) -> Option<Of> {
        match self {
            AtMost(_, of) | AtLeast(_, of) => Some(of),
            Stated => None,
        }
    }

    fn with(self, of: Of) -> Self {
        match self {
            AtMost(bound, _) => AtMost(bound, of),
            AtLeast(bound, _) => AtLeast(bound, of),
            Stated => Stated,
        }
    }

    fn judge(self, median: f64) -> Judgement {
        let is_met = match self {
            AtMost(bound, _) => median <= bound,
            AtLeast(bound, _) => median >= bound,
            Stated => return Judgement::Stated,
        };
        if is_met { Judgement::Met } else { Judgement::Missed }
    }

    fn describe(self, Goal(work, (_, unit), _): &Goal) -> String {
        let (sign, bound, of) = match self {
            AtMost(bound, of) => ("≤", bound, of),
            AtLeast(bound, of) => ("≥", bound, of),
            Stated => return "stated".to_owned(),
        };
        let bound = number(bound);
        match of {
            Unit => format!("{sign} {bound} {unit}"),
            Server(server) => format!("{sign} {bound} × {server}"),
            Own(other, _) if other.name != work.name => format!("{sign} {bound} × {}", other.name),
            Own(_, (other, _)) => format!("{sign} {bound} × its {other}"),
        }
    }
}

impl Judgement {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::Stated => "stated",
            Self::NotMeasured => "not measured",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict<'a>(verdicts: &'a [Verdict], work: &Work, goal: &str) -> &'a Verdict {
        verdicts.iter().find(|verdict| verdict.work == work.name && verdict.goal == goal).unwrap()
    }

    fn report(rows: &[(&Work, &str, Measure, &[f64])]) -> Report {
        let mut report = Report::new("test");
        for (work, server, measure, samples) in rows {
            for sample in *samples {
                report.add(work.name, server, *measure, *sample);
            }
        }
        report
    }

    #[test]
    fn a_goal_is_met_at_its_bound_and_missed_past_it() {
        for (rss, judgement) in [(2048.0, Judgement::Met), (2048.1, Judgement::Missed)] {
            let verdicts = table(&report(&[(&CHURN, GATECAST, RSS, &[rss])]));
            assert_eq!(verdict(&verdicts, &CHURN, "≤ 2,048 B").judgement, judgement);
        }
        for (rate, judgement) in [(0.5, Judgement::Met), (0.49, Judgement::Missed)] {
            let rows: [(&Work, &str, Measure, &[f64]); 2] =
                [(&STORM, GATECAST, OPENED, &[rate]), (&STORM, UWEBSOCKETS, OPENED, &[1.0])];
            let verdicts = table(&report(&rows));
            assert_eq!(verdict(&verdicts, &STORM, "≥ 0.50 × uWebSockets").judgement, judgement);
        }
    }

    #[test]
    fn a_ratio_is_judged_by_the_median_of_the_rounds_not_of_the_servers() {
        // The medians are 2 and 2, so their ratio is 1; the median of the ratios 0.5, 1.2, 2 is
        // 1.2.
        let verdicts = table(&report(&[
            (&FANOUT_1K, GATECAST, SERVER_CPU, &[1.0, 2.4, 2.0]),
            (&FANOUT_1K, FLOOR, SERVER_CPU, &[2.0, 2.0, 1.0]),
        ]));
        let verdict = verdict(&verdicts, &FANOUT_1K, "≤ 1.10 × bare send loop");
        assert_eq!(verdict.judgement, Judgement::Missed);
        assert_eq!(verdict.measured, Some(Spread { median: 1.2, low: 0.5, high: 2.0 }));
        assert_eq!((verdict.rounds, verdict.unit), (3, "×"));
    }

    #[test]
    fn without_uwebsockets_the_floor_is_the_reference_and_the_goal_says_so() {
        let gatecast: (&Work, &str, Measure, &[f64]) = (&FANOUT_1K, GATECAST, SERVER_CPU, &[3.0]);
        let floor: (&Work, &str, Measure, &[f64]) = (&FANOUT_1K, FLOOR, SERVER_CPU, &[3.0]);
        let uwebsockets: (&Work, &str, Measure, &[f64]) =
            (&FANOUT_1K, UWEBSOCKETS, SERVER_CPU, &[2.0]);
        let without = table(&report(&[gatecast, floor]));
        assert_eq!(
            verdict(&without, &FANOUT_1K, "≤ 1.00 × bare send loop").judgement,
            Judgement::Met
        );
        let with = table(&report(&[gatecast, floor, uwebsockets]));
        assert_eq!(verdict(&with, &FANOUT_1K, "≤ 1.00 × uWebSockets").judgement, Judgement::Missed);
    }

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        let verdicts = table(&report(&[(&CHURN, GATECAST, SLAB, &[700.0])]));
        assert_eq!(verdict(&verdicts, &CHURN, "stated").judgement, Judgement::Stated);
        let growth = verdict(&verdicts, &FANOUT_5K, "≤ 1.20 × fan-out to 1,000");
        assert_eq!((growth.judgement, growth.measured), (Judgement::NotMeasured, None));
        assert!(table(&report(&[(&STORM, "another", OPENED, &[1.0])])).is_empty());
    }

    #[test]
    fn gatecast_is_compared_with_itself_too() {
        let verdicts = table(&report(&[
            (&LATENCY, GATECAST, P50, &[100.0]),
            (&LATENCY, GATECAST, P999, &[1001.0]),
            (&ONE_NODE_LATENCY, GATECAST, P99, &[10.0]),
            (&CLUSTER_LATENCY, GATECAST, P99, &[20.0]),
        ]));
        assert_eq!(
            verdict(&verdicts, &LATENCY, "≤ 10.0 × its latency, p50").judgement,
            Judgement::Missed
        );
        assert_eq!(
            verdict(&verdicts, &CLUSTER_LATENCY, "≤ 2.00 × one node, latency").judgement,
            Judgement::Met
        );
    }
}
