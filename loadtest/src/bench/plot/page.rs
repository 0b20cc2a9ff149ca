//! The page of a plot: title, legend, colours, text.

use anyhow::Result;
use plotters::coord::Shift;
use plotters::prelude::{DrawingArea, IntoDrawingArea, RGBColor, SVGBackend, WHITE};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, TextStyle};

use crate::bench::works::{SERVERS, place};
use crate::shared::numbers::number;

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const WIDTH: u32 = 1080;
pub(super) const HEAD: u32 = 64;
pub(super) const INK: RGBColor = RGBColor(40, 40, 40);
pub(super) const GRID: RGBColor = RGBColor(225, 225, 225);

/// By [`place`]: colours that the colour-blind can distinguish (Okabe and Ito); the floor is grey.
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

/// Makes a white page with a title, on which `draw` draws.
pub(super) fn page(
    title: &str,
    height: u32,
    draw: impl FnOnce(&Area<'_>) -> Result<()>,
) -> Result<String> {
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
pub(super) fn legend(root: &Area<'_>, servers: &[&str]) -> Result<()> {
    let mut left = 20;
    for server in servers {
        let mark = plotters::element::Rectangle::new(
            [(left, 46), (left + 12, 58)],
            colour(server).filled(),
        );
        root.draw(&mark)?;
        root.draw_text(server, &text(13, HPos::Left, VPos::Center), (left + 18, 52))?;
        // About the width in any sans-serif font; the real one is known only when the plot is
        // shown.
        left += 40 + i32::try_from(server.chars().count())? * 7;
    }
    Ok(())
}

pub(super) fn text(size: u32, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK).pos(Pos::new(horizontal, vertical))
}

pub(super) fn colour(server: &str) -> RGBColor {
    COLOURS.get(place(server)).copied().unwrap_or(STRANGER)
}

/// Writes a tick: 1,500,000 as 1.5 M.
pub(super) fn tick(value: f64) -> String {
    let short = |value: f64, suffix: &str| format!("{}{suffix}", (value * 100.0).round() / 100.0);
    match value.abs() {
        1e6.. => short(value / 1e6, " M"),
        1e5.. => short(value / 1e3, " k"),
        1e3.. => number(value),
        _ => short(value, ""),
    }
}
