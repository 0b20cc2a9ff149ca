//! Ports for servers that may be restarted on the same port.
//!
//! Rule: they lie below those of outgoing connections, which could otherwise take the port while
//! the server is down.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Result, bail};

use crate::shared::random::Random;

const LOWEST: u16 = 12_000;
/// The kernel's own begin at 32,768.
const COUNT: usize = 20_000;
const ATTEMPTS: usize = 100;

/// The address at which a port is marked as taken; servers listen at 127.0.0.1.
const MARK: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 254);

/// Allocates free ports, and keeps them from every other process that allocates ports this way.
#[derive(Debug)]
pub(crate) struct Ports {
    random: Random,
    marks: Vec<TcpListener>,
}

impl Ports {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed ^ u64::from(std::process::id())), marks: Vec::new() }
    }

    /// Returns a free port.
    pub(crate) fn allocate(&mut self) -> Result<u16> {
        for _ in 0..ATTEMPTS {
            let port = LOWEST + u16::try_from(self.random.below(COUNT))?;
            // The mark comes first: trying a port that is allocated would occupy it for a moment.
            let Ok(mark) = TcpListener::bind((MARK, port)) else { continue };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                self.marks.push(mark);
                return Ok(port);
            }
        }
        bail!("no free port found")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_port_is_allocated_twice() {
        let (mut one, mut same) = (Ports::new(7), Ports::new(7));
        let allocated: HashSet<u16> = (0..50)
            .flat_map(|_| [one.allocate().expect("a port"), same.allocate().expect("a port")])
            .collect();
        assert_eq!(allocated.len(), 100);
    }

    #[test]
    fn a_port_with_a_server_is_not_allocated() {
        let mut ports = Ports::new(8);
        let port = Ports::new(8).allocate().expect("a port");
        let _server = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("it is free");
        assert!((0..50).all(|_| ports.allocate().expect("a port") != port));
    }
}
