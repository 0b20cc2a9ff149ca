//! What a shard does when the node's memory runs out: it closes those of its connections that hold
//! it.
//!
//! Rule: first those that are closing already, then those whose bytes have made no progress for a
//! while, then the largest. It stops as soon as enough has been given back, and never touches a
//! connection that holds less than [`SPARED`].

use std::cmp::Reverse;
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, sockopt_impl};
use socket2::SockRef;

use super::Shard;
use crate::limits::budget::Kind;
use crate::ops::metrics::{DropReason, Farewell};
use crate::protocol::close::Close;
use crate::shard::connection::{Connection, Reading};

/// A connection that holds less, in bytes, is not closed for it.
const SPARED: usize = 16 << 10;

/// What is left of a frame that is half on the wire may wait for the client for so long that the
/// close frame can follow it, in bytes.
const LEFT: usize = 16 << 10;

/// Where nothing could be given back, how long to wait before the next look at all connections.
const PAUSE: Duration = Duration::from_millis(50);

/// Most that a turn may add before the budget is asked, in bytes.
const PORTION: usize = 64 << 20;

/// `asm-generic/socket.h`
const SO_MEMINFO: i32 = 55;

sockopt_impl!(
    /// `SO_MEMINFO` of socket(7): what the kernel holds for a socket, in bytes, by `SK_MEMINFO_…`
    /// of `linux/sock_diag.h`.
    MemInfo, GetOnly, libc::SOL_SOCKET, SO_MEMINFO, [u32; 9]
);

impl Shard {
    /// Asks the budget within a turn, if that has added much: nothing waits for the end of the turn
    /// that need not.
    pub(super) fn settle_memory(&mut self) {
        let portion = (self.parts.hub.budget().limit() / 64).min(PORTION);
        if self.tally.grown() > portion {
            self.flush();
            self.tally.report_memory();
            self.relieve();
        }
    }

    /// Closes connections that hold memory, as long as it runs out.
    pub(super) fn relieve(&mut self) {
        let budget = self.parts.hub.budget();
        if !budget.is_exhausted() || self.relief_at.is_some_and(|at| self.now < at) {
            return;
        }
        let sockets = budget.gauge(Kind::Sockets, 0);
        let count_sockets = sockets.get() > budget.limit() / 8;
        let held = |(key, connection): (usize, &Connection)| {
            let kernel = if count_sockets { in_kernel(connection) } else { 0 };
            let waits = connection.outbox.bytes() + connection.answers.load().all;
            let bytes = waits + connection.partial_bytes as usize + kernel;
            let rank = (!connection.is_open(), connection.is_stalled(self.now), bytes);
            (bytes >= SPARED).then_some((Reverse(rank), key, kernel))
        };
        let mut holders: Vec<_> = self.connections.iter().filter_map(held).collect();
        holders.sort_unstable();
        self.relief_at = holders.is_empty().then(|| self.now + PAUSE);
        for (_, key, kernel) in holders {
            self.give_up(key);
            self.tally.report_memory();
            sockets.sub(kernel.min(sockets.get()));
            self.parts.hub.budget().renew();
            if !self.parts.hub.budget().is_exhausted() {
                return;
            }
        }
    }

    /// Closes a connection and frees what it holds: at once, if it is closing already, or too much
    /// is left of a frame that has begun.
    fn give_up(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let is_open = connection.is_open();
        let before = connection.outbox.load();
        let dropped = connection.outbox.discard_unsent();
        if connection.decoder.is_mid_message() {
            connection.decoder.skip(&[]);
        }
        let left = connection.outbox.bytes();
        self.tally.unqueued(before - connection.outbox.load());
        self.count_partial(key);
        self.forget_answers(key);
        self.parts.telemetry.metrics.count_dropped(DropReason::Memory, dropped);
        if is_open {
            self.close(key, Close::Memory);
        }
        if !is_open || left > LEFT {
            self.reset(key);
        }
    }

    /// Ends a connection by a reset, so that the kernel gives back at once what it holds.
    fn reset(&mut self, key: usize) {
        let stream = self.connections.get(key).and_then(|connection| connection.stream.as_ref());
        if let Some(stream) = stream
            && let Err(error) = SockRef::from(stream).set_linger(Some(Duration::ZERO))
        {
            tracing::debug!(%error, "a connection is not reset");
        }
        self.cut(key, Farewell::Stuck);
    }
}

/// Returns what the kernel holds of a connection, in bytes; not asked for one that is read from and
/// takes what it is sent.
fn in_kernel(connection: &Connection) -> usize {
    let is_idle = connection.reading == Reading::OnEvent && connection.outbox.is_empty();
    let asked =
        connection.stream.as_ref().filter(|_| !is_idle).map(|stream| getsockopt(stream, MemInfo));
    // To be read, reserved, to be sent, and not looked at yet.
    let Some(Ok([received, _, _, _, reserved, queued, _, backlog, _])) = asked else { return 0 };
    [received, reserved, queued, backlog].into_iter().map(|bytes| bytes as usize).sum()
}
