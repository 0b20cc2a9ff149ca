//! The open loop against a server that stands still, and shares that are put together.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use super::*;
use crate::bench::fleet::Opening;
use crate::shared::envelope::Envelope;
use crate::shared::frame::{Opcode, encode_server};
use crate::shared::target::Target;

const STALL_AT: usize = 100;
const PAUSE: Duration = Duration::from_millis(400);
const BYTES: usize = 16;
/// Header, mask and payload of a message of ours.
const FRAME: usize = 2 + 4 + BYTES;

/// Answers the handshake, then sends each message back; stands still before one of them.
fn echo(mut socket: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let answer = "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    socket.write_all(answer.as_bytes()).unwrap();
    let mut frame = [0; FRAME];
    for nth in 0.. {
        if socket.read_exact(&mut frame).is_err() || frame[0] != 0x81 {
            return;
        }
        if nth == STALL_AT {
            let until = Instant::now() + PAUSE;
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                thread::park_timeout(left);
            }
        }
        let (mask, payload) = (&frame[2..6], &frame[6..]);
        let plain: Vec<u8> =
            payload.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]).collect();
        let mut wire = Vec::new();
        encode_server(&mut wire, Opcode::Text, &plain);
        if socket.write_all(&wire).is_err() {
            return;
        }
    }
}

fn plan(rate: Option<f64>) -> Plan {
    Plan {
        audience: Audience::Everybody,
        groups: 1,
        group_size: 1,
        senders: 1,
        messages: 400,
        bytes: BYTES,
        window: 1,
        rate,
        limit: Duration::from_secs(30),
    }
}

/// Runs 400 messages against a server of which only the 101st stands still.
fn against_a_stall(rate: Option<f64>) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Target::local(listener.local_addr().unwrap().port());
    let server = thread::spawn(move || echo(listener.accept().unwrap().0));
    let mut fleet = Fleet::open(&[target], 1, Opening::Handshake(Envelope::Plain)).unwrap();
    let this = Processes::new(&[std::process::id()]);
    let outcome = run(&mut fleet, &plan(rate), &this, |fleet, post| {
        fleet.send_text(post.sender, post.payload)
    })
    .unwrap();
    drop(fleet);
    server.join().unwrap();
    assert!(outcome.faults.is_empty(), "{:?}", outcome.faults);
    outcome
}

fn slower_than(histogram: &Histogram<u64>, limit: Duration) -> u64 {
    histogram.count_between(u64::try_from(limit.as_nanos()).unwrap(), u64::MAX)
}

#[test]
fn a_stall_is_charged_to_every_message_that_was_due_in_it() {
    let (open, closed) = (against_a_stall(Some(500.0)), against_a_stall(None));
    // 200 messages are due in the pause, and wait for what is left of it.
    let p99 = Duration::from_nanos(open.latency.value_at_quantile(0.99));
    assert!(p99 > PAUSE * 3 / 4, "{p99:?}");
    assert!(slower_than(&open.latency, PAUSE / 2) >= 80);
    // A closed loop waits with the server and shows one slow message of 400.
    assert!(slower_than(&closed.latency, PAUSE / 2) >= 1);
    assert!(
        slower_than(&open.latency, PAUSE / 2) > 10 * slower_than(&closed.latency, PAUSE / 2),
        "the closed loop was as slow"
    );
}

#[test]
fn an_open_loop_notes_each_message_and_its_own_lag() {
    let outcome = against_a_stall(Some(500.0));
    let OpenLoop { last, lag } = outcome.open_loop.unwrap();
    assert_eq!((last.len(), lag.len(), outcome.latency.len()), (400, 400, 400));
    assert!(last.iter().all(|nanos| *nanos > 0));
    assert!(last[STALL_AT] > u64::try_from((PAUSE / 2).as_nanos()).unwrap());
    // 399 periods of two milliseconds lie between the first and the last.
    assert!(outcome.spent.elapsed >= Duration::from_millis(798));
}

fn share(latencies: &[u64], last: &[u64], client: u64) -> Outcome {
    let mut latency = histogram::empty().unwrap();
    latencies.iter().for_each(|nanos| latency.saturating_record(*nanos));
    let millis = Duration::from_millis;
    Outcome {
        deliveries: latencies.len() as u64,
        spent: Spent {
            elapsed: millis(900 + client),
            server_cpu: millis(300),
            store_cpu: Duration::ZERO,
            client_cpu: millis(client),
            // The other share of 10 + 20 = 30 ms is no stranger.
            others_cpu: millis(5 + 30 - client),
        },
        latency,
        open_loop: Some(OpenLoop { last: last.to_vec(), lag: histogram::empty().unwrap() }),
        faults: vec![format!("fault of {client}")],
    }
}

#[test]
fn shares_make_one_outcome() {
    let mut all = share(&[1_000, 2_000], &[2_000, 0, 7], 10);
    all.merge(share(&[50_000], &[50_000, 9, 3], 20)).unwrap();
    assert_eq!((all.deliveries, all.latency.len(), all.latency.min()), (3, 3, 1_000));
    assert!(all.latency.max() >= 50_000);
    // The last receiver is that of all shares; a message that one has not seen has none.
    assert_eq!(all.open_loop.unwrap().last, [50_000, 0, 7]);
    let Spent { elapsed, server_cpu, client_cpu, others_cpu, .. } = all.spent;
    let millis = [elapsed, server_cpu, client_cpu, others_cpu].map(|time| time.as_millis());
    assert_eq!(millis, [920, 300, 30, 5]);
    assert_eq!(all.faults, ["fault of 10", "fault of 20"]);
}

#[test]
fn an_outcome_survives_the_way_from_a_worker() {
    let outcome = share(&[1_000, 3_600_000_000_000], &[5], 10);
    let back: Outcome = serde_json::from_str(&serde_json::to_string(&outcome).unwrap()).unwrap();
    assert_eq!((back.latency, back.deliveries), (outcome.latency, outcome.deliveries));
    assert_eq!(back.open_loop.unwrap().last, [5]);
}
