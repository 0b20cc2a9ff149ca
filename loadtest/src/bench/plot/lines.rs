//! A measure over something that grows: a line through the medians of each server, whiskers to
//! minimum and maximum.

use anyhow::Result;
use plotters::chart::ChartBuilder;
use plotters::element::{Circle, PathElement};
use plotters::series::LineSeries;
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{Color, TRANSPARENT};

use super::page::{GRID, HEAD, INK, colour, legend, page, text, tick};
use crate::bench::report::Report;
use crate::bench::works::place;
use crate::shared::numbers::Spread;

const HEIGHT: u32 = 460;

/// The position of a point, and the work and the measure that it shows.
type Point<'a> = (f64, &'a str, String);

/// Draws `points` of every server that has at least two; nothing if none has.
pub(super) fn plot(
    report: &Report,
    (title, x, y): (&str, &str, &str),
    points: &[Point<'_>],
) -> Result<Option<String>> {
    let series = series(report, points);
    if series.is_empty() {
        return Ok(None);
    }
    let right = points.iter().map(|(at, ..)| *at).fold(0.0, f64::max) * 1.04;
    let top =
        series.iter().flat_map(|(_, line)| line).map(|(_, spread)| spread.high).fold(0.0, f64::max)
            * 1.1;
    let svg = page(title, HEIGHT, |root| {
        legend(root, &series.iter().map(|(server, _)| *server).collect::<Vec<_>>())?;
        let below = root.margin(HEAD, 0, 0, 0);
        let mut chart = ChartBuilder::on(&below)
            .margin(16)
            .x_label_area_size(50)
            .y_label_area_size(80)
            .build_cartesian_2d(0.0..right, 0.0..top.max(f64::MIN_POSITIVE))?;
        chart
            .configure_mesh()
            .x_labels(12)
            .y_labels(8)
            .x_label_formatter(&|value| tick(*value))
            .y_label_formatter(&|value| tick(*value))
            .x_desc(x)
            .y_desc(y)
            .label_style(text(13, HPos::Center, VPos::Top))
            .axis_desc_style(text(14, HPos::Center, VPos::Bottom))
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(INK)
            .draw()?;
        // Gatecast last, above the others.
        for (server, line) in series.iter().rev() {
            let colour = colour(server);
            let medians = line.iter().map(|(at, spread)| (*at, spread.median));
            chart.draw_series(LineSeries::new(medians.clone(), colour.stroke_width(2)))?;
            chart.draw_series(medians.map(|point| Circle::new(point, 4, colour.filled())))?;
            let whiskers =
                line.iter().map(|(at, spread)| vec![(*at, spread.low), (*at, spread.high)]);
            chart.draw_series(whiskers.map(|ends| PathElement::new(ends, colour)))?;
        }
        Ok(())
    })?;
    Ok(Some(svg))
}

fn series<'a>(report: &'a Report, points: &[Point<'_>]) -> Vec<(&'a str, Vec<(f64, Spread)>)> {
    let mut series: Vec<(&str, Vec<(f64, Spread)>)> = Vec::new();
    for (at, work, measure) in points {
        for (_, server, spread) in report.spreads(measure).filter(|(name, ..)| name == work) {
            match series.iter_mut().find(|(name, _)| *name == server) {
                Some((_, line)) => line.push((*at, spread)),
                None => series.push((server, vec![(*at, spread)])),
            }
        }
    }
    series.retain(|(_, line)| line.len() > 1);
    series.sort_by_key(|(server, _)| place(server));
    series
}
