//! What a plot must show: a title, units, every server in its colour, axes from 0, and where the
//! figures are.

use hdrhistogram::Histogram;
use plotters::style::RGBColor;

use super::page::{colour, tick};
use super::*;
use crate::bench::works::{
    FLOOD_1K, FLOOR, GATECAST, LATENCY, SOCKET_IO, SOCKET_IO_REDIS, UWEBSOCKETS, WS,
};

/// Made up, with what stretches a plot: figures far apart, a long name, a server that missed a
/// work.
fn report() -> Report {
    let mut report = Report::new("test");
    let servers =
        [(GATECAST, 100), (FLOOR, 95), (UWEBSOCKETS, 110), (WS, 240), (SOCKET_IO_REDIS, 350)];
    for round in 1..=5 {
        report.begin_round(round);
        let drift = 1.0 + 0.02 * round as f64;
        for (server, percent) in servers {
            let factor = f64::from(percent) / 100.0;
            for (work, micros) in
                [(FANOUT_1K, 5.5), (FANOUT_5K, 6.2), (FANOUT_15K, 7.4), (FLOOD_1K, 0.5)]
            {
                if server != FLOOR || work.window == 1 {
                    report.add(work.name, server, SERVER_CPU, micros * factor * drift);
                    report.add(work.name, server, DELIVERIES, 1e6 / (micros * factor * drift));
                }
            }
            if server == FLOOR {
                continue;
            }
            for opening in 1..=OPENINGS {
                let bytes = 900.0 * factor * factor * drift + 10.0 * opening as f64;
                report.add(CHURN.name, server, (&rss_at(opening), "B"), bytes);
            }
            report.add_histogram(LATENCY.name, server, &latencies(percent));
        }
    }
    report
}

fn latencies(percent: u32) -> Histogram<u64> {
    let mut nanos = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).unwrap();
    for nth in 1..2000 {
        nanos.record(u64::from(percent) * (8000 + 2_000_000 / (nth + 40))).unwrap();
    }
    nanos
}

fn plot(report: &Report, name: &str) -> String {
    all(report).unwrap().into_iter().find(|(plot, _)| *plot == name).unwrap().1
}

/// Returns what is written in the plot.
fn texts(svg: &str) -> Vec<&str> {
    svg.split("</text>").filter_map(|part| Some(part.rsplit_once('>')?.1.trim())).collect()
}

fn hex(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

#[test]
fn every_plot_names_its_unit_its_servers_and_begins_at_zero() {
    let report = report();
    for (name, unit) in [
        ("cpu", "server CPU per delivery, µs"),
        ("deliveries", "deliveries, /s"),
        ("memory", "RSS per connection, B"),
        ("latency", "latency, ms"),
        ("growth", "server CPU per delivery, µs"),
        ("churn", "RSS per connection, B"),
    ] {
        let svg = plot(&report, name);
        let texts = texts(&svg);
        for word in [unit, GATECAST, UWEBSOCKETS, WS, SOCKET_IO_REDIS, "0"] {
            assert!(texts.contains(&word), "{name}: `{word}` is missing in {texts:?}");
        }
        for server in [GATECAST, UWEBSOCKETS, WS, SOCKET_IO_REDIS] {
            assert!(svg.contains(&hex(colour(server))), "{name}: no colour of {server}");
        }
    }
}

#[test]
fn a_bar_is_as_long_as_its_figure() {
    let svg = plot(&report(), "cpu");
    let width = |server| {
        let marks = svg.split("<rect").filter(|part| part.contains(&hex(colour(server))));
        let widths =
            marks.filter_map(|part| part.split("width=\"").nth(1)?.split('"').next()?.parse().ok());
        widths.collect::<Vec<f64>>()[0]
    };
    let ratio = width(SOCKET_IO_REDIS) / width(GATECAST);
    assert!((ratio - 3.5).abs() < 0.1, "{ratio}");
}

#[test]
fn a_server_that_cannot_keep_up_does_not_hide_the_others() {
    let mut report = report();
    assert!(!plot(&report, "latency").contains("enlarged"));
    report.add_histogram(LATENCY.name, SOCKET_IO, &latencies(5000));
    let svg = plot(&report, "latency");
    assert!(texts(&svg).contains(&"latency at half of the peak, enlarged"));
}

#[test]
fn what_was_not_measured_has_no_plot() {
    let mut report = Report::new("test");
    assert!(all(&report).unwrap().is_empty());
    report.add(FANOUT_1K.name, GATECAST, SERVER_CPU, 1.0);
    let names: Vec<&str> = all(&report).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["cpu"], "one point is no growth");
}

#[test]
fn ticks_are_short() {
    assert_eq!(
        [0.0, 0.25, 15_000.0, 150_000.0, 1_500_000.0].map(tick),
        ["0", "0.25", "15,000", "150 k", "1.5 M"]
    );
}

#[test]
fn files_are_written_into_a_new_folder() {
    let folder = tempfile::tempdir().unwrap();
    let plots = folder.path().join("plots");
    write(&report(), &plots).unwrap();
    let svg = fs::read_to_string(plots.join("latency.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
}
