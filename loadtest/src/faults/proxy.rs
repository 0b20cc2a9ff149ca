//! A TCP proxy between one node and Redis, which cuts connections or holds back one direction.
//!
//! Bytes that are held are passed on afterwards, in order: a stall, not a loss.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::wait::Stop;

/// How often a thread looks whether the mode has changed.
const LOOK: Duration = Duration::from_millis(10);
/// Connections at a time; a node has fewer than twenty.
const MAX_CONNECTIONS: usize = 256;

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
}

/// A running proxy; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    mode: Arc<AtomicU8>,
    stop: Stop,
}

/// One direction of one connection.
struct Pump {
    from: TcpStream,
    to: TcpStream,
    /// The mode in which this direction is held.
    held_in: Mode,
    mode: Arc<AtomicU8>,
    stop: Stop,
}

impl Proxy {
    /// Listens, and passes everything on to `target`, a port of this machine.
    ///
    /// # Errors
    /// No port.
    pub(crate) fn start(target: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        listener.set_nonblocking(true)?;
        let (mode, stop) = (Arc::new(AtomicU8::new(Mode::Pass as u8)), Stop::default());
        let (its_mode, its_stop) = (Arc::clone(&mode), stop.clone());
        thread::spawn(move || accept(&listener, target, &its_mode, &its_stop));
        Ok(Self { port, mode, stop })
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::Release);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

fn accept(listener: &TcpListener, target: u16, mode: &Arc<AtomicU8>, stop: &Stop) {
    // Every pump holds a clone, which tells how many there are.
    let places = Arc::new(());
    while stop.sleep(LOOK) {
        while let Ok((node, _)) = listener.accept() {
            let is_cut = mode.load(Ordering::Acquire) == Mode::Cut as u8;
            if is_cut || Arc::strong_count(&places) > 2 * MAX_CONNECTIONS {
                continue;
            }
            let Ok(pumps) = connect(&node, target, mode, stop) else { continue };
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

fn connect(node: &TcpStream, target: u16, mode: &Arc<AtomicU8>, stop: &Stop) -> std::io::Result<[Pump; 2]> {
    let redis = TcpStream::connect(("127.0.0.1", target))?;
    for stream in [node, &redis] {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK))?;
    }
    let pump = |from: &TcpStream, to: &TcpStream, held_in| {
        let (from, to) = (from.try_clone()?, to.try_clone()?);
        std::io::Result::Ok(Pump { from, to, held_in, mode: Arc::clone(mode), stop: stop.clone() })
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
                Err(err) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(_) => break,
            };
            while self.mode.load(Ordering::Acquire) == self.held_in as u8 && self.stop.sleep(LOOK) {}
            if self.is_over() || self.to.write_all(scratch.get(..n).unwrap_or_default()).is_err() {
                break;
            }
        }
        // The other direction ends with this one; that it may have ended already is no matter.
        drop(self.from.shutdown(Shutdown::Both));
        drop(self.to.shutdown(Shutdown::Both));
    }

    fn is_over(&self) -> bool {
        self.stop.is_set() || self.mode.load(Ordering::Acquire) == Mode::Cut as u8
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
}
