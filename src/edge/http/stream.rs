//! What a conversation is held over: TCP, or TLS over it.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::shard::socket::NewSocket;

/// See the [module documentation](self).
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// Returns the socket for who goes on with it, and what was read of it.
    ///
    /// # Errors
    /// The kernel's, or nobody can go on with it.
    fn into_socket(self, early: Bytes) -> io::Result<NewSocket>;
}

impl Stream for TcpStream {
    fn into_socket(self, early: Bytes) -> io::Result<NewSocket> {
        let stream = self.into_std()?;
        Ok(NewSocket { stream: mio::net::TcpStream::from_std(stream), early })
    }
}

impl Stream for TlsStream<TcpStream> {
    /// Shards know no TLS, and no route of a port with TLS makes a WebSocket.
    fn into_socket(self, _: Bytes) -> io::Result<NewSocket> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
