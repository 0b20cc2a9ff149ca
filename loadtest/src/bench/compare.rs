//! `compare`: gatecast beside other servers in every work that has a goal, in turns, in one table.
//!
//! Reading order: `participants` (who takes part) → `traffic` (messages) → `connections` (storms,
//! memory) → `posts` (the management API). Rule: every round measures everything once and begins
//! with another server, so that a machine that becomes slower does so for all. A failure is a fault
//! of the report and does not end the run.

mod connections;
mod participants;
mod posts;
mod scale;
mod traffic;

use anyhow::Result;

use self::participants::Participants;
use self::scale::Scale;
use crate::bench::args::CompareArgs;
use crate::bench::report::Report;
use crate::bench::works::Work;
use crate::shared::process;
use crate::shared::progress::Steps;

/// A part of a round: works that are measured together, since they need the same connections.
#[derive(Debug)]
enum Part {
    Traffic(Vec<&'static traffic::Case>),
    Latency(&'static traffic::Pace),
    Connections(&'static connections::Case),
    Posts(&'static posts::Case),
}

/// Measures all works, or those that were asked for, round by round.
pub(crate) fn compare(args: &CompareArgs) -> Result<Report> {
    let scale = if args.quick { Scale::Quick } else { Scale::Full };
    let rounds = if args.quick { 1 } else { args.rounds };
    let parts = parts(&args.only);
    anyhow::ensure!(!parts.is_empty(), "no work has a name with {:?} in it", args.only);
    process::reserve_files(15_000)?;
    let mut report = Report::new("compare");
    report.set(format!(
        "{rounds} rounds; every server is a process of its own, fresh where memory is measured"
    ));
    if args.quick {
        report.note(
            "quick: too few connections and messages for figures that mean anything".to_owned(),
        );
    }
    let mut participants = Participants::open(args, scale, &mut report)?;
    let mut steps = Steps::new(rounds * parts.len());
    for round in 1..=rounds {
        report.begin_round(round);
        participants.begin_round(round);
        for part in &parts {
            steps.begin(&format!("round {round}, {}", part.name()));
            part.run(&mut participants, &mut report);
        }
    }
    Ok(report)
}

/// Returns the parts in the order in which they are measured: a pace needs the peak of a flood
/// before it.
fn parts(only: &[String]) -> Vec<Part> {
    let is_asked =
        |work: &Work| only.is_empty() || only.iter().any(|text| work.name.contains(text.as_str()));
    let paces = || traffic::PACES.iter().filter(|pace| is_asked(pace.work));
    let is_needed = |work: &Work| is_asked(work) || paces().any(|pace| pace.peak.name == work.name);
    let mut parts = Vec::new();
    for together in traffic::CASES.chunk_by(|one, other| one.shares_connections(other)) {
        let cases: Vec<_> = together.iter().filter(|case| is_needed(case.work)).collect();
        if !cases.is_empty() {
            parts.push(Part::Traffic(cases));
        }
    }
    parts.extend(paces().map(Part::Latency));
    let connections = connections::CASES.iter().filter(|case| is_asked(case.work));
    parts.extend(connections.map(Part::Connections));
    parts.extend(posts::CASES.iter().filter(|case| is_asked(case.work)).map(Part::Posts));
    parts
}

impl Part {
    /// Measures it with every server that takes part in it.
    fn run(&self, participants: &mut Participants, report: &mut Report) {
        for name in participants.order() {
            let done = match self {
                Self::Traffic(cases) => traffic::run(participants, cases, name, report),
                Self::Latency(pace) => traffic::keep_pace(participants, pace, name, report),
                Self::Connections(case) => connections::run(participants, case, name, report),
                Self::Posts(case) => posts::run(participants, case, name, report),
            };
            if let Err(err) = done {
                report.fault(format!("{}, {name}: {err:#}", self.name()));
            }
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Traffic(cases) => {
                let names: Vec<_> = cases.iter().map(|case| case.work.name).collect();
                names.join(", ")
            }
            Self::Latency(pace) => pace.work.name.to_owned(),
            Self::Connections(case) => case.work.name.to_owned(),
            Self::Posts(case) => case.work.name.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::goals;
    use crate::bench::works::LATENCY;

    #[test]
    fn a_pace_brings_the_flood_that_it_needs() {
        let parts = parts(&[LATENCY.name.to_owned()]);
        let names: Vec<_> = parts.iter().map(Part::name).collect();
        assert_eq!(names, ["flood to 1,000", LATENCY.name]);
        assert!(super::parts(&["no such work".to_owned()]).is_empty());
    }

    #[test]
    fn every_goal_has_its_work() {
        let parts = parts(&[]);
        let names: Vec<_> = parts.iter().map(Part::name).collect();
        for work in goals::works() {
            assert!(names.iter().any(|name| name.contains(work.name)), "{}", work.name);
        }
    }

    #[test]
    fn a_quick_run_is_small_and_is_not_judged() {
        for case in traffic::CASES {
            let (groups, size) = Scale::Quick.size(case.work);
            assert!((2..=300).contains(&(groups * size)), "{}", case.work.name);
            assert_ne!(Scale::Quick.name(case.work), case.work.name);
        }
    }
}
