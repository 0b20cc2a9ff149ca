//! What every Redis of several servers is started with, and has in common.

use std::path::Path;
use std::time::Duration;

use crate::shared::ports::Ports;
use crate::shared::wait::Interrupt;

/// What a Redis is started with.
pub(crate) struct Ground<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) ports: &'a mut Ports,
    pub(crate) interrupt: &'a Interrupt,
    pub(crate) nodes: usize,
    /// Whether a single Redis has a clock that can be stepped.
    pub(crate) clock: bool,
}

/// A Redis is made in this time, its parts having found each other.
pub(crate) const FORM_LIMIT: Duration = Duration::from_secs(30);

/// Joins addresses as the URLs of Sentinel and Cluster have them.
pub(crate) fn addresses(ports: impl Iterator<Item = u16>) -> String {
    ports.map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
}
