//! A TCP proxy between one node and Redis, which cuts connections, holds one direction, or tears or
//! slows answers.
//!
//! Bytes that are held are passed on afterwards, in order: a stall, not a loss.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::shared::wait::Stop;

/// How often a thread checks whether the mode has changed.
const LOOK: Duration = Duration::from_millis(10);
/// Connections at a time; a node has fewer than twenty.
const MAX_CONNECTIONS: usize = 256;

/// The delay of answers when Redis is slow.
const SLOW: Duration = Duration::from_millis(700);

/// What the proxy does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mode {
    Pass,
    /// Ends all connections, and each new one at once.
    Cut,
    /// Holds what Redis sends.
    HoldAnswers,
    /// Holds what the node sends.
    HoldCommands,
    /// Passes half of what Redis sends next, then ends the connection.
    Tear,
    /// Delays answers.
    Slow,
}

/// The state that all connections of a proxy share.
#[derive(Clone, Debug, Default)]
struct Shared {
    mode: Arc<AtomicU8>,
    /// Connections made before the last change of this number are half open.
    strandings: Arc<AtomicU64>,
    stop: Stop,
}

/// A running proxy; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Shared,
}

/// One direction of one connection.
struct Pump {
    from: TcpStream,
    to: TcpStream,
    /// The mode in which this direction is held.
    held_in: Mode,
    /// The number of strandings when it began.
    born: u64,
    shared: Shared,
}

impl Proxy {
    /// Listens, and passes everything on to `target`, a port of this machine.
    pub(crate) fn start(target: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        listener.set_nonblocking(true)?;
        let this = Self { port, shared: Shared::default() };
        this.set(Mode::Pass);
        let shared = this.shared.clone();
        thread::spawn(move || accept(&listener, target, &shared));
        Ok(this)
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.shared.mode.store(mode as u8, Ordering::Release);
    }

    /// Makes the present connections half open: bytes are lost in both directions, and neither end
    /// is told.
    pub(crate) fn strand(&self) {
        self.shared.strandings.fetch_add(1, Ordering::AcqRel);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.stop();
    }
}

impl Shared {
    fn is(&self, mode: Mode) -> bool {
        self.mode.load(Ordering::Acquire) == mode as u8
    }
}

fn accept(listener: &TcpListener, target: u16, shared: &Shared) {
    // Every pump holds a clone, so that they can be counted.
    let places = Arc::new(());
    while shared.stop.sleep(LOOK) {
        while let Ok((node, _)) = listener.accept() {
            if shared.is(Mode::Cut) || Arc::strong_count(&places) > 2 * MAX_CONNECTIONS {
                continue;
            }
            let Ok(pumps) = connect(&node, target, shared) else { continue };
            for pump in pumps {
                let place = Arc::clone(&places);
                thread::spawn(move || {
                    pump.run();
                    drop(place);
                });
            }
        }
    }
}

fn connect(node: &TcpStream, target: u16, shared: &Shared) -> std::io::Result<[Pump; 2]> {
    let redis = TcpStream::connect(("127.0.0.1", target))?;
    for stream in [node, &redis] {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK))?;
    }
    let pump = |from: &TcpStream, to: &TcpStream, held_in| {
        let (from, to) = (from.try_clone()?, to.try_clone()?);
        let born = shared.strandings.load(Ordering::Acquire);
        std::io::Result::Ok(Pump { from, to, held_in, born, shared: shared.clone() })
    };
    Ok([pump(&redis, node, Mode::HoldAnswers)?, pump(node, &redis, Mode::HoldCommands)?])
}

impl Pump {
    fn run(mut self) {
        let mut scratch = vec![0; 64 << 10];
        while !self.is_over() {
            let n = match self.from.read(&mut scratch) {
                Ok(0) => break,
                Ok(n) => n,
                Err(err) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    continue;
                }
                Err(_) => break,
            };
            while self.shared.is(self.held_in) && self.shared.stop.sleep(LOOK) {}
            let is_answer = self.held_in == Mode::HoldAnswers;
            if is_answer && self.shared.is(Mode::Slow) {
                self.shared.stop.sleep(SLOW);
            }
            if self.is_over() {
                break;
            }
            if self.born != self.shared.strandings.load(Ordering::Acquire) {
                continue;
            }
            let is_torn = is_answer && self.shared.is(Mode::Tear);
            let bytes = scratch.get(..if is_torn { n / 2 } else { n }).unwrap_or_default();
            if self.to.write_all(bytes).is_err() || is_torn {
                break;
            }
        }
        // The other direction ends with this one, unless it has ended already.
        drop(self.from.shutdown(Shutdown::Both));
        drop(self.to.shutdown(Shutdown::Both));
    }

    fn is_over(&self) -> bool {
        self.shared.stop.is_set() || self.shared.is(Mode::Cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it gets, on one connection.
    fn echo() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut copy = stream.try_clone().unwrap();
            std::io::copy(&mut copy, &mut stream)
        });
        port
    }

    #[test]
    fn bytes_are_held_and_then_passed_on_and_a_cut_ends_the_connection() {
        for held in [Mode::HoldAnswers, Mode::HoldCommands] {
            let proxy = Proxy::start(echo()).unwrap();
            let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
            let mut answer = [0; 3];
            stream.write_all(b"one").unwrap();
            stream.read_exact(&mut answer).unwrap();
            proxy.set(held);
            stream.write_all(b"two").unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            assert!(stream.read_exact(&mut answer).is_err(), "{held:?}");
            proxy.set(Mode::Pass);
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"two");
            proxy.set(Mode::Cut);
            assert!(stream.read_exact(&mut answer).is_err());
        }
    }

    #[test]
    fn an_answer_is_torn_in_its_middle() {
        let proxy = Proxy::start(echo()).unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        proxy.set(Mode::Tear);
        stream.write_all(b"half").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"ha");
    }

    #[test]
    fn a_stranded_connection_stays_open_and_silent() {
        let proxy = Proxy::start(echo()).unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        let mut answer = [0; 3];
        stream.write_all(b"one").unwrap();
        stream.read_exact(&mut answer).unwrap();
        proxy.strand();
        stream.write_all(b"two").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let silence = stream.read(&mut answer).unwrap_err();
        assert!(matches!(silence.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
    }
}
