//! The sockets of connections.

use bytes::Bytes;
use mio::net::TcpStream;

/// The socket of a connection whose handshake is done, on its way to its shard.
#[derive(Debug)]
pub(crate) struct NewSocket {
    /// Non-blocking, and in no event loop.
    pub(crate) stream: TcpStream,
    /// What the client sent right behind its handshake.
    pub(crate) early: Bytes,
}
