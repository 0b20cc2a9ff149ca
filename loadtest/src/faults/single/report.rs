//! The result: one row for each fault over all rounds, as Markdown or JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use super::round::Outcome;
use super::table::{Fault, Loss};
use crate::shared::numbers::median;
use crate::shared::output::put;
use crate::shared::process::Machine;

/// Everything a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    settings: Vec<String>,
    rows: Vec<Row>,
}

/// One fault, over all rounds.
#[derive(Debug, Serialize)]
struct Row {
    fault: &'static str,
    about: &'static str,
    may_lose: bool,
    rounds: Vec<Outcome>,
    /// Why rounds could not be run.
    not_run: Vec<String>,
}

const HEAD: &str = "| fault | rounds | accepted | refused | in doubt | owed | lost | doubled | reordered | cut | closed | silence, s | first accepted, s | repair, s | repaired | lost, by metrics | reconnects | verdict |\n\
                    |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|---:|---:|---:|---:|---:|---:|---|\n";

impl Report {
    pub(crate) fn new(settings: Vec<String>) -> Self {
        Self { machine: Machine::this(), settings, rows: Vec::new() }
    }

    /// Adds the result of a round, or why it could not be run.
    pub(crate) fn add(&mut self, fault: &Fault, outcome: Result<Outcome, String>) {
        let Fault { name, about, loss, .. } = *fault;
        let may_lose = loss != Loss::Nothing;
        if !self.rows.iter().any(|row| row.fault == name) {
            let row = Row { fault: name, about, may_lose, rounds: Vec::new(), not_run: Vec::new() };
            self.rows.push(row);
        }
        let Some(row) = self.rows.iter_mut().find(|row| row.fault == name) else { return };
        match outcome {
            Ok(outcome) => row.rounds.push(outcome),
            Err(reason) => row.not_run.push(reason),
        }
    }

    /// Returns whether every promise was kept in every round, and every fault was run.
    pub(crate) fn is_good(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.broken().is_empty())
    }

    /// Returns the table and its details.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from("## loadtest faults\n\n");
        let lines =
            std::iter::once(format!("machine: {}, clients included", self.machine.describe()));
        for line in lines.chain(self.settings.iter().cloned()) {
            put(&mut text, &format!("- {line}"));
        }
        put(
            &mut text,
            &format!("\n{}{}", HEAD, self.rows.iter().map(Row::markdown).collect::<String>()),
        );
        put(
            &mut text,
            "Times: median (longest). Lost in brackets: around the fault, where Redis may forget.\n",
        );
        for row in &self.rows {
            put(&mut text, &format!("- `{}`: {}", row.fault, row.about));
        }
        for row in &self.rows {
            for broken in row.broken() {
                put(&mut text, &format!("- **BROKEN** `{}`: {broken}", row.fault));
            }
        }
        put(
            &mut text,
            if self.is_good() {
                "\nAll promises were kept."
            } else {
                "\nNot all promises were kept."
            },
        );
        text
    }
}

impl Row {
    fn markdown(&self) -> String {
        let sum = |count: fn(&Outcome) -> u64| self.rounds.iter().map(count).sum::<u64>();
        let mut closed: BTreeMap<u16, u64> = BTreeMap::new();
        for (code, count) in self.rounds.iter().flat_map(|outcome| &outcome.findings.closed) {
            *closed.entry(*code).or_default() += count;
        }
        let closed: Vec<String> =
            closed.iter().map(|(code, count)| format!("{code}: {count}")).collect();
        let lost = sum(|outcome| outcome.findings.lost).to_string();
        let cells = [
            format!("`{}`", self.fault),
            self.rounds.len().to_string(),
            sum(|outcome| outcome.findings.accepted).to_string(),
            sum(|outcome| outcome.findings.refused).to_string(),
            sum(|outcome| outcome.findings.in_doubt).to_string(),
            sum(|outcome| outcome.findings.owed).to_string(),
            match self.may_lose {
                true => format!("{lost} ({})", sum(|outcome| outcome.findings.forgotten)),
                false => lost,
            },
            sum(|outcome| outcome.findings.duplicated).to_string(),
            sum(|outcome| outcome.findings.reordered).to_string(),
            sum(|outcome| outcome.findings.cut).to_string(),
            if closed.is_empty() { "–".to_owned() } else { closed.join(", ") },
            times(self.rounds.iter().map(|outcome| outcome.silence_seconds)),
            times(self.rounds.iter().map(|outcome| outcome.first_accepted_seconds)),
            times(self.rounds.iter().map(|outcome| outcome.repair_seconds)),
            sum(|outcome| outcome.metrics.messages_repaired).to_string(),
            format!(
                "{} in {}",
                sum(|outcome| outcome.metrics.messages_lost),
                sum(|outcome| outcome.metrics.recoveries_lost)
            ),
            sum(|outcome| outcome.metrics.redis_reconnects).to_string(),
            if self.broken().is_empty() { "kept" } else { "**broken**" }.to_owned(),
        ];
        format!("| {} |\n", cells.join(" | "))
    }

    /// Returns what is wrong, with its round.
    fn broken(&self) -> Vec<String> {
        let mut all: Vec<String> =
            self.not_run.iter().map(|reason| format!("not run: {reason}")).collect();
        for outcome in &self.rounds {
            let details = outcome.findings.examples.iter().map(String::as_str);
            let details: Vec<&str> =
                outcome.broken.iter().map(String::as_str).chain(details).collect();
            if !outcome.broken.is_empty() {
                all.push(format!("round {}: {}", outcome.round, details.join("; ")));
            }
        }
        all
    }
}

fn times(seconds: impl Iterator<Item = Option<f64>>) -> String {
    let seconds: Vec<f64> = seconds.flatten().collect();
    if seconds.is_empty() {
        return "–".to_owned();
    }
    let longest = seconds.iter().copied().fold(0.0, f64::max);
    format!("{:.2} ({longest:.2})", median(&seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::single::table::FAULTS;

    #[test]
    fn a_broken_promise_or_a_fault_that_was_not_run_spoils_the_report() {
        let fault = &FAULTS[0];
        let mut report = Report::new(vec!["3 nodes".to_owned()]);
        assert!(!report.is_good(), "nothing was run");
        let good = Outcome { round: 1, repair_seconds: Some(0.5), ..Outcome::default() };
        report.add(fault, Ok(good.clone()));
        assert!(report.is_good() && report.markdown().contains("| kept |"));
        let bad = Outcome { round: 2, broken: vec!["3 deliveries lost".to_owned()], ..good };
        report.add(fault, Ok(bad));
        assert!(!report.is_good() && report.markdown().contains("round 2: 3 deliveries lost"));
        let mut report = Report::new(Vec::new());
        report.add(fault, Err("the node ended".to_owned()));
        assert!(!report.is_good() && report.markdown().contains("not run: the node ended"));
    }
}
