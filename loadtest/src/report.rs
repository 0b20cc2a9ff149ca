//! The result of a command: figures by work and measure, as a Markdown table or JSON.
//!
//! Rule: no figure without its machine, its settings, its number of samples and its spread.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::process::Machine;
use crate::relay::Outcome;

/// The work that others are compared with.
pub(crate) const FLOOR: &str = "floor: bare send loop";

/// Measures that are divided by the floor's; its latencies would mean nothing beside those of a larger window.
const RELATED: [&str; 2] = [SERVER_CPU, DELIVERIES];
const SERVER_CPU: &str = "server CPU per delivery";
const DELIVERIES: &str = "deliveries";

/// Below this the 10 ms resolution of CPU time is an error of more than 5 %.
const COARSE_CPU_MILLIS: u128 = 200;
/// Cores that other processes may use without being mentioned.
const QUIET: f64 = 0.1;

/// Everything a command found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    command: &'static str,
    machine: Machine,
    settings: Vec<String>,
    rows: Vec<Row>,
    /// Most cores that other processes used during a run; 0 when they were quiet.
    disturbed: f64,
    notes: Vec<String>,
    /// Any of these fails the command.
    faults: Vec<String>,
}

/// One line of the table.
#[derive(Debug, Serialize)]
struct Row {
    work: String,
    measure: String,
    unit: &'static str,
    /// One for each round.
    samples: Vec<f64>,
    /// Each sample divided by the floor's of the same round, where there is a floor.
    times_floor: Vec<f64>,
}

impl Report {
    pub(crate) fn new(command: &'static str) -> Self {
        let machine = Machine::this();
        Self {
            command,
            machine,
            settings: Vec::new(),
            rows: Vec::new(),
            disturbed: 0.0,
            notes: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// Says with what the command ran.
    pub(crate) fn set(&mut self, setting: String) {
        self.settings.push(setting);
    }

    pub(crate) fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    pub(crate) fn fault(&mut self, fault: String) {
        self.faults.push(fault);
    }

    pub(crate) fn has_faults(&self) -> bool {
        !self.faults.is_empty()
    }

    /// Adds one sample to the row of `work` and `measure`.
    pub(crate) fn add(&mut self, work: &str, (measure, unit): (&str, &'static str), sample: f64) {
        match self.rows.iter_mut().find(|row| row.work == work && row.measure == measure) {
            Some(row) => row.samples.push(sample),
            None => self.rows.push(Row {
                work: work.to_owned(),
                measure: measure.to_owned(),
                unit,
                samples: vec![sample],
                times_floor: Vec::new(),
            }),
        }
    }

    /// Adds a run's figures and faults.
    pub(crate) fn add_outcome(&mut self, work: &str, outcome: &Outcome) {
        let Outcome { deliveries, spent, latency, faults } = outcome;
        let each = |micros: u128| micros as f64 / (*deliveries).max(1) as f64;
        let micros = |nanos: u64| nanos as f64 / 1e3;
        self.add(work, (SERVER_CPU, "µs"), each(spent.server_cpu.as_micros()));
        self.add(work, (DELIVERIES, "/s"), *deliveries as f64 / spent.elapsed.as_secs_f64());
        self.add(work, ("client CPU per delivery", "µs"), each(spent.client_cpu.as_micros()));
        self.add(work, ("send to last receiver, p50", "µs"), micros(latency.value_at_quantile(0.5)));
        self.add(work, ("send to last receiver, p99", "µs"), micros(latency.value_at_quantile(0.99)));
        self.add(work, ("send to last receiver, max", "µs"), micros(latency.max()));
        if spent.server_cpu.as_millis() < COARSE_CPU_MILLIS {
            self.note(format!(
                "{work}: a run used less than {COARSE_CPU_MILLIS} ms of server CPU, which the kernel counts in steps of 10 ms: \
                 more --messages make it exact"
            ));
        }
        let others = spent.others_cpu.as_secs_f64() / spent.elapsed.as_secs_f64();
        if others > QUIET {
            self.disturbed = self.disturbed.max(others);
        }
        self.faults.extend(faults.iter().map(|fault| format!("{work}: {fault}")));
    }

    /// Relates each row to the floor's row of the same measure, round by round, so that a machine that drifts during
    /// the run drifts for both.
    pub(crate) fn relate_to_floor(&mut self) {
        let floor: Vec<(String, Vec<f64>)> = self
            .rows
            .iter()
            .filter(|row| row.work == FLOOR && RELATED.contains(&row.measure.as_str()))
            .map(|row| (row.measure.clone(), row.samples.clone()))
            .collect();
        for row in self.rows.iter_mut().filter(|row| row.work != FLOOR) {
            if let Some((_, base)) = floor.iter().find(|(measure, _)| *measure == row.measure) {
                row.times_floor =
                    row.samples.iter().zip(base).map(|(sample, floor)| sample / floor).collect();
            }
        }
    }

    /// Prints the table.
    pub(crate) fn print(&self) {
        println!("## loadtest {}\n", self.command);
        println!("- machine: {}, client included", self.machine.describe());
        for setting in &self.settings {
            println!("- {setting}");
        }
        println!("\n| work | measure | median | min–max | × floor |\n|---|---|---:|---:|---:|");
        for row in &self.rows {
            let Row { work, measure, unit, samples, times_floor } = row;
            let ratio =
                if times_floor.is_empty() { "–".to_owned() } else { format!("{:.2}", median(times_floor)) };
            let (low, high) = spread(samples);
            println!(
                "| {work} | {measure} ({unit}) | {} | {}–{} | {ratio} |",
                number(median(samples)),
                number(low),
                number(high)
            );
        }
        println!();
        for note in &self.notes {
            println!("- note: {note}");
        }
        if self.disturbed > 0.0 {
            println!("- note: other processes used up to {:.2} cores during a run", self.disturbed);
        }
        for fault in &self.faults {
            println!("- **FAULT**: {fault}");
        }
        if self.faults.is_empty() {
            println!("- no faults");
        }
    }

    /// Writes everything, each sample included, to `path`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write_json(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self)?;
        fs::write(path, json + "\n").with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Returns the middle, or nothing of a number if there are none.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { at(half) } else { f64::midpoint(at(half.saturating_sub(1)), at(half)) }
}

fn spread(samples: &[f64]) -> (f64, f64) {
    (
        samples.iter().copied().fold(f64::INFINITY, f64::min),
        samples.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    )
}

/// Three significant digits or whole numbers with separators: what a reader can compare at a glance.
fn number(value: f64) -> String {
    if value.abs() < 10.0 {
        return format!("{value:.2}");
    }
    if value.abs() < 1000.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && digit.is_ascii_digit() && (digits.len() - index) % 3 == 0 && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_the_spread_the_ends() {
        assert!((median(&[5.0, 1.0, 3.0]) - 3.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 3.0, 2.0]) - 2.5).abs() < 1e-9);
        assert_eq!(spread(&[2.0, 9.0, 4.0]), (2.0, 9.0));
    }

    #[test]
    fn numbers_are_short_and_grouped() {
        let shown = [0.456, 45.67, 1_234.5, 1_234_567.0, -1_234.0, -123_456.0].map(number);
        assert_eq!(shown, ["0.46", "45.7", "1,234", "1,234,567", "-1,234", "-123,456"]);
    }

    #[test]
    fn rows_are_related_to_the_floor_round_by_round() {
        let mut report = Report::new("test");
        for (floor, other) in [(2.0, 4.0), (4.0, 4.0)] {
            report.add(FLOOR, (SERVER_CPU, "µs"), floor);
            report.add("other", (SERVER_CPU, "µs"), other);
        }
        report.add("other", ("memory", "B"), 1.0);
        report.relate_to_floor();
        assert_eq!(report.rows[1].times_floor, [2.0, 1.0]);
        assert!(report.rows[2].times_floor.is_empty());
    }
}
