//! The report as Markdown.

use super::numbers::{Spread, median, number};
use super::{Report, Row};
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

fn put(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}
