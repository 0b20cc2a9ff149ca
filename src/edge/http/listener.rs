//! A bound port. What it accepts is in no event loop yet, since most sockets belong into that of a
//! shard.

use std::io;
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use nix::sys::socket::setsockopt;
use nix::{setsockopt_impl, sockopt_impl};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Connections that the kernel may hold for us, within its own bound (`net.core.somaxconn`).
const BACKLOG: i32 = 4_096;

/// How long the kernel keeps a connection to itself on which nothing has come, in seconds: clients
/// speak first, and are accepted when they do.
const SILENCE: usize = 1;

sockopt_impl!(
    /// `TCP_DEFER_ACCEPT` of tcp(7), in seconds.
    DeferAccept, SetOnly, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, usize
);

/// Most bytes that the kernel holds from a client that is not read from, half of them payload, and
/// the least that is set; without it up to 6 MB (`net.ipv4.tcp_rmem`) once a client has been fast.
/// A client gets half of it through in a round trip.
///
/// Half as many are the most that the kernel takes for a client and has not sent yet. What is under
/// way may be as much as the path needs; what a client does not take waits here, where it is
/// counted and bounded, not in up to 4 MB a socket there (`net.ipv4.tcp_wmem`).
const KERNEL_BYTES: (usize, usize) = (32 << 10, 128 << 10);

/// This many connections may have that in the kernel before it is as much as the memory budget.
const CROWD: usize = 2_048;

sockopt_impl!(
    /// `TCP_NOTSENT_LOWAT` of tcp(7), in bytes.
    NotSentLowat, SetOnly, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, usize
);

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Listener(AsyncFd<TcpListener>);

impl Listener {
    /// Binds a port; one that was closed a moment ago may be bound again. To be called within the
    /// runtime.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        // What is accepted has it too.
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, DeferAccept, &SILENCE)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from_std(socket.into());
        #[expect(
            deprecated,
            reason = "the new one is `unsafe`; a listener has its descriptor all its life"
        )]
        AsyncFd::with_interest(listener, Interest::READABLE).map(Self)
    }

    /// Bounds what the kernel holds for each connection that is accepted from now on, given the
    /// memory budget.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn bound_kernel(&self, budget: usize) -> io::Result<()> {
        let bytes = (budget / CROWD).clamp(KERNEL_BYTES.0, KERNEL_BYTES.1);
        let listener = self.0.get_ref();
        setsockopt(listener, NotSentLowat, &(bytes / 2))?;
        // The kernel doubles it.
        SockRef::from(listener).set_recv_buffer_size(bytes / 2)
    }

    /// Returns where it listens.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().local_addr()
    }

    /// Waits for a connection. *Cancel safe.*
    ///
    /// # Errors
    /// The kernel's: no descriptors left.
    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.async_io(Interest::READABLE, TcpListener::accept).await
    }
}
