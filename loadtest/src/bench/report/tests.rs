//! Reports: rows by round, ratios, JSON and back.

use super::*;
use crate::bench::markdown::markdown;
use crate::bench::output;
use crate::bench::works::{FLOOR, GATECAST};

const WORK: &str = "some work";

#[test]
fn servers_are_compared_round_by_round_even_if_one_misses_a_round() {
    let mut report = Report::new("test");
    for (round, gatecast, floor) in [(1, Some(4.0), 2.0), (2, None, 1.0), (3, Some(4.0), 4.0)] {
        report.begin_round(round);
        report.add(WORK, FLOOR, SERVER_CPU, floor);
        if let Some(gatecast) = gatecast {
            report.add(WORK, GATECAST, SERVER_CPU, gatecast);
        }
    }
    assert_eq!(report.ratios(WORK, SERVER_CPU.0, (GATECAST, FLOOR)), [2.0, 1.0]);
    assert_eq!(report.samples(WORK, GATECAST, SERVER_CPU.0), [Some(4.0), None, Some(4.0)]);
    assert!(report.ratios(WORK, DELIVERIES.0, (GATECAST, FLOOR)).is_empty());
    let table = markdown(&report);
    for line in [
        "### some work",
        "| | gatecast | bare send loop |",
        "| server CPU per delivery, µs | 4.00 (4.00–4.00) | 2.00 (1.00–4.00) · 1.50 |",
    ] {
        assert!(table.lines().any(|shown| shown == line), "`{line}` is missing in {table}");
    }
}

#[test]
fn a_stored_report_reads_as_it_was_written() {
    let mut report = Report::new("test");
    report.set("a setting".to_owned());
    report.fault("a fault".to_owned());
    for round in 1..=2 {
        report.begin_round(round);
        let mut nanos = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).unwrap();
        for micros in 1..=1000 {
            nanos.record(micros * 1000 * round as u64).unwrap();
        }
        report.add_histogram(WORK, GATECAST, &nanos);
    }
    report.add(WORK, GATECAST, RSS_OF_NOTHING, f64::NAN);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    output::write_json(&report, &path).unwrap();
    let read = Report::read_json(&path).unwrap();
    assert_eq!(markdown(&read), markdown(&report));
    assert_eq!(read.latencies[0].nanos, report.latencies[0].nanos);
    assert_eq!(read.latencies[0].nanos.len(), 2000);
    assert_eq!(read.rows[0].samples.len(), 2);
}

const RSS_OF_NOTHING: (&str, &str) = ("RSS", "B");
