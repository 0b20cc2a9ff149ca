//! Where a connection stands, and what is due.

use std::time::Instant;

use crate::ops::metrics::Farewell;
use crate::protocol::close::Close;

/// Where a connection stands with reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// The next readiness event tells when there is more.
    OnEvent,
    /// There is more; the shard will read in its next turn.
    Queued,
    /// There may be more; it is left in the kernel until the client has taken what waits for it.
    Held,
    /// There may be more; it is left in the kernel until then, since the client has sent faster
    /// than it may.
    Slowed { until: Instant },
}

/// What a timer leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    Ping,
    Close(Close),
    /// Give the client up.
    Cut(Farewell),
}
