//! One measure as bars: a panel for each work, a bar from 0 to the median for each server, whiskers
//! to minimum and maximum.

use anyhow::Result;
use plotters::chart::ChartBuilder;
use plotters::element::{PathElement, Rectangle};
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{Color, TRANSPARENT};

use super::page::{Area, GRID, HEAD, INK, colour, page, text, tick};
use crate::bench::report::Report;
use crate::bench::works::{Measure, place};
use crate::shared::numbers::{Spread, number};

const COLUMNS: usize = 2;
const BAR: u32 = 26;
/// Title above, axis below.
const AROUND: u32 = 96;
const NAMES: u32 = 140;
/// Part of the axis right of the longest whisker, for the figures.
const ROOM: f64 = 1.25;

/// A work and the spread of each server.
type Panel<'a> = (&'a str, Vec<(&'a str, Spread)>);

/// Draws `measure` of all works; nothing if it was not measured.
pub(super) fn plot(report: &Report, title: &str, measure: Measure) -> Result<Option<String>> {
    let panels = panels(report, measure.0);
    let Some(most) = panels.iter().map(|(_, bars)| bars.len()).max() else { return Ok(None) };
    let height = AROUND + BAR * u32::try_from(most)?;
    let rows = u32::try_from(panels.len().div_ceil(COLUMNS))?;
    let svg = page(title, rows * height, |root| {
        let below = root.margin(HEAD - 14, 0, 0, 10);
        let areas = below.split_evenly((rows as usize, COLUMNS));
        panels.iter().zip(&areas).try_for_each(|(panel, area)| draw(area, panel, measure))
    })?;
    Ok(Some(svg))
}

fn panels<'a>(report: &'a Report, measure: &str) -> Vec<Panel<'a>> {
    let mut panels: Vec<Panel<'a>> = Vec::new();
    for (work, server, spread) in report.spreads(measure) {
        match panels.iter_mut().find(|(name, _)| *name == work) {
            Some((_, bars)) => bars.push((server, spread)),
            None => panels.push((work, vec![(server, spread)])),
        }
    }
    for (_, bars) in &mut panels {
        bars.sort_by_key(|(server, _)| place(server));
    }
    panels
}

fn draw(area: &Area<'_>, (work, bars): &Panel<'_>, (measure, unit): Measure) -> Result<()> {
    area.draw_text(work, &text(16, HPos::Left, VPos::Center), (20, 14))?;
    let longest = bars.iter().map(|(_, spread)| spread.high).fold(0.0, f64::max);
    // Panels have the same height; those with fewer servers leave the rest blank.
    let (area, _) = area.split_vertically(AROUND + BAR * u32::try_from(bars.len())? - 14);
    let mut chart = ChartBuilder::on(&area)
        .margin_top(30)
        .margin_right(10)
        .x_label_area_size(46)
        .y_label_area_size(NAMES)
        .build_cartesian_2d(0.0..(longest * ROOM).max(f64::MIN_POSITIVE), 0.0..bars.len() as f64)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .x_labels(5)
        .x_label_formatter(&|value| tick(*value))
        .x_desc(format!("{measure}, {unit}"))
        .label_style(text(12, HPos::Center, VPos::Top))
        .axis_desc_style(text(12, HPos::Center, VPos::Bottom))
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .draw()?;
    for (index, (server, spread)) in bars.iter().enumerate() {
        let Spread { median, low, high } = *spread;
        let middle = bars.len() as f64 - index as f64 - 0.5;
        let (bottom, top) = (middle - 0.34, middle + 0.34);
        chart.draw_series([Rectangle::new(
            [(0.0, bottom), (median, top)],
            colour(server).mix(0.8).filled(),
        )])?;
        for line in [
            [(low, middle), (high, middle)],
            [(low, middle - 0.15), (low, middle + 0.15)],
            [(high, middle - 0.15), (high, middle + 0.15)],
        ] {
            chart.draw_series([PathElement::new(line.to_vec(), INK)])?;
        }
        let (left, upper) = area.get_base_pixel();
        let pixel = |x: f64| {
            let (x, y) = chart.backend_coord(&(x, middle));
            (x - left, y - upper)
        };
        let ((start, y), (end, _)) = (pixel(0.0), pixel(high.max(median)));
        area.draw_text(server, &text(13, HPos::Right, VPos::Center), (start - 8, y))?;
        area.draw_text(&number(median), &text(12, HPos::Left, VPos::Center), (end + 7, y))?;
    }
    Ok(())
}
