//! Where to connect, and from which addresses.
//!
//! Rule: only loopback addresses are dialled unless the user allows others.

use std::net::{self, IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

/// Source addresses used in turn. One address has about 28,000 ports, and a churn of 15,000 leaves
/// as many in `TIME_WAIT` for a minute: 64 addresses give 1.8 million.
const SOURCES: usize = 64;

/// A server under test.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) addr: SocketAddr,
    /// Host and port as given, for the `Host` header.
    pub(crate) authority: String,
    pub(crate) path: String,
}

impl Target {
    /// Reads `ws://host:port/path`; refuses other schemes, and addresses other than loopback unless
    /// they are allowed.
    pub(crate) fn parse(url: &str, allow_remote: bool) -> Result<Self> {
        let rest = url
            .strip_prefix("ws://")
            .with_context(|| format!("`{url}` does not begin with ws://"))?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let has_port =
            authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let dialled = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        let addr = dialled
            .to_socket_addrs()
            .with_context(|| format!("cannot resolve `{dialled}`"))?
            .next()
            .with_context(|| format!("`{dialled}` has no address"))?;
        ensure!(
            allow_remote || addr.ip().is_loopback(),
            "{addr} is not a loopback address; --allow-remote is needed to load another machine"
        );
        Ok(Self { addr, authority: authority.to_owned(), path: format!("/{path}") })
    }

    /// Returns the target of a port of this machine.
    pub(crate) fn local(port: u16) -> Self {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self { addr, authority: addr.to_string(), path: "/".to_owned() }
    }

    pub(crate) fn with_path(self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self }
    }

    /// Begins to connect, from the address whose turn it is; the socket is writable once it is
    /// connected.
    pub(crate) fn dial(&self, nth: usize) -> Result<TcpStream> {
        let socket = self.socket(self.source(nth))?;
        socket.set_nonblocking(true)?;
        match socket.connect(&self.addr.into()) {
            Err(err)
                if err.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) =>
            {
                Err(err).with_context(|| format!("cannot connect to {}", self.addr))
            }
            Ok(()) | Err(_) => Ok(TcpStream::from_std(socket.into())),
        }
    }

    /// Connects, from a source address if one is given; waits up to `limit`, as reads do
    /// afterwards.
    pub(crate) fn connect(
        &self,
        source: Option<Ipv4Addr>,
        limit: Duration,
    ) -> Result<net::TcpStream> {
        let socket = self.socket(source)?;
        socket.connect_timeout(&self.addr.into(), limit)?;
        socket.set_read_timeout(Some(limit))?;
        Ok(socket.into())
    }

    fn socket(&self, source: Option<Ipv4Addr>) -> Result<Socket> {
        let socket = Socket::new(Domain::for_address(self.addr), Type::STREAM, Some(Protocol::TCP))
            .context("cannot open a socket")?;
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = source {
            let source = SocketAddr::from((source, 0));
            socket.bind(&source.into()).with_context(|| format!("cannot bind {source}"))?;
        }
        Ok(socket)
    }

    /// Only in 127.0.0.0/8 do all addresses belong to this machine.
    fn source(&self, nth: usize) -> Option<Ipv4Addr> {
        let IpAddr::V4(ip) = self.addr.ip() else {
            return None;
        };
        let last = u8::try_from(nth % SOURCES + 1).ok()?;
        ip.is_loopback().then_some(Ipv4Addr::new(127, 0, 0, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_a_target_unless_allowed() {
        assert!(Target::parse("ws://127.0.0.1:8080/beta", false).is_ok());
        assert!(Target::parse("ws://[::1]:8080", false).is_ok());
        assert!(Target::parse("ws://192.0.2.1:8080/", false).is_err());
        assert!(Target::parse("ws://192.0.2.1:8080/", true).is_ok());
        assert!(Target::parse("wss://127.0.0.1/", false).is_err());
    }

    #[test]
    fn the_path_keeps_its_query() {
        let target = Target::parse("ws://127.0.0.1/beta?x=1/2", false).unwrap();
        assert_eq!((target.path.as_str(), target.addr.port()), ("/beta?x=1/2", 80));
    }
}
