//! Ports for servers that are to come back on the same one.
//!
//! Rule: below those that the kernel gives to outgoing connections, lest one of these take the port while the server is away.

use std::net::TcpListener;

use anyhow::{Context, Result};

use crate::random::Random;

const LOWEST: u16 = 12_000;
/// The kernel's own begin at 32,768.
const COUNT: usize = 20_000;
const ATTEMPTS: usize = 100;

/// Draws ports that are free.
#[derive(Debug)]
pub(crate) struct Ports(Random);

impl Ports {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Random::new(seed ^ u64::from(std::process::id())))
    }

    /// Returns a port that nobody has.
    ///
    /// # Errors
    /// None was found.
    pub(crate) fn draw(&mut self) -> Result<u16> {
        let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
        (0..ATTEMPTS)
            .filter_map(|_| u16::try_from(self.0.below(COUNT)).ok().map(|offset| LOWEST + offset))
            .find(free)
            .context("no free port found")
    }
}
