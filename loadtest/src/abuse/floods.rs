//! The floods. Each attacker is a thread with a bounded number of sockets, at 127.0.0.66, and ends
//! when it is told to.
//!
//! Rule: whatever the node does to an attacker's sockets, it opens others and continues.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::Result;

use crate::shared::frame::{Opcode, encode_client};
use crate::shared::gateway;
use crate::shared::socket::Socket;
use crate::shared::target::Target;
use crate::shared::wait::Stop;

const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);
/// Longest wait for a connection, a read or a write of an attacker.
const TIMEOUT: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_millis(10);
/// More than `limits.max_http_connections`, and no more than one address may have.
const MANY: usize = 1_100;
const KIB: usize = 1 << 10;

/// A flood.
pub(super) struct Flood {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) attackers: usize,
    pub(super) needs_redis: bool,
    /// Whether the node must refuse, close or slow something.
    pub(super) is_counted: bool,
    pub(super) attack: fn(&Target, usize, &Stop),
}

const fn flood(
    name: &'static str,
    what: &'static str,
    attackers: usize,
    attack: fn(&Target, usize, &Stop),
) -> Flood {
    Flood { name, what, attackers, needs_redis: false, is_counted: true, attack }
}

pub(super) const FLOODS: &[Flood] = &[
    Flood {
        is_counted: false,
        ..flood("deep", "JSON nested 6,000 deep, as fast as it is taken", 2, deep)
    },
    flood(
        "unread_answers",
        "1,100 connections that pipeline requests and never read",
        1,
        unread_answers,
    ),
    flood(
        "half_heads",
        "1,100 connections with half a request each, opened again when closed",
        1,
        half_heads,
    ),
    Flood {
        is_counted: false,
        ..flood("pool", "1,100 kept-alive connections of management clients", 1, pool)
    },
    Flood {
        needs_redis: true,
        ..flood("names", "messages to ever new group names, with 64 MiB in Redis", 2, names)
    },
    flood(
        "slow_readers",
        "16 clients that take 60 kB/s of what is sent to them at full speed",
        2,
        slow_readers,
    ),
    flood("pongs", "32 clients that ping and never read the pongs", 2, pongs),
    flood("partial", "700 messages of 128 KiB that are never finished", 1, partial),
    flood("handshakes", "openings as fast as one address can", 4, handshakes),
    Flood {
        is_counted: false,
        ..flood("sender", "one sender of 32 KiB messages to 64 members at full speed", 1, sender)
    },
];

/// Opens TCP.
fn dial(target: &Target) -> Result<TcpStream> {
    let stream = target.connect(Some(ATTACKER), TIMEOUT)?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// Opens a WebSocket.
fn open(target: &Target) -> Result<TcpStream> {
    Ok(Socket::over(dial(target)?, target)?.into_stream())
}

/// Sends the first bytes on a connection.
fn begin(stream: Result<TcpStream>, bytes: &[u8]) -> Result<TcpStream> {
    let mut stream = stream?;
    stream.write_all(bytes)?;
    Ok(stream)
}

/// Sends bytes, and reads what has arrived.
fn send(stream: &mut TcpStream, bytes: &[u8]) -> Result<()> {
    stream.write_all(bytes)?;
    drain(stream)
}

fn text(payload: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    encode_client(&mut wire, Opcode::Text, payload.as_bytes());
    wire
}

/// Keeps `count` sockets, and acts on each in turn; one that fails is replaced in the next round.
fn each_of(
    count: usize,
    stop: &Stop,
    open: impl Fn() -> Result<TcpStream>,
    mut act: impl FnMut(&mut TcpStream, usize) -> Result<()>,
) {
    let mut sockets: Vec<Option<TcpStream>> = (0..count).map(|_| None).collect();
    while stop.sleep(Duration::ZERO) {
        for (nth, slot) in sockets.iter_mut().enumerate() {
            if stop.is_set() {
                return;
            }
            if slot.is_none() {
                *slot = open().ok();
            }
            if let Some(stream) = slot
                && act(stream, nth).is_err()
            {
                *slot = None;
            }
        }
        if !stop.sleep(PAUSE) {
            return;
        }
    }
}

/// Reads what has arrived, without waiting.
fn drain(stream: &mut TcpStream) -> Result<()> {
    let mut scratch = [0; 64 * KIB];
    stream.set_nonblocking(true)?;
    let ended = loop {
        match stream.read(&mut scratch) {
            Ok(0) => break Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    stream.set_nonblocking(false)?;
    Ok(ended?)
}

fn deep(target: &Target, _: usize, stop: &Stop) {
    let message = text(&format!(r#"{{"action":{}{}}}"#, "[".repeat(6_000), "]".repeat(6_000)));
    each_of(4, stop, || open(target), |stream, _| send(stream, &message));
}

fn unread_answers(target: &Target, _: usize, stop: &Stop) {
    let requests = format!("GET /x HTTP/1.1\r\nHost: {}\r\n\r\n", target.authority).repeat(200);
    let dial = || dial(target);
    each_of(MANY, stop, dial, |stream, _| {
        stream.set_nonblocking(true)?;
        match stream.write(requests.as_bytes()) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error.into()),
            _ => Ok(()),
        }
    });
}

fn half_heads(target: &Target, _: usize, stop: &Stop) {
    let half = format!("GET /beta HTTP/1.1\r\nHost: {}\r\n", target.authority);
    each_of(MANY, stop, || begin(dial(target), half.as_bytes()), |stream, _| drain(stream));
}

fn pool(target: &Target, _: usize, stop: &Stop) {
    let request = format!("GET /beta/@counts HTTP/1.1\r\nHost: {}\r\n\r\n", target.authority);
    each_of(MANY, stop, || dial(target), |stream, _| send(stream, request.as_bytes()));
}

fn names(target: &Target, nth: usize, stop: &Stop) {
    let mut number = 0_u64;
    let data = "x".repeat(4 * KIB);
    let open = || open(target);
    each_of(4, stop, open, |stream, _| {
        for _ in 0..16 {
            number += 1;
            let group = format!("g-{nth}-{number}");
            stream.write_all(&text(&gateway::send_to_group(&group, &data)))?;
        }
        drain(stream)
    });
}

/// Half of the attackers read slowly what the other half sends them.
fn slow_readers(target: &Target, nth: usize, stop: &Stop) {
    if nth.is_multiple_of(2) {
        let message = text(&gateway::send_to_group("slow", &"x".repeat(16 * KIB)));
        return each_of(4, stop, || open(target), |stream, _| send(stream, &message));
    }
    let join = text(&gateway::join("slow"));
    let member = || begin(open(target), &join);
    // 600 bytes from each about every 10 ms.
    let mut bytes = [0; 600];
    each_of(16, stop, member, |stream, _| match stream.read(&mut bytes) {
        Ok(0) => Err(std::io::Error::from(ErrorKind::UnexpectedEof).into()),
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error.into()),
        _ => Ok(()),
    });
}

fn pongs(target: &Target, _: usize, stop: &Stop) {
    let mut pings = Vec::new();
    for _ in 0..1_000 {
        encode_client(&mut pings, Opcode::Ping, b"");
    }
    each_of(16, stop, || open(target), |stream, _| Ok(stream.write_all(&pings)?));
}

fn partial(target: &Target, _: usize, stop: &Stop) {
    let mut parts = Vec::new();
    // The first frame of a message, which is not its last, and two of its continuations.
    for first in [0x01, 0x00, 0x00] {
        let start = parts.len();
        encode_client(&mut parts, Opcode::Text, &[b'x'; 32 * KIB]);
        if let Some(byte) = parts.get_mut(start) {
            *byte = first;
        }
    }
    each_of(700, stop, || begin(open(target), &parts), |stream, _| drain(stream));
}

fn handshakes(target: &Target, _: usize, stop: &Stop) {
    // Bounded, so that 127.0.0.66 does not run out of its 28,000 ports.
    for _ in 0..6_000 {
        if stop.is_set() {
            return;
        }
        drop(open(target));
    }
}

fn sender(target: &Target, _: usize, stop: &Stop) {
    let message = text(&gateway::send_to_group("loud", &"x".repeat(30 * KIB)));
    let join = text(&gateway::join("loud"));
    let member = || begin(open(target), &join);
    each_of(64, stop, member, |stream, nth| match nth {
        0 => send(stream, &message),
        _ => drain(stream),
    });
}
