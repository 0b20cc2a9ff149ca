//! Latency by percentile, a panel for each work: the axis is 1 ÷ (1 − percentile), logarithmic, so
//! that each further nine takes the same room.

use anyhow::Result;
use hdrhistogram::Histogram;
use plotters::chart::ChartBuilder;
use plotters::coord::combinators::IntoLogRange;
use plotters::series::LineSeries;
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{Color, TRANSPARENT};

use super::page::{Area, GRID, HEAD, INK, colour, legend, page, text, tick};
use crate::bench::report::Report;
use crate::bench::works::{GATECAST, place};

const HEIGHT: u32 = 400;
const STEPS_A_DECADE: f64 = 40.0;
/// Beyond that there are few samples.
const DECADES_MAX: f64 = 5.0;

/// If the longest latency is more than this many times gatecast's, the panel is shown again at
/// gatecast's scale.
const APART: f64 = 5.0;

/// The latencies of each server in a work.
#[derive(Clone)]
struct Panel<'a> {
    title: String,
    curves: Vec<(&'a str, &'a Histogram<u64>)>,
    /// Where the axis ends, in milliseconds.
    top: f64,
}

/// Draws the latencies of all works; nothing if there are none.
pub(super) fn plot(report: &Report) -> Result<Option<String>> {
    let panels = panels(report);
    if panels.is_empty() {
        return Ok(None);
    }
    let mut servers: Vec<&str> =
        panels.iter().flat_map(|panel| &panel.curves).map(|(name, _)| *name).collect();
    servers.sort_by_key(|server| (place(server), *server));
    servers.dedup();
    let height = HEIGHT * u32::try_from(panels.len())?;
    let svg =
        page("Latency: from when a message is due until a receiver has it", height, |root| {
            legend(root, &servers)?;
            let areas = root.margin(HEAD, 0, 0, 0).split_evenly((panels.len(), 1));
            panels.iter().zip(&areas).try_for_each(|(panel, area)| draw(area, panel))
        })?;
    Ok(Some(svg))
}

fn panels(report: &Report) -> Vec<Panel<'_>> {
    let mut panels: Vec<Panel<'_>> = Vec::new();
    for (work, server, nanos) in report.histograms().filter(|(.., nanos)| !nanos.is_empty()) {
        match panels.iter_mut().find(|panel| panel.title == work) {
            Some(panel) => panel.curves.push((server, nanos)),
            None => panels.push(Panel {
                title: work.to_owned(),
                curves: vec![(server, nanos)],
                top: 0.0,
            }),
        }
    }
    panels.into_iter().flat_map(whole_and_enlarged).collect()
}

/// A server that cannot keep up would press the curves of all others to the bottom.
fn whole_and_enlarged(mut panel: Panel<'_>) -> Vec<Panel<'_>> {
    panel.curves.sort_by_key(|(server, _)| place(server));
    let longest =
        |nanos: &Histogram<u64>| points(nanos).map(|(_, millis)| millis).fold(0.0, f64::max);
    let whole =
        panel.curves.iter().map(|(_, nanos)| longest(nanos)).fold(f64::MIN_POSITIVE, f64::max);
    panel.top = whole * 1.1;
    let ours = panel
        .curves
        .iter()
        .find(|(server, _)| *server == GATECAST)
        .map(|(_, nanos)| longest(nanos));
    match ours {
        Some(ours) if whole > ours * APART => {
            let title = format!("{}, enlarged", panel.title);
            let enlarged = Panel { title, top: ours * 2.0, ..panel.clone() };
            vec![panel, enlarged]
        }
        _ => vec![panel],
    }
}

fn draw(area: &Area<'_>, Panel { title, curves, top }: &Panel<'_>) -> Result<()> {
    area.draw_text(title, &text(16, HPos::Left, VPos::Center), (20, 20))?;
    let decades = curves.iter().map(|(_, nanos)| decades(nanos)).fold(2.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(16)
        .margin_top(36)
        .x_label_area_size(50)
        .y_label_area_size(80)
        .build_cartesian_2d((1.0..10_f64.powf(decades)).log_scale(), 0.0..*top)?;
    chart
        .configure_mesh()
        .x_labels(8)
        .y_labels(8)
        .x_label_formatter(&|value| percentile(*value))
        .y_label_formatter(&|value| tick(*value))
        .x_desc("percentile of deliveries")
        .y_desc("latency, ms")
        .label_style(text(13, HPos::Center, VPos::Top))
        .axis_desc_style(text(14, HPos::Center, VPos::Bottom))
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .draw()?;
    // Gatecast last, above the others.
    for (server, nanos) in curves.iter().rev() {
        let inside = points(nanos).take_while(|(_, millis)| millis <= top);
        chart.draw_series(LineSeries::new(inside, colour(server).stroke_width(2)))?;
    }
    Ok(())
}

/// The number of nines for which there are enough samples.
fn decades(nanos: &Histogram<u64>) -> f64 {
    (nanos.len() as f64).log10().min(DECADES_MAX)
}

/// Returns milliseconds by 1 ÷ (1 − percentile).
fn points(nanos: &Histogram<u64>) -> impl Iterator<Item = (f64, f64)> {
    let (decades, mut step) = (decades(nanos), 0.0);
    std::iter::from_fn(move || {
        let at = step / STEPS_A_DECADE;
        step += 1.0;
        (at <= decades).then(|| {
            let x = 10_f64.powf(at);
            (x, nanos.value_at_quantile(1.0 - 1.0 / x) as f64 / 1e6)
        })
    })
}

/// Writes 100 as 99 %.
fn percentile(x: f64) -> String {
    let digits = (x.log10() - 2.0).max(0.0).ceil();
    let percent = 100.0 - 100.0 / x;
    match digits {
        0.0 => format!("{percent:.0} %"),
        1.0 => format!("{percent:.1} %"),
        2.0 => format!("{percent:.2} %"),
        _ => format!("{percent:.3} %"),
    }
}
