//! What a relay must never do: lose a message, hand it over twice, or let one client hold up the
//! others.

#![expect(
    clippy::print_stderr,
    clippy::expect_used,
    clippy::panic,
    clippy::string_slice,
    clippy::indexing_slicing,
    clippy::float_cmp,
    reason = "tests stop at what they did not expect, and report what they measured"
)]

use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, Socket, Type};

use self::support::{Client, DEADLINE, Frame, Node, eventually, loadtest};

mod support;

fn message(data: &str) -> String {
    format!(r#"{{"action":"sendMessage","data":"{data}"}}"#)
}

/// Runs the load test against a node; fails if a message is lost, doubled, changed or out of order.
fn relay_is_faultless(node: &Node, arguments: &[&str]) {
    let output = loadtest()
        .args(arguments)
        .args(["--url", &format!("ws://{}/beta", node.public), "--pid", &node.pid().to_string()])
        .output()
        .expect("the load test runs");
    let report = String::from_utf8_lossy(&output.stdout);
    eprintln!("{report}");
    assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
    assert!(report.contains("no faults"), "{report}");
}

#[test]
fn client_is_a_member_as_soon_as_its_handshake_is_answered() {
    let node = Node::start(&[]);
    let mut sender = Client::connect(node.public);
    for round in 0..2_000 {
        let mut newcomer = Client::connect(node.public);
        let text = round.to_string();
        sender.send(&message(&text));
        assert_eq!(newcomer.receive_text(), text);
        assert_eq!(sender.receive_text(), text);
    }
}

#[test]
fn one_stopped_reader_is_closed_and_a_thousand_others_miss_nothing() {
    let node = Node::start(&[
        ("GATECAST_LIMITS_OUTBOX_BYTES", "262144"),
        ("GATECAST_LIMITS_CLOSE_TIMEOUT", "1s"),
    ]);
    // A small receive buffer, and never a read: the kernel takes some megabytes, then the outbox
    // fills.
    let stopped = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    stopped.set_recv_buffer_size(4_096).expect("an option");
    stopped.connect(&node.public.into()).expect("connected");
    let mut stopped = Client::upgrade(stopped.into());
    let load = [
        "fanout",
        "--connections",
        "1000",
        "--bytes",
        "16384",
        "--messages",
        "150",
        "--window",
        "4",
    ];
    relay_is_faultless(&node, &load);
    assert_eq!(node.metric("gatecast_slow_consumer_disconnects_total", "disconnect"), 1.0);
    assert!(node.metric("gatecast_messages_dropped_total", "slow_consumer") > 0.0);
    assert_eq!(node.metric("gatecast_connections_closed_total", "reason=\"slow_consumer\""), 1.0);
    // What it finds when it reads at last: whole messages from the first on without a gap, and then
    // the end.
    let mut count = 0;
    let end = loop {
        match stopped.receive() {
            Frame::Text(text) => {
                assert_eq!(text.len(), 16_384);
                count += 1;
            }
            end => break end,
        }
    };
    assert!(count > 0, "the kernel's buffers held some");
    assert!(
        matches!(end, Frame::End) || end == Frame::Close(1008, "slow consumer".to_owned()),
        "{end:?}"
    );
    eventually("its outbox is given back", || {
        (node.metric("gatecast_outbox_bytes", "") == 0.0).then_some(())
    });
}

#[test]
fn fifteen_thousand_connections_miss_nothing() {
    let node = Node::start(&[]);
    relay_is_faultless(
        &node,
        &["fanout", "--connections", "15000", "--messages", "20", "--window", "4"],
    );
    eventually("all are gone", || (node.metric("gatecast_connections", "") == 0.0).then_some(()));
    assert_eq!(node.metric("gatecast_connections_opened_total", ""), 15_000.0);
    assert_eq!(node.metric("gatecast_connections_closed_total", ""), 15_000.0);
    assert_eq!(node.metric("gatecast_outbox_bytes", ""), 0.0);
}

#[test]
fn groups_get_their_own_messages_and_no_others() {
    let node = Node::start(&[]);
    let load =
        ["groups", "--groups", "100", "--size", "10", "--messages", "3000", "--window", "32"];
    relay_is_faultless(&node, &load);
    eventually("no memberships are left", || {
        (node.metric("gatecast_group_members", "") + node.metric("gatecast_channels", "") == 0.0)
            .then_some(())
    });
}

#[test]
fn those_who_stay_miss_nothing_while_others_come_and_go() {
    let node = Node::start(&[]);
    let mut stayer = Client::connect(node.public);
    let mut sender = Client::connect(node.public);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for kind in 0..3 {
            let (node, done) = (&node, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let mut client = Client::connect(node.public);
                    client.send(r#"{"action":"joinGroup","group":"g"}"#);
                    match kind {
                        // Gone without a word, gone with one, gone after reading.
                        0 => {}
                        1 => client.send(r#"{"action":"disconnect"}"#),
                        _ => drop(client.receive()),
                    }
                }
            });
        }
        for number in 0..3_000 {
            sender.send(&message(&number.to_string()));
            assert_eq!(stayer.receive_text(), number.to_string());
            assert_eq!(sender.receive_text(), number.to_string());
        }
        done.store(true, Ordering::Relaxed);
    });
    drop((stayer, sender));
    eventually("every membership ends with its connection", || {
        (node.metric("gatecast_group_members", "") + node.metric("gatecast_connections", "") == 0.0)
            .then_some(())
    });
    let ends = node.metric("gatecast_connections_closed_total", "");
    assert_eq!(node.metric("gatecast_connections_opened_total", ""), ends);
}

#[test]
fn drain_hands_over_everything_before_the_close_frame() {
    let mut node = Node::start(&[("GATECAST_DRAIN_WINDOW", "500ms")]);
    let mut clients: Vec<_> = (0..50).map(|_| Client::connect(node.public)).collect();
    let mut sender = Client::connect(node.public);
    // Nobody reads: that has to fit into an outbox.
    for number in 0..90 {
        sender.send(&message(&format!("{number}{}", "x".repeat(10_000))));
    }
    // The sender's own copy says that the broker has accepted all.
    for _ in 0..90 {
        sender.receive_text();
    }
    node.terminate();
    for client in &mut clients {
        for number in 0..90 {
            assert!(client.receive_text().starts_with(&number.to_string()));
        }
        assert_eq!(client.receive(), Frame::Close(1001, "Going away".to_owned()));
    }
    drop((clients, sender));
    assert_eq!(node.wait().code(), Some(0));
}

#[test]
fn echo_that_nobody_reads_is_held_back_and_not_lost() {
    let echo = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/examples/echo.toml");
    let node =
        Node::start(&[("GATECAST_CONFIG", echo), ("GATECAST_LIMITS_OUTBOX_BYTES", "16777216")]);
    let mut client = Client::connect(node.public);
    let mut writer = Client::over(client.socket.try_clone().expect("a second handle"));
    let payload = "x".repeat(30_000);
    let count = 2_000;
    std::thread::scope(|scope| {
        scope.spawn(|| (0..count).for_each(|number| writer.send(&format!("{number}:{payload}"))));
        // Sixty megabytes are on their way before the first is read: far more than the outbox may
        // hold.
        eventually("the server stops reading", || {
            let before = node.metric("gatecast_received_bytes_total", "");
            std::thread::park_timeout(DEADLINE / 100);
            (before > 0.0 && node.metric("gatecast_received_bytes_total", "") == before)
                .then_some(())
        });
        for number in 0..count {
            let text = client.receive_text();
            assert!(text.starts_with(&format!("{number}:")), "in order, none missing");
        }
    });
    assert_eq!(node.metric("gatecast_slow_consumer_disconnects_total", ""), 0.0);
}
