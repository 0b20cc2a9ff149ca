//! One HTTP request on a connection of its own, to this machine.
//!
//! Rule: a failure says whether the server can have seen the request.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Longest answer that is read.
const MAX_ANSWER: usize = 1 << 20;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Lines of the head, without the first.
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// There was no connection: the server has seen nothing.
    NotSent,
    /// The request was sent, and that is all there is to know.
    NoAnswer,
}

/// Sends a request to a port of this machine and reads the answer.
///
/// # Errors
/// See [`Failure`].
pub(crate) fn request(
    port: u16,
    (method, path): (&str, &str),
    body: &str,
    limit: Duration,
) -> Result<Answer, Failure> {
    request_with(port, (method, path), "", body, limit)
}

/// As [`request`], with further lines in the head, each with its end.
///
/// # Errors
/// See [`Failure`].
pub(crate) fn request_with(
    port: u16,
    (method, path): (&str, &str),
    headers: &str,
    body: &str,
    limit: Duration,
) -> Result<Answer, Failure> {
    let until = Instant::now() + limit;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, limit).map_err(|_| Failure::NotSent)?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).map_err(|_| Failure::NoAnswer)?;
    let mut wire = Vec::new();
    let mut scratch = [0; 16 << 10];
    loop {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left)).map_err(|_| Failure::NoAnswer)?;
        match stream.read(&mut scratch) {
            Ok(0) => break,
            Ok(n) => wire.extend_from_slice(scratch.get(..n).unwrap_or_default()),
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            // A whole answer may have come before a reset.
            Err(_) => break,
        }
        if wire.len() > MAX_ANSWER {
            break;
        }
    }
    parse(&wire).ok_or(Failure::NoAnswer)
}

/// Reads an answer; nothing if it did not come whole.
fn parse(wire: &[u8]) -> Option<Answer> {
    let text = std::str::from_utf8(wire).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let (first, head) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = first.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    if length.is_some_and(|length| body.len() < length) {
        return None;
    }
    Some(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_only_when_it_is_whole() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{\"offset\":7}";
        let answer = parse(whole).unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "{\"offset\":7}"));
        assert!(parse(&whole[..whole.len() - 1]).is_none());
        assert!(parse(b"HTTP/1.1 200 OK\r\n").is_none());
        assert!(parse(b"").is_none());
    }

    #[test]
    fn a_port_where_nobody_listens_has_seen_nothing() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let failure = request(port, ("GET", "/"), "", Duration::from_secs(1)).unwrap_err();
        assert_eq!(failure, Failure::NotSent);
    }
}
