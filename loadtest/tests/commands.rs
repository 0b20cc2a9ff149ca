//! The commands of connections, latency and posts, against a real node.
#![expect(clippy::unwrap_used, reason = "a test may fail at once")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// A node without Redis; killed when dropped.
struct Node {
    child: Child,
    url: String,
}

impl Node {
    fn start(settings: &[(&str, &str)]) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_loadtest")).with_file_name("gatecast");
        assert!(program.exists(), "{} is missing: `cargo build` first", program.display());
        let mut child = Command::new(program)
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .env("RUST_LOG", "warn")
            .env("GATECAST_LIMITS_HANDSHAKE_RATE", "1000000")
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let url = lines.find_map(|line| Some(line.get(line.find("ws://")?..)?.split(' ').next()?.to_owned()));
        Self { url: url.unwrap(), child }
    }

    fn load(&self, args: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .args(args.split(' '))
            .args(["--url", &self.url, "--pid", &self.child.id().to_string()])
            .output()
            .unwrap()
    }

    /// Runs a command that must succeed, and returns its table.
    fn table(&self, args: &str) -> String {
        let output = self.load(args);
        let table = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{table}{}", String::from_utf8_lossy(&output.stderr));
        assert!(table.contains("- no faults"), "{table}");
        table
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn has_all(table: &str, parts: &[&str]) {
    for part in parts {
        assert!(table.contains(part), "`{part}` is missing in {table}");
    }
}

#[test]
fn a_storm_opens_all_in_each_round_at_once_and_at_a_rate() {
    let node = Node::start(&[]);
    let table = node.table("storm --connections 300 --rounds 2");
    has_all(&table, &["storm of 300, as fast as possible", "connections opened, /s", "latency, p99, µs"]);
    let table = node.table("storm --connections 60 --rounds 1 --rate 300 --processes 2");
    has_all(&table, &["60 connections of 2 processes", "server CPU per opening"]);
}

#[test]
fn a_churn_shows_each_opening_and_idle_its_groups() {
    let node = Node::start(&[]);
    let table = node.table("churn --connections 100 --openings 3 --processes 2");
    has_all(&table, &["opening 2, B", "opening 3, B", "last to first", "kernel slab per connection"]);
    let table = node.table("idle --connections 120 --groups 5 --processes 3");
    has_all(&table, &["each in 5 groups", "RSS per connection, B"]);
}

#[test]
fn latency_at_a_rate_is_the_same_work_for_one_process_and_for_three() {
    let node = Node::start(&[]);
    for (processes, said) in [("1", "30 connections,"), ("3", "30 connections of 3 processes")] {
        let args =
            format!("latency --connections 30 --rate 200 --seconds 1 --rounds 1 --processes {processes}");
        let table = node.table(&args);
        has_all(&table, &[said, "latency, p99.9", "due to last receiver, p99", "client late by, max"]);
    }
}

#[test]
fn a_flood_and_posts_arrive() {
    let node = Node::start(&[]);
    let table = node.table("flood --connections 50 --messages 500 --rounds 1");
    has_all(&table, &["flood, window 32", "deliveries, /s"]);
    let table = node.table("post --connections 20 --posts 500 --rounds 1 --clients 4");
    has_all(&table, &["posts, same node, 4 clients", "server CPU per post", "post to socket, p99"]);
}

#[test]
fn what_a_server_refuses_fails_the_command() {
    let node = Node::start(&[("GATECAST_LIMITS_MAX_CONNECTIONS", "10")]);
    for args in ["storm --connections 40 --rounds 1", "storm --connections 40 --rounds 1 --processes 2"] {
        let output = node.load(args);
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("503"), "{said}");
    }
}

#[test]
fn posts_that_are_refused_fail_the_command() {
    let node =
        Node::start(&[("GATECAST_ACCESS_KEY_ID", "AKIAEXAMPLE"), ("GATECAST_SECRET_ACCESS_KEY", "secret")]);
    let output = node.load("post --connections 2 --posts 20 --rounds 1");
    assert!(!output.status.success());
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("posts answered with 403"), "{table}");
}
