//! Plots of a report, as SVG.
//!
//! Rule: every axis begins at 0 and names its unit, every point shows its spread, and a server has one colour in all
//! plots. What was not measured has no plot.

mod bars;
mod curves;
mod lines;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use plotters::coord::Shift;
use plotters::prelude::{DrawingArea, IntoDrawingArea, RGBColor, SVGBackend, WHITE};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, TextStyle};

use crate::bench::report::Report;
use crate::bench::works::{
    CHURN, DELIVERIES, FANOUT_1K, FANOUT_5K, FANOUT_15K, OPENINGS, RSS, SERVER_CPU, SERVERS, place, rss_at,
};
use crate::shared::numbers::number;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const WIDTH: u32 = 1080;
const HEAD: u32 = 64;
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(225, 225, 225);

/// By [`place`]: colours that remain apart for the colour-blind (Okabe and Ito); the floor, which is no competitor, is grey.
const COLOURS: [RGBColor; SERVERS.len()] = [
    RGBColor(0, 114, 178),
    RGBColor(140, 140, 140),
    RGBColor(213, 94, 0),
    RGBColor(240, 228, 66),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
];
const STRANGER: RGBColor = RGBColor(86, 180, 233);

/// Writes a file for each plot that the report has figures for.
///
/// # Errors
/// The folder or a file cannot be written.
pub(crate) fn write(report: &Report, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (name, svg) in all(report)? {
        let path = folder.join(format!("{name}.svg"));
        fs::write(&path, svg).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn all(report: &Report) -> Result<Vec<(&'static str, String)>> {
    let growth = [FANOUT_1K, FANOUT_5K, FANOUT_15K];
    let growth = growth.map(|work| (work.group_size as f64, work.name, SERVER_CPU.0.to_owned()));
    let churns: Vec<_> =
        (1..=OPENINGS).map(|opening| (opening as f64, CHURN.name, rss_at(opening))).collect();
    let plots = [
        ("cpu", bars::plot(report, "What a delivery costs: server CPU, less is better", SERVER_CPU)?),
        ("deliveries", bars::plot(report, "Deliveries a second, more is better", DELIVERIES)?),
        ("memory", bars::plot(report, "What an idle connection costs: memory over the empty server", RSS)?),
        ("latency", curves::plot(report)?),
        (
            "growth",
            lines::plot(
                report,
                ("What a delivery costs as connections grow", "connections", "server CPU per delivery, µs"),
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

/// Draws on a white page with a title; the rest of it is handed to `draw`.
fn page(title: &str, height: u32, draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, HEAD + height)).into_drawing_area();
        root.fill(&WHITE)?;
        root.draw_text(title, &text(20, HPos::Left, VPos::Center), (20, 26))?;
        draw(&root)?;
        root.present()?;
    }
    Ok(svg)
}

/// Names the servers below the title.
fn legend(root: &Area<'_>, servers: &[&str]) -> Result<()> {
    let mut left = 20;
    for server in servers {
        let mark = plotters::element::Rectangle::new([(left, 46), (left + 12, 58)], colour(server).filled());
        root.draw(&mark)?;
        root.draw_text(server, &text(13, HPos::Left, VPos::Center), (left + 18, 52))?;
        // What no sans-serif font exceeds by much, as the width is not known before it is shown.
        left += 40 + i32::try_from(server.chars().count())? * 7;
    }
    Ok(())
}

fn text(size: u32, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK).pos(Pos::new(horizontal, vertical))
}

fn colour(server: &str) -> RGBColor {
    COLOURS.get(place(server)).copied().unwrap_or(STRANGER)
}

/// Writes a tick: 1,500,000 as 1.5 M.
fn tick(value: f64) -> String {
    let short = |value: f64, suffix: &str| format!("{}{suffix}", (value * 100.0).round() / 100.0);
    match value.abs() {
        1e6.. => short(value / 1e6, " M"),
        1e5.. => short(value / 1e3, " k"),
        1e3.. => number(value),
        _ => short(value, ""),
    }
}

#[cfg(test)]
mod tests;
