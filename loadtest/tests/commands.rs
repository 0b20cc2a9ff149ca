//! The commands of connections, latency, messages and posts, against a real node; messages also
//! against the peer that is compiled.
#![expect(clippy::unwrap_used, reason = "a test may fail at once")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// A key of the management API.
const KEY_ID: &str = "AKIAEXAMPLE";
const SECRET: &str = "known to both ends";

/// A node without Redis, or a peer; killed when dropped.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn node(settings: &[(&str, &str)]) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_loadtest")).with_file_name("gatecast");
        assert!(program.exists(), "{} is missing: `cargo build` first", program.display());
        let mut command = Command::new(program);
        command
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .env("RUST_LOG", "warn")
            .env("GATECAST_LIMITS_HANDSHAKE_RATE", "1000000")
            .envs(settings.iter().copied());
        Self::start(command, |line| {
            Some(line.get(line.find("ws://")?..)?.split(' ').next()?.to_owned())
        })
    }

    fn node_with_key() -> Self {
        Self::node(&[("GATECAST_ACCESS_KEY_ID", KEY_ID), ("GATECAST_SECRET_ACCESS_KEY", SECRET)])
    }

    /// Compiles the native uWebSockets server, which needs g++ and the sources.
    fn uwebsockets() -> Self {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("uws");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/build-uws");
        assert!(Command::new(script).arg(&program).status().unwrap().success());
        Self::start(Command::new(program), |line| {
            Some(format!("ws://127.0.0.1:{}/", line.strip_prefix("port:")?))
        })
    }

    fn start(mut command: Command, url_in: impl Fn(&str) -> Option<String>) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let url = lines.find_map(|line| url_in(&line));
        Self { url: url.unwrap(), child }
    }

    /// Prepares a command without keys.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
        command
            .args(args)
            .args(["--url", &self.url, "--pid", &self.child.id().to_string()])
            .env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SECRET_ACCESS_KEY");
        command
    }

    fn load(&self, args: &str) -> Output {
        self.command(&args.split(' ').collect::<Vec<_>>()).output().unwrap()
    }

    /// Runs a command that must succeed, and returns its table.
    fn table(&self, args: &str) -> String {
        good_table(self.load(args))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn good_table(output: Output) -> String {
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{table}{}", String::from_utf8_lossy(&output.stderr));
    assert!(table.contains("- no faults"), "{table}");
    table
}

fn has_all(table: &str, parts: &[&str]) {
    for part in parts {
        assert!(table.contains(part), "`{part}` is missing in {table}");
    }
}

#[test]
fn a_storm_opens_all_in_each_round_at_once_and_at_a_rate() {
    let node = Server::node(&[]);
    let table = node.table("storm --connections 300 --rounds 2");
    has_all(
        &table,
        &["storm of 300, as fast as possible", "connections opened, /s", "latency, p99, µs"],
    );
    let table = node.table("storm --connections 60 --rounds 1 --rate 300 --processes 2");
    has_all(&table, &["60 connections of 2 processes", "server CPU per opening"]);
}

#[test]
fn a_churn_shows_each_opening_and_idle_its_groups() {
    let node = Server::node(&[]);
    let table = node.table("churn --connections 100 --openings 3 --processes 2");
    has_all(
        &table,
        &["opening 2, B", "opening 3, B", "last to first", "kernel slab per connection"],
    );
    let table = node.table("idle --connections 120 --groups 5 --processes 3");
    has_all(&table, &["each in 5 groups", "RSS per connection, B"]);
}

#[test]
fn latency_at_a_rate_is_the_same_work_for_one_process_and_for_three() {
    let node = Server::node(&[]);
    for (processes, said) in [("1", "30 connections,"), ("3", "30 connections of 3 processes")] {
        let args = format!(
            "latency --connections 30 --rate 200 --seconds 1 --rounds 1 --processes {processes}"
        );
        let table = node.table(&args);
        has_all(
            &table,
            &[said, "latency, p99.9", "due to last receiver, p99", "client late by, max"],
        );
    }
}

#[test]
fn a_flood_and_posts_arrive() {
    let node = Server::node(&[]);
    let table = node.table("flood --connections 50 --messages 500 --rounds 1");
    has_all(&table, &["flood, window 32", "deliveries, /s"]);
    let table = node.table("post --connections 20 --posts 500 --rounds 1 --clients 4");
    has_all(&table, &["posts, same node, 4 clients", "server CPU per post", "post to socket, p99"]);
}

#[test]
fn what_a_server_refuses_fails_the_command() {
    let node = Server::node(&[("GATECAST_LIMITS_MAX_CONNECTIONS", "10")]);
    for args in
        ["storm --connections 40 --rounds 1", "storm --connections 40 --rounds 1 --processes 2"]
    {
        let output = node.load(args);
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("503"), "{said}");
    }
}

#[test]
fn posts_that_are_refused_fail_the_command() {
    let node = Server::node_with_key();
    let output = node.load("post --connections 2 --posts 20 --rounds 1");
    assert!(!output.status.success());
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(
        table.contains("posts answered with 403 MissingAuthenticationTokenException"),
        "{table}"
    );
}

#[test]
fn posts_are_signed_with_the_key_of_the_node_and_no_other() {
    let node = Server::node_with_key();
    let args = ["post", "--connections", "20", "--posts", "500", "--rounds", "1", "--clients", "4"];
    let keyed = |secret: &str| {
        let mut command = node.command(&args);
        command.env("AWS_ACCESS_KEY_ID", KEY_ID).env("AWS_SECRET_ACCESS_KEY", secret);
        command.output().unwrap()
    };
    let table = good_table(keyed(SECRET));
    has_all(
        &table,
        &["4 clients, signed,", "signed posts, same node, 4 clients", "server CPU per post"],
    );

    let output = keyed("another secret");
    assert!(!output.status.success());
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("500 posts answered with 403 InvalidSignatureException"), "{said}");
    assert!(!said.contains("another secret"), "{said}");

    let mut without_secret = node.command(&args);
    let output = without_secret.args(["--access-key-id", KEY_ID]).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("not in AWS_SECRET_ACCESS_KEY"), "{said}");
}

#[test]
fn the_native_uwebsockets_relays_to_all_and_to_groups_and_reads_any_json() {
    let peer = Server::uwebsockets();
    peer.table("flood --connections 50 --messages 500 --rounds 1");
    peer.table("groups --groups 10 --size 5 --messages 500 --rounds 1");
    let flood = |template: &str, seconds: &str| {
        let args = ["flood", "--connections", "10", "--messages", "50", "--rounds", "1"];
        let template = ["--message-template", template, "--max-seconds", seconds];
        peer.command(&args).args(template).output().unwrap()
    };
    good_table(flood(
        r#" { "\u00e9\ud83d\ude00" : "\n\t\\", "data":"old", "data":"{payload}" , "action":"\u0073endMessage"} "#,
        "60",
    ));
    // An escape changes the payload, if it is read as one.
    let changed = flood(r#"{"action":"sendMessage","data":"{payload}\u0041"}"#, "1");
    assert!(!changed.status.success());
    for broken in [
        r#"{"action":"sendMessage","data":"{payload}""#,
        r#"{"action":"sendMessage","data":"{payload}"} x"#,
        r#"{"action":"sendMessage","data":"{payload}","x":"\ud83d"}"#,
    ] {
        let output = flood(broken, "1");
        let table = String::from_utf8_lossy(&output.stdout);
        assert!(
            !output.status.success() && table.contains("closed with 1007"),
            "{broken}: {table}"
        );
    }
}
