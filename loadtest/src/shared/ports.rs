//! Ports for servers that are to come back on the same one.
//!
//! Rule: below those that the kernel gives to outgoing connections, lest one of these take the port while the server is away.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Result, bail};

use crate::shared::random::Random;

const LOWEST: u16 = 12_000;
/// The kernel's own begin at 32,768.
const COUNT: usize = 20_000;
const ATTEMPTS: usize = 100;

/// Where a port is marked as taken. Servers listen at 127.0.0.1, so it is in nobody's way.
const MARK: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 254);

/// Draws ports that are free, and keeps them from all others that draw, in this process or another.
#[derive(Debug)]
pub(crate) struct Ports {
    random: Random,
    marks: Vec<TcpListener>,
}

impl Ports {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed ^ u64::from(std::process::id())), marks: Vec::new() }
    }

    /// Returns a port that nobody has.
    ///
    /// # Errors
    /// None was found.
    pub(crate) fn draw(&mut self) -> Result<u16> {
        for _ in 0..ATTEMPTS {
            let port = LOWEST + u16::try_from(self.random.below(COUNT))?;
            // The mark comes first: who tries a port that another has drawn would have it for a moment.
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
    fn nobody_draws_what_another_has() {
        let (mut one, mut same) = (Ports::new(7), Ports::new(7));
        let drawn: HashSet<u16> =
            (0..50).flat_map(|_| [one.draw().expect("a port"), same.draw().expect("a port")]).collect();
        assert_eq!(drawn.len(), 100);
    }

    #[test]
    fn what_a_server_has_is_not_drawn() {
        let mut ports = Ports::new(8);
        let port = Ports::new(8).draw().expect("a port");
        let _server = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("it is free");
        assert!((0..50).all(|_| ports.draw().expect("a port") != port));
    }
}
