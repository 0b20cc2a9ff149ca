//! Asks a running node how it is, for health checks in an image that holds no other program.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// For connecting, for asking, and for the answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Longest answer that is read; the pages asked for have some dozen bytes.
const ANSWER_BYTES: u64 = 4096;

/// Returns whether a page of the admin port is answered with 200, and what it says. An address
/// without a host, as nodes listen on, is this host's.
///
/// # Errors
/// Where nobody answers, or not in HTTP.
pub(crate) fn ask(admin: SocketAddr, page: &str) -> io::Result<(bool, String)> {
    let mut stream = TcpStream::connect_timeout(&admin, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let question = format!("GET /{page} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES).read_to_string(&mut answer)?;
    let no_http = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(no_http)?;
    let status = head.strip_prefix("HTTP/1.1 ").ok_or_else(no_http)?;
    Ok((status.starts_with("200 "), body.to_owned()))
}
