//! The harness itself: it must see what is wrong, fail then, and leave nothing behind.
#![expect(clippy::unwrap_used, reason = "a test may fail at once")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// The server under test is built beside this program.
fn gatecast() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_loadtest")).with_file_name("gatecast");
    assert!(program.exists(), "{} is missing: `cargo build` first", program.display());
    program
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.args(["faults", "--subscribers", "9", "--haproxy", "no"]).args(args);
    command
}

fn faults(args: &[&str]) -> (Output, String) {
    let output = command(args).arg("--gatecast").arg(gatecast()).output().unwrap();
    let table = String::from_utf8(output.stdout.clone()).unwrap();
    (output, table)
}

#[test]
fn a_fault_that_is_repaired_passes_and_says_so() {
    let (output, table) = faults(&["--fault", "none", "--fault", "kill_subscriptions"]);
    assert!(output.status.success(), "{table}");
    assert!(table.contains("All promises were kept."), "{table}");
    let row = table.lines().find(|line| line.starts_with("| `kill_subscriptions`")).unwrap();
    assert!(row.ends_with("| kept |"), "{row}");
}

#[test]
fn falsified_notes_make_a_run_fail() {
    for (sabotage, finding) in
        [("forget", "deliveries lost"), ("repeat", "deliveries doubled"), ("swap", "out of order")]
    {
        let (output, table) = faults(&["--fault", "none", "--sabotage", sabotage]);
        assert!(!output.status.success(), "{sabotage}: {table}");
        assert!(table.contains(finding), "{sabotage}: {table}");
    }
}

#[test]
fn what_is_missing_is_lost_though_all_nodes_were_away_meanwhile() {
    let plan = "redis_pause@0.3s+1s";
    let (output, table) = faults(&["--plan", plan, "--sabotage", "forget", "--keep-going"]);
    assert!(!output.status.success(), "{table}");
    assert!(table.contains("lost (1): subscriber"), "{table}");
}

#[test]
fn a_plan_that_cannot_be_carried_out_is_neither_kept_nor_broken() {
    let plan = "redis=forgetful redis_pause@0.2s+1.5s redis_restart_older@1s+0.2s/0.5s";
    let (output, table) = faults(&["--plan", plan]);
    assert!(!output.status.success(), "{table}");
    assert!(table.contains("| forgetful | 1 | 0 | 1 |"), "{table}");
    assert!(table.contains("NOT JUDGED: Snapshot"), "{table}");
}

#[test]
fn a_gateway_that_really_loses_messages_fails_and_its_metrics_tell() {
    let (output, table) = faults(&["--fault", "kill_subscriptions", "--sabotage", "trim"]);
    assert!(!output.status.success(), "{table}");
    assert!(table.contains("deliveries lost"), "{table}");
    assert!(!table.contains("no metric"), "{table}");
}

#[test]
fn a_fault_that_cannot_be_run_is_a_failure() {
    let output = command(&["--fault", "none", "--gatecast", "/bin/false"]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("not run: "));
    let output = command(&["--fault", "no_such", "--gatecast", "/bin/false"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("there are none, kill_node"));
}

#[test]
fn a_plan_that_breaks_a_promise_is_shown_shorter_and_with_how_to_see_it_again() {
    // A message is noted twice in every run, so that nothing of the plan is needed; one event is
    // always left.
    let plan = "kill_subscriptions@0.2s redis_restart@0.5s+0.2s";
    let (output, text) = faults(&["--plan", plan, "--sabotage", "repeat", "--seed", "5"]);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("doubled (1): subscriber"), "{text}");
    assert!(text.contains("--seed 5 --plan 'redis=durable outage=reject lease=2s"), "{text}");
    assert!(
        text.contains("shorter: `redis=durable outage=reject lease=2s kill_subscriptions@0.2s`"),
        "{text}"
    );
}

#[test]
fn a_plan_that_is_kept_passes_and_one_that_is_none_says_what_there_is() {
    let (output, text) = faults(&["--plan", "kill_subscriptions@0.3s kill_subscriptions@0.6s"]);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("| durable | 1 | 1 | 0 |") && text.contains("All promises were kept."),
        "{text}"
    );
    let output = command(&["--gatecast", "/bin/false", "--plan", "no_such@1s"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("there are kill_node, stop_node"));
    let output = command(&["--gatecast", "/bin/false", "--random"]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("NOT RUN: "));
}

#[test]
fn ctrl_c_ends_every_process_and_removes_every_file() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = command(&["--fault", "none", "--fault", "redis_pause", "--gatecast"])
        .arg(gatecast())
        .env("TMPDIR", directory.path())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut progress = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(progress.next().unwrap().unwrap().contains("none: kept"));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert!(progress.any(|line| line.unwrap().contains("interrupted")));
    assert!(!child.wait().unwrap().success());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    let mentions = |entry: std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(directory.path().to_str().unwrap())
    };
    assert!(!std::fs::read_dir("/proc").unwrap().any(|entry| mentions(entry.unwrap())));
}
