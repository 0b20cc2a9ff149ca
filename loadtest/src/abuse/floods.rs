//! The floods. Each attacker is a thread with a bounded number of sockets, at 127.0.0.66, and ends when it is told to.
//!
//! Rule: an attacker expects nothing. Whatever the node does to its sockets, it opens others and goes on.

use std::io::{Read as _, Write as _};
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
/// More than `limits.max_http_connections`, and of one address no more than it may have.
const MANY: usize = 1_100;
const KIB: usize = 1 << 10;

/// See the head of this file.
pub(super) struct Flood {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) attackers: usize,
    pub(super) needs_redis: bool,
    /// Whether the node has to refuse, close or slow something.
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
    Flood { is_counted: false, ..flood("deep", "JSON nested 6,000 deep, as fast as it is taken", 2, deep) },
    flood("unread_answers", "1,100 connections that pipeline requests and never read", 1, unread_answers),
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

/// Opens a WebSocket and joins a group.
fn open_in(group: &str, target: &Target) -> Result<TcpStream> {
    let mut stream = open(target)?;
    stream.write_all(&text(&gateway::join(group)))?;
    Ok(stream)
}

fn text(payload: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    encode_client(&mut wire, Opcode::Text, payload.as_bytes());
    wire
}

/// Keeps `count` sockets, and does something with each in turn; one that fails is opened anew in the next round.
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

/// Takes what has come, without waiting.
fn drain(stream: &mut TcpStream) -> Result<()> {
    let mut scratch = [0; 64 * KIB];
    stream.set_nonblocking(true)?;
    let ended = loop {
        match stream.read(&mut scratch) {
            Ok(0) => break Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    stream.set_nonblocking(false)?;
    Ok(ended?)
}

fn deep(target: &Target, _: usize, stop: &Stop) {
    let message = text(&format!(r#"{{"action":{}{}}}"#, "[".repeat(6_000), "]".repeat(6_000)));
    each_of(
        4,
        stop,
        || open(target),
        |stream, _| {
            stream.write_all(&message)?;
            drain(stream)
        },
    );
}

fn unread_answers(target: &Target, _: usize, stop: &Stop) {
    let requests = format!("GET /x HTTP/1.1\r\nHost: {}\r\n\r\n", target.authority).repeat(200);
    each_of(
        MANY,
        stop,
        || dial(target),
        |stream, _| {
            stream.set_nonblocking(true)?;
            match stream.write(requests.as_bytes()) {
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => Err(error.into()),
                _ => Ok(()),
            }
        },
    );
}

fn half_heads(target: &Target, _: usize, stop: &Stop) {
    let half = format!("GET /beta HTTP/1.1\r\nHost: {}\r\n", target.authority);
    let begin = || -> Result<TcpStream> {
        let mut stream = dial(target)?;
        stream.write_all(half.as_bytes())?;
        Ok(stream)
    };
    each_of(MANY, stop, begin, |stream, _| drain(stream));
}

fn pool(target: &Target, _: usize, stop: &Stop) {
    let request = format!("GET /beta/@counts HTTP/1.1\r\nHost: {}\r\n\r\n", target.authority);
    each_of(
        MANY,
        stop,
        || dial(target),
        |stream, _| {
            stream.write_all(request.as_bytes())?;
            drain(stream)
        },
    );
}

fn names(target: &Target, nth: usize, stop: &Stop) {
    let mut number = 0_u64;
    let data = "x".repeat(4 * KIB);
    each_of(
        4,
        stop,
        || open(target),
        |stream, _| {
            for _ in 0..16 {
                number += 1;
                let group = format!("g-{nth}-{number}");
                stream.write_all(&text(&gateway::send_to_group(&group, &data)))?;
            }
            drain(stream)
        },
    );
}

/// Half of the attackers read slowly what the other half sends them.
fn slow_readers(target: &Target, nth: usize, stop: &Stop) {
    if nth.is_multiple_of(2) {
        let message = text(&gateway::send_to_group("slow", &"x".repeat(16 * KIB)));
        return each_of(
            4,
            stop,
            || open(target),
            |stream, _| {
                stream.write_all(&message)?;
                drain(stream)
            },
        );
    }
    // 600 bytes from each about every 10 ms.
    let mut bytes = [0; 600];
    each_of(
        16,
        stop,
        || open_in("slow", target),
        |stream, _| match stream.read(&mut bytes) {
            Ok(0) => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => Err(error.into()),
            _ => Ok(()),
        },
    );
}

fn pongs(target: &Target, _: usize, stop: &Stop) {
    let mut pings = Vec::new();
    for _ in 0..1_000 {
        encode_client(&mut pings, Opcode::Ping, b"");
    }
    each_of(16, stop, || open(target), |stream, _| Ok(stream.write_all(&pings)?));
}

fn partial(target: &Target, _: usize, stop: &Stop) {
    let mut whole = Vec::new();
    encode_client(&mut whole, Opcode::Text, &[b'x'; 32 * KIB]);
    // Not the last frame of its message.
    if let Some(first) = whole.first_mut() {
        *first &= 0x7f;
    }
    let mut more = whole.clone();
    if let Some(first) = more.first_mut() {
        *first = 0;
    }
    let begin = || -> Result<TcpStream> {
        let mut stream = open(target)?;
        stream.write_all(&whole)?;
        for _ in 0..2 {
            stream.write_all(&more)?;
        }
        Ok(stream)
    };
    each_of(700, stop, begin, |stream, _| drain(stream));
}

fn handshakes(target: &Target, _: usize, stop: &Stop) {
    // Bounded, lest the machine runs out of ports: 127.0.0.66 has 28,000.
    for _ in 0..6_000 {
        if stop.is_set() {
            return;
        }
        drop(open(target));
    }
}

fn sender(target: &Target, _: usize, stop: &Stop) {
    let message = text(&gateway::send_to_group("loud", &"x".repeat(30 * KIB)));
    each_of(
        64,
        stop,
        || open_in("loud", target),
        |stream, nth| {
            if nth == 0 {
                stream.write_all(&message)?;
            }
            drain(stream)
        },
    );
}
