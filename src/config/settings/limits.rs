//! Bounds on what clients may do and hold.

use std::time::Duration;

/// Bounds on what a client may do and hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    /// Most connections at a time; over it the handshake is answered 503.
    pub(crate) max_connections: usize,
    /// Most HTTP connections of a port whose request is not being served, most handshakes and most
    /// calls that are; over it the idle and the late give way, and the others wait.
    pub(crate) max_http_connections: usize,
    /// Most handshakes that are let in a second, with a burst of one second's; over it they are
    /// answered 503.
    pub(crate) handshake_rate: usize,
    /// What each address may have of the way in.
    pub(crate) per_address: PerAddress,
    /// Longest time for a request's head, a PROXY header before it included; for its body; and
    /// without any of its answer taken.
    pub(crate) handshake_timeout: Duration,
    /// Longest time between the requests of an HTTP connection.
    pub(crate) keep_alive_timeout: Duration,
    /// Longest payload of a frame from a client, in bytes.
    pub(crate) frame_bytes: usize,
    /// Longest message, in bytes.
    pub(crate) message_bytes: usize,
    /// Whether binary messages are taken.
    pub(crate) allow_binary: bool,
    /// Most messages and control frames a second from one connection, with a burst of one second's;
    /// whoever sends more is not read from meanwhile.
    pub(crate) message_rate: usize,
    /// Most bytes a second from one connection, with a burst of one second's and no more than half
    /// an outbox.
    pub(crate) receive_bytes_rate: usize,
    /// Most bytes a second from one connection, each counting once for every member on this node
    /// that it goes to, with a burst of one second's.
    pub(crate) fanout_bytes_rate: usize,
    /// Most groups a second that one connection may name which this node has not seen lately, with
    /// a burst of ten seconds' or of all that it may be in.
    pub(crate) new_channels_rate: usize,
    /// The same for all connections of one address, with a burst of four seconds'; `None` for no
    /// bound.
    pub(crate) new_channels_per_address: Option<usize>,
    /// Longest time without a message in either direction.
    pub(crate) idle_timeout: Duration,
    /// Longest life of a connection.
    pub(crate) max_lifetime: Duration,
    /// Time between pings, jittered by a tenth; `None` for none.
    pub(crate) ping_interval: Option<Duration>,
    /// Longest wait for anything from the client after a ping.
    pub(crate) pong_timeout: Duration,
    /// Most bytes waiting for a client.
    pub(crate) outbox_bytes: usize,
    /// Longest time that bytes may wait for a client without any progress.
    pub(crate) outbox_age: Duration,
    /// Longest wait for the client's close frame after ours, and for progress where it is owed
    /// nothing.
    pub(crate) close_timeout: Duration,
    /// Most calls of back ends under way for one connection; it is not read from meanwhile.
    pub(crate) calls_per_connection: usize,
    /// Most groups one connection may be in.
    pub(crate) groups_per_connection: usize,
    /// How long a message's idempotency key is remembered.
    pub(crate) idempotency_age: Duration,
    /// Most bytes that clients and callers together may make the node hold; 0 for half of what the
    /// process may use.
    pub(crate) memory_budget: usize,
}

/// What may be on its way to a client unseen, in kernels and proxies, in outboxes.
const UNDER_WAY_MAX: f64 = 4.0;

impl Limits {
    /// Returns the time that a client has for bytes on their way: `outbox_age` for each
    /// `outbox_bytes`, by default 35 kB/s, and four times that at most.
    pub(crate) fn lag(&self, bytes: u64) -> Duration {
        self.outbox_age.mul_f64((bytes as f64 / self.outbox_bytes as f64).min(UNDER_WAY_MAX))
    }
}

/// Bounds on what one address may have; over them its handshakes are answered 429.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct PerAddress {
    /// Most handshakes a second, with a burst of four seconds'; `None` for no bound.
    pub(crate) handshake_rate: Option<usize>,
    /// Most connections at a time; `None` for no bound.
    pub(crate) connections: Option<usize>,
    /// Whether there are no bounds only because nobody has asked for them.
    pub(crate) is_unset: bool,
}
