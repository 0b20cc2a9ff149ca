//! Plots of a report, as SVG.
//!
//! Rule: every axis begins at 0 and names its unit, every point shows its spread, and a server has
//! one colour in all plots. What was not measured has no plot.

mod bars;
mod curves;
mod lines;
mod page;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::bench::report::Report;
use crate::bench::works::{
    CHURN, DELIVERIES, FANOUT_1K, FANOUT_5K, FANOUT_15K, OPENINGS, RSS, SERVER_CPU, rss_at,
};
use crate::shared::output::write_text;

/// Writes a file for each plot for which the report has figures.
pub(crate) fn write(report: &Report, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (name, svg) in all(report)? {
        let path = folder.join(format!("{name}.svg"));
        write_text(&path, &svg)?;
    }
    Ok(())
}

fn all(report: &Report) -> Result<Vec<(&'static str, String)>> {
    let growth = [FANOUT_1K, FANOUT_5K, FANOUT_15K];
    let growth = growth.map(|work| (work.group_size as f64, work.name, SERVER_CPU.0.to_owned()));
    let churns: Vec<_> =
        (1..=OPENINGS).map(|opening| (opening as f64, CHURN.name, rss_at(opening))).collect();
    let plots = [
        (
            "cpu",
            bars::plot(report, "What a delivery costs: server CPU, less is better", SERVER_CPU)?,
        ),
        ("deliveries", bars::plot(report, "Deliveries a second, more is better", DELIVERIES)?),
        (
            "memory",
            bars::plot(report, "What an idle connection costs: memory over the empty server", RSS)?,
        ),
        ("latency", curves::plot(report)?),
        (
            "growth",
            lines::plot(
                report,
                (
                    "What a delivery costs as connections grow",
                    "connections",
                    "server CPU per delivery, µs",
                ),
                &growth,
            )?,
        ),
        (
            "churn",
            lines::plot(
                report,
                (
                    "Memory after all connections were closed and opened again",
                    "opening",
                    "RSS per connection, B",
                ),
                &churns,
            )?,
        ),
    ];
    Ok(plots.into_iter().filter_map(|(name, svg)| Some((name, svg?))).collect())
}

#[cfg(test)]
mod tests;
