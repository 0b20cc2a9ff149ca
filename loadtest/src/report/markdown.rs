//! The report as Markdown.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::numbers::{Spread, median, number};
use super::{Report, Row};
use crate::goals::{self, Judgement, Verdict};
use crate::works::GATECAST;

impl Report {
    /// Returns the report as a person reads it.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("## loadtest {}\n\n", self.command);
        let about = [self.date.clone(), format!("machine: {}, client included", self.machine.describe())];
        for line in about.iter().chain(&self.settings) {
            put(&mut text, &format!("- {line}"));
        }
        self.table(&mut text);
        goals(&mut text, &goals::table(self));
        for note in &self.notes {
            put(&mut text, &format!("- note: {note}"));
        }
        if self.disturbed > 0.0 {
            put(
                &mut text,
                &format!("- note: other processes used up to {:.2} cores during a run", self.disturbed),
            );
        }
        for fault in &self.faults {
            put(&mut text, &format!("- **FAULT**: {fault}"));
        }
        if self.faults.is_empty() {
            put(&mut text, "- no faults");
        }
        text
    }

    /// Writes it to a file.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn write_markdown(&self, path: &Path) -> Result<()> {
        fs::write(path, self.markdown()).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Writes all rows, those of one work and measure together, servers below each other.
    fn table(&self, text: &mut String) {
        put(
            text,
            "\n| work | measure | server | median | min–max | gatecast ÷ it |\n|---|---|---|---:|---:|---:|",
        );
        let mut done: Vec<(&str, &str)> = Vec::new();
        for first in &self.rows {
            let key = (first.work.as_str(), first.measure.as_str());
            if done.contains(&key) {
                continue;
            }
            done.push(key);
            let alike = self.rows.iter().filter(|row| (row.work.as_str(), row.measure.as_str()) == key);
            for row in alike {
                put(text, &self.line(row));
            }
        }
        put(text, "");
    }

    fn line(&self, row: &Row) -> String {
        let Row { work, server, measure, unit, samples } = row;
        let samples: Vec<f64> = samples.iter().flatten().copied().collect();
        let shown = Spread::of(&samples).map_or_else(
            || "– | –".to_owned(),
            |Spread { median, low, high }| format!("{} | {}–{}", number(median), number(low), number(high)),
        );
        let ratios = self.ratios(work, measure, (GATECAST, server));
        let ratio = match server == GATECAST || ratios.is_empty() {
            true => "–".to_owned(),
            false => format!("{:.2}", median(&ratios)),
        };
        format!("| {work} | {measure} ({unit}) | {server} | {shown} | {ratio} |")
    }
}

/// Writes the table of goals.
fn goals(text: &mut String, verdicts: &[Verdict]) {
    if verdicts.is_empty() {
        return;
    }
    let count = |judgement| verdicts.iter().filter(|verdict| verdict.judgement == judgement).count();
    put(
        text,
        "### Goals\n\n| work | measure | goal | measured | min–max | rounds | |\n|---|---|---|---:|---:|---:|---|",
    );
    for verdict in verdicts {
        let Verdict { work, measure, goal, measured, unit, rounds, judgement } = verdict;
        let shown = measured.map_or_else(
            || "– | –".to_owned(),
            |Spread { median, low, high }| {
                let number = if *unit == "×" { ratio } else { number };
                format!("{} {unit} | {}–{}", number(median), number(low), number(high))
            },
        );
        let label = match judgement {
            Judgement::Missed => "**missed**",
            other => other.label(),
        };
        put(text, &format!("| {work} | {measure} | {goal} | {shown} | {rounds} | {label} |"));
    }
    put(
        text,
        &format!(
            "\n{} goals met, {} missed, {} not measured.\n",
            count(Judgement::Met),
            count(Judgement::Missed),
            count(Judgement::NotMeasured)
        ),
    );
}

/// A digit more than the bounds have, so that a miss by little can be told from a goal met.
fn ratio(value: f64) -> String {
    if value.abs() < 10.0 { format!("{value:.3}") } else { number(value) }
}

fn put(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}
