//! Work of the hot path to count instructions of; in no build that is shipped (the feature
//! `bench`).
//!
//! Rule: all is the real thing, the sockets included, except that these take whatever is sent. Only
//! what [`counted`] runs is counted, so neither the setting up nor the first round, in which
//! buffers grow, is.

use std::hint::black_box;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, anyhow, ensure};
use bytes::Bytes;
use mio::Events;

use super::{EventLoop, Parts, Shard};
use crate::cluster::broker::memory::MemoryBroker;
use crate::config::{Config, Snapshot, Snapshots, Sources};
use crate::limits::budget::Budget;
use crate::limits::ticket::Ticket;
use crate::limits::ticket::fake::ticket;
use crate::model::broker::{Channel, Delivery};
use crate::model::call;
use crate::model::id::NodeTag;
use crate::ops::telemetry::Telemetry;
use crate::protocol::codec::{Opcode, encode};
use crate::shard::hub::Hub;
use crate::shard::inbox::Event;
use crate::shard::socket::NewSocket;

/// Receivers of a message.
const MEMBERS: usize = 1_000;

/// Bytes of a message.
const BYTES: usize = 128;

/// No timer fires, and no message needs more than the built-in routes.
/// No sender is slowed here, however fast it is.
const CONFIG: &str = "[limits]\nping_interval = \"off\"\nmessage_rate = 100_000_000\n\
                      receive_bytes_rate = 1_099_511_627_776\nfanout_bytes_rate = 1_099_511_627_776\n";

/// Does `work` for a start, and then `times` times, counted: frames encoded, messages routed,
/// hundreds of bytes of a message made to be much work, or messages delivered to one member, of
/// which a round has a thousand.
///
/// # Errors
/// There is no such work, or it did not do what it should.
pub fn run(work: &str, times: usize) -> anyhow::Result<()> {
    match work {
        "encode" => encode_frames(times),
        "route" => Bench::new(1)?.route(times),
        "values" => Bench::new(1)?.refuse(&filled("{\"action\":[", "0,", "0]}"), times),
        "names" => Bench::new(1)?.refuse(&filled("{", "\"\\u0061ction\":0,", "\"\":0}"), times),
        "broadcast" => Bench::new(MEMBERS)?.deliver(&Channel::Broadcast, times / MEMBERS),
        "group" => Bench::new(MEMBERS)?.deliver(&Channel::Group("all".into()), times / MEMBERS),
        other => Err(anyhow!("no such work: {other}")),
    }
}

/// What is counted is what this calls; it is found by its name.
#[inline(never)]
fn counted(times: usize, work: &mut dyn FnMut()) {
    for _ in 0..times {
        work();
    }
}

/// The frame of a broadcast.
fn encode_frames(times: usize) -> anyhow::Result<()> {
    let payload = [b'x'; BYTES];
    let mut bytes = 0;
    let mut work = || bytes += black_box(encode(Opcode::Text, black_box(&payload))).len();
    work();
    counted(times, &mut work);
    ensure!(bytes == (times + 1) * (BYTES + 4), "{bytes} bytes");
    Ok(())
}

/// One shard and its connections.
struct Bench {
    shard: Shard,
    members: Vec<usize>,
    events: Events,
    work: Vec<Event>,
}

impl Bench {
    fn new(members: usize) -> anyhow::Result<Self> {
        let file = Some(("built-in".to_owned(), CONFIG.to_owned()));
        let config = Config::load(&Sources { file, ..Sources::default() })
            .map_err(|faults| anyhow!("{faults:?}"))?;
        let (tag, telemetry) = (NodeTag::random(), Telemetry::without_spans()?);
        let metrics = Arc::clone(&telemetry.metrics);
        let budget = Arc::new(Budget::new(1 << 32, 1));
        let event_loop = EventLoop::open(&budget, 0, 1)?;
        let hub = Arc::new(Hub::new(vec![event_loop.inbox()], Arc::clone(&metrics), budget));
        let (_, snapshots) = Snapshots::begin(Snapshot::new(&config, tag, &metrics));
        let broker = MemoryBroker::new(
            Arc::clone(&hub),
            telemetry.clone(),
            config.terms(),
            snapshots.clone(),
        );
        let (broker, backends) = (Arc::new(broker), Arc::new(call::fake::Nobody));
        let parts = Parts { hub, broker, backends, telemetry, names: Arc::default() };
        let shard = Shard::new(0, event_loop, parts, snapshots.latest());
        let mut bench =
            Self { shard, members: Vec::new(), events: Events::with_capacity(1), work: Vec::new() };
        let sink = sink()?;
        for _ in 0..members {
            bench.attach(ticket(tag, &metrics), &sink)?;
        }
        bench.turn();
        Ok(bench)
    }

    fn attach(&mut self, ticket: Ticket, sink: &UdpSocket) -> anyhow::Result<()> {
        let id = ticket.record().id;
        self.shard.expect(ticket, None);
        let stream = OwnedFd::from(sink.try_clone()?).into();
        self.shard.attach(&id, NewSocket { stream, early: Bytes::new() });
        self.members.push(self.shard.key_of(&id).context("not attached")?);
        Ok(())
    }

    fn turn(&mut self) {
        self.shard.turn(&self.events, &mut self.work);
    }

    /// A client's frame: decoded, unmasked, routed, made a publication.
    fn route(mut self, times: usize) -> anyhow::Result<()> {
        let text = format!(r#"{{"action":"sendMessage","data":"{}"}}"#, "x".repeat(BYTES));
        let masked = masked(text.as_bytes());
        let key = *self.members.first().context("no connection")?;
        let (mut input, mut published) = (masked.clone(), 0);
        let mut work = || {
            input.copy_from_slice(&masked);
            self.shard.on_bytes(key, &mut input);
            // As if they were handed to the broker.
            self.shard.publishing = 0;
            published += self
                .shard
                .publications
                .drain(..)
                .map(|publication| publication.frame.len())
                .sum::<usize>();
        };
        work();
        counted(times, &mut work);
        ensure!(published == (times + 1) * (BYTES + 4), "{published} bytes were published");
        Ok(())
    }

    /// A client's frame that costs the most and selects no route: decoded, unmasked, taken apart,
    /// answered.
    fn refuse(mut self, text: &str, times: usize) -> anyhow::Result<()> {
        let masked = masked(text.as_bytes());
        let key = *self.members.first().context("no connection")?;
        let mut input = masked.clone();
        let mut work = || {
            input.copy_from_slice(&masked);
            self.shard.on_bytes(key, &mut input);
            self.turn();
        };
        work();
        let rounds = times * 100 / text.len();
        counted(rounds, &mut work);
        let sent = self.shard.parts.telemetry.metrics.sent.get();
        ensure!(sent == (rounds + 1) as u64, "{sent} answers");
        Ok(())
    }

    /// One message at a time: from the inbox through outboxes to sockets.
    fn deliver(mut self, channel: &Channel, rounds: usize) -> anyhow::Result<()> {
        if let Channel::Group(_) = channel {
            for key in self.members.clone() {
                self.shard.join(key, channel);
            }
        }
        let frame = encode(Opcode::Text, &[b'x'; BYTES]);
        let mut work = || {
            let (channel, frame) = (channel.clone(), frame.clone());
            let delivery = Delivery { channel, frame, accepted_at: Instant::now(), trace: None };
            self.shard.inbox.push(Event::Deliver(delivery));
            self.turn();
        };
        work();
        counted(rounds, &mut work);
        let sent = self.shard.parts.telemetry.metrics.sent_bytes.get();
        ensure!(
            sent == ((rounds + 1) * self.members.len() * frame.len()) as u64,
            "{sent} bytes were sent"
        );
        Ok(())
    }
}

fn sink() -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(socket.local_addr()?)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A message of ten thousand bytes, most of them `piece` again and again.
fn filled(start: &str, piece: &str, end: &str) -> String {
    let pieces = (10_000 - start.len() - end.len()) / piece.len();
    let text = format!("{start}{}{end}", piece.repeat(pieces));
    format!("{text:10000}")
}

/// A text frame as a client sends it, of a payload whose length takes two bytes.
fn masked(payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
    let mut frame = encode(Opcode::Text, payload).to_vec();
    let (header, payload) = frame.split_at_mut(4);
    if let Some(length) = header.get_mut(1) {
        *length |= 0x80;
    }
    payload.iter_mut().zip(MASK.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    [&*header, &MASK, payload].concat()
}
