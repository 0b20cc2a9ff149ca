//! A report as Markdown.

use crate::bench::goals::{self, Judgement, Verdict};
use crate::bench::report::{Report, Row};
use crate::bench::works::{self, GATECAST};
use crate::shared::numbers::{self, Spread, number};
use crate::shared::output::put;

/// Returns the report for people.
pub(crate) fn markdown(report: &Report) -> String {
    let mut text = format!("## loadtest {}\n\n", report.command);
    let about =
        [report.date.clone(), format!("machine: {}, client included", report.machine.describe())];
    for line in about.iter().chain(&report.settings) {
        put(&mut text, &format!("- {line}"));
    }
    put(
        &mut text,
        "- median (min–max); beside other servers · gatecast's figure divided by theirs, by round",
    );
    tables(report, &mut text);
    for note in &report.notes {
        put(&mut text, &format!("- note: {note}"));
    }
    if report.disturbed > 0.0 {
        put(
            &mut text,
            &format!(
                "- note: other processes used up to {:.2} cores during a run",
                report.disturbed
            ),
        );
    }
    for fault in &report.faults {
        put(&mut text, &format!("- **FAULT**: {fault}"));
    }
    if report.faults.is_empty() {
        put(&mut text, "- no faults");
    }
    goals(&mut text, &goals::table(report));
    text
}

/// Writes a table for each work: a line for each measure, a column for each server.
fn tables(report: &Report, text: &mut String) {
    let mut works: Vec<&str> = report.rows.iter().map(|row| row.work.as_str()).collect();
    keep_first(&mut works);
    for work in works {
        let rows: Vec<&Row> = report.rows.iter().filter(|row| row.work == work).collect();
        let mut servers: Vec<&str> = rows.iter().map(|row| row.server.as_str()).collect();
        servers.sort_by_key(|server| works::place(server));
        keep_first(&mut servers);
        put(text, &format!("\n### {work}\n\n| | {} |", servers.join(" | ")));
        put(text, &format!("|---|{}", "---:|".repeat(servers.len())));
        let mut measures: Vec<(&str, &str)> =
            rows.iter().map(|row| (row.measure.as_str(), row.unit.as_str())).collect();
        keep_first(&mut measures);
        for (measure, unit) in measures {
            let cells: Vec<String> =
                servers.iter().map(|server| cell(report, (work, measure), server)).collect();
            put(text, &format!("| {measure}, {unit} | {} |", cells.join(" | ")));
        }
    }
    put(text, "");
}

/// Writes the spread, and gatecast's ratio to it.
fn cell(report: &Report, (work, measure): (&str, &str), server: &str) -> String {
    let samples: Vec<f64> =
        report.samples(work, server, measure).iter().flatten().copied().collect();
    let Some(Spread { median, low, high }) = Spread::of(&samples) else { return "–".to_owned() };
    let ratios = report.ratios(work, measure, (GATECAST, server));
    let spread = match samples.len() {
        1 => String::new(),
        _ => format!(" ({}–{})", number(low), number(high)),
    };
    let ratio = match server == GATECAST || ratios.is_empty() {
        true => String::new(),
        false => format!(" · {:.2}", numbers::median(&ratios)),
    };
    format!("{}{spread}{ratio}", number(median))
}

/// Removes repetitions.
fn keep_first<T: PartialEq + Copy>(all: &mut Vec<T>) {
    let mut seen = Vec::new();
    all.retain(|one| {
        let is_new = !seen.contains(one);
        seen.push(*one);
        is_new
    });
}

/// Writes the table of goals.
fn goals(text: &mut String, verdicts: &[Verdict]) {
    if verdicts.is_empty() {
        return;
    }
    let count =
        |judgement| verdicts.iter().filter(|verdict| verdict.judgement == judgement).count();
    put(
        text,
        "\n### Goals\n\n| work | measure | goal | measured | min–max | rounds | |\n|---|---|---|---:|---:|---:|---|",
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
            "\n{} goals met, {} missed, {} not measured.",
            count(Judgement::Met),
            count(Judgement::Missed),
            count(Judgement::NotMeasured)
        ),
    );
}

/// One digit more than the bounds have, so that a near miss does not look like a goal met.
fn ratio(value: f64) -> String {
    if value.abs() < 10.0 { format!("{value:.3}") } else { number(value) }
}
