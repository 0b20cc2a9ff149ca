//! The program as a user runs it, against the only server that needs no installation: its own floor.
#![expect(clippy::unwrap_used, reason = "a test may fail at once")]

use std::process::{Command, Output};

fn loadtest(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest")).args(args).output().unwrap()
}

#[test]
fn floor_delivers_everything_and_says_where_it_was_measured() {
    let output =
        loadtest(&["floor", "--connections", "20", "--messages", "20", "--rounds", "2", "--bytes", "70000"]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{table}");
    for part in ["cores of", "20 connections", "2 rounds", "server CPU per delivery", "no faults"] {
        assert!(table.contains(part), "`{part}` is missing in {table}");
    }
}

#[test]
fn a_target_that_is_not_loopback_is_refused_before_anything_is_dialled() {
    let output = loadtest(&["idle", "--url", "ws://192.0.2.1:9/", "--pid", "1", "--connections", "1"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("not a loopback address"));
}

#[test]
fn a_program_that_is_not_gatecast_ends_the_comparison_with_its_reason() {
    let output = loadtest(&["compare", "--gatecast", "/bin/true"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("did not say `ws://"));
}
