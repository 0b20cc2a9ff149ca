//! The program as a user runs it, against the only server that needs no installation: its own
//! floor.
#![expect(clippy::unwrap_used, reason = "a test may fail at once")]

use std::fs;
use std::process::{Command, Output};

fn loadtest(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest")).args(args).output().unwrap()
}

#[test]
fn floor_delivers_everything_and_says_where_it_was_measured() {
    let output = loadtest(&[
        "floor",
        "--connections",
        "20",
        "--messages",
        "20",
        "--rounds",
        "2",
        "--bytes",
        "70000",
    ]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{table}");
    for part in ["cores of", "20 connections", "2 rounds", "server CPU per delivery", "no faults"] {
        assert!(table.contains(part), "`{part}` is missing in {table}");
    }
}

#[test]
fn a_target_that_is_not_loopback_is_refused_before_anything_is_dialled() {
    let output =
        loadtest(&["idle", "--url", "ws://192.0.2.1:9/", "--pid", "1", "--connections", "1"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("not a loopback address"));
}

#[test]
fn a_program_that_is_not_gatecast_ends_the_comparison_with_its_reason() {
    let output = loadtest(&["compare", "--gatecast", "/bin/true"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("the node ended with"));
}

#[test]
fn a_stored_result_is_shown_again_and_only_strict_fails_for_a_missed_goal() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (json, markdown, plots) = (path("floor.json"), path("floor.md"), path("plots"));
    let load = ["floor", "--connections", "5", "--messages", "5", "--rounds", "2"];
    let measured = loadtest(&[&load[..], &["--json", &json]].concat());
    let shown = loadtest(&["report", "--json", &json, "--markdown", &markdown, "--plots", &plots]);
    assert!(shown.status.success());
    assert_eq!(shown.stdout, measured.stdout);
    assert!(measured.stdout.starts_with(fs::read_to_string(markdown).unwrap().as_bytes()));
    assert!(
        fs::read_to_string(folder.path().join("plots/cpu.svg")).unwrap().contains("bare send loop")
    );

    let mut report: serde_json::Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    report["rows"].as_array_mut().unwrap().push(serde_json::json!({
        "work": "15,000 idle", "server": "gatecast", "measure": "RSS per connection", "unit": "B", "samples": [4096.0]
    }));
    fs::write(&json, report.to_string()).unwrap();
    let lenient = loadtest(&["report", "--json", &json]);
    assert!(String::from_utf8_lossy(&lenient.stdout).contains("| **missed** |"));
    assert!(lenient.status.success());
    assert!(!loadtest(&["report", "--json", &json, "--strict"]).status.success());
}

#[test]
fn an_unknown_work_is_refused_before_anything_is_started() {
    let output = loadtest(&["compare", "--gatecast", "/bin/true", "--only", "no such work"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no work has a name"));
}
