//! The harness of floods: it must see when innocent clients are harmed, and fail then.
#![expect(clippy::unwrap_used, reason = "a test may fail at once")]

use std::path::Path;
use std::process::{Command, Output};

fn abuse(args: &[&str]) -> (Output, String) {
    let gatecast = Path::new(env!("CARGO_BIN_EXE_loadtest")).with_file_name("gatecast");
    assert!(gatecast.exists(), "{} is missing: `cargo build` first", gatecast.display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    let output = command
        .args(["abuse", "--short"])
        .args(args)
        .arg("--gatecast")
        .arg(gatecast)
        .output()
        .unwrap();
    let table = String::from_utf8(output.stdout.clone()).unwrap();
    (output, table)
}

#[test]
fn a_flood_that_harms_nobody_passes() {
    let (output, table) = abuse(&["--flood", "deep"]);
    assert!(output.status.success(), "{table}");
    assert!(table.contains("| nobody was harmed |"), "{table}");
}

#[test]
fn a_node_without_places_for_newcomers_fails() {
    let (output, table) =
        abuse(&["--flood", "deep", "--set", "GATECAST_LIMITS_MAX_CONNECTIONS=16"]);
    assert!(!output.status.success(), "{table}");
    assert!(table.contains("a newcomer was not let in"), "{table}");
}

#[test]
fn a_flood_that_is_not_known_is_refused() {
    let (output, _) = abuse(&["--flood", "biblical"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("there are deep, unread_answers"));
}
