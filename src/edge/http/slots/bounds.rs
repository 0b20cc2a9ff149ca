//! What bounds the connections of a port, and where that comes from.

use std::time::Duration;

use crate::config::Snapshots;

/// Bounds of a port's connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Places of each of the three kinds.
    pub(crate) places: usize,
    /// For a head, as long for a body and for the turn of a request, and for the beginning of an
    /// answer.
    pub(crate) head: Duration,
    /// Between requests.
    pub(crate) keep_alive: Duration,
}

/// Where the bounds of a connection come from, when it is accepted.
#[derive(Debug)]
pub(crate) enum BoundsSource {
    Fixed(Bounds),
    Latest(Snapshots),
}

impl BoundsSource {
    pub(super) fn bounds(&self) -> Bounds {
        match self {
            Self::Fixed(bounds) => *bounds,
            Self::Latest(snapshots) => {
                let limits = snapshots.latest().limits;
                Bounds {
                    places: limits.max_http_connections,
                    head: limits.handshake_timeout,
                    keep_alive: limits.keep_alive_timeout,
                }
            }
        }
    }
}
