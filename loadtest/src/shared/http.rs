//! HTTP/1.1 as a client speaks it: requests, answers, and one request on a connection of its own.
//!
//! Rule: encoding and decoding do no I/O and copy nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Longer than any answer; a server that sends more is broken.
const MAX_ANSWER: usize = 1 << 20;

/// What a server answers; `Text` borrows from the bytes that were read, or owns them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer<Text> {
    pub(crate) status: u16,
    /// The header lines.
    pub(crate) head: Text,
    pub(crate) body: Text,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// There was no connection: the server has seen nothing.
    NotSent,
    /// The request was sent; the server may have seen it or not.
    NoAnswer,
}

impl<Text: AsRef<str>> Answer<Text> {
    /// Returns the value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(self.head.as_ref(), name)
    }
}

/// Returns the value of a header, given the header lines.
pub(crate) fn header<'a>(lines: &'a str, name: &str) -> Option<&'a str> {
    let mut headers = lines.lines().filter_map(|line| line.split_once(':'));
    headers.find(|(each, _)| each.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// Appends a request; each of the further headers ends with CRLF.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    (method, path): (&str, &str),
    authority: &str,
    (headers, body): (&str, &str),
) {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {authority}\r\n{headers}Content-Length: {length}\r\n\r\n"
    );
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(body.as_bytes());
}

/// Splits the head at the start of `bytes` into its first line and the header lines, and returns
/// its length; nothing while it is incomplete.
pub(crate) fn split_head(bytes: &[u8]) -> Result<Option<(&str, &str, usize)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head =
        std::str::from_utf8(bytes.get(..end).unwrap_or_default()).context("answer is not text")?;
    let (first, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    Ok(Some((first, headers, end + 4)))
}

/// Reads the answer at the start of `bytes`; returns it and its length, or nothing while it is
/// incomplete.
pub(crate) fn decode(bytes: &[u8]) -> Result<Option<(Answer<&str>, usize)>> {
    let Some((answer, length)) = parse(bytes)? else { return Ok(None) };
    let closes =
        answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    ensure!(!closes, "server answered {} and hangs up", answer.status);
    Ok(Some((answer, length.context("answer has no content-length")?)))
}

/// Sends a GET to a port of this machine, and waits for the answer.
pub(crate) fn get(port: u16, path: &str, limit: Duration) -> Result<Answer<String>, Failure> {
    request(port, ("GET", path), ("", ""), limit)
}

/// Sends a POST to a port of this machine, and waits for the answer; each of the further headers
/// ends with CRLF.
pub(crate) fn post(
    port: u16,
    path: &str,
    content: (&str, &str),
    limit: Duration,
) -> Result<Answer<String>, Failure> {
    request(port, ("POST", path), content, limit)
}

fn request(
    port: u16,
    line: (&str, &str),
    (headers, body): (&str, &str),
    limit: Duration,
) -> Result<Answer<String>, Failure> {
    let until = Instant::now() + limit;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, limit).map_err(|_| Failure::NotSent)?;
    let mut wire = Vec::new();
    encode(
        &mut wire,
        line,
        &address.to_string(),
        (&format!("Connection: close\r\n{headers}"), body),
    );
    stream.write_all(&wire).map_err(|_| Failure::NoAnswer)?;
    wire.clear();
    let mut scratch = [0; 16 << 10];
    while wire.len() <= MAX_ANSWER {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left)).map_err(|_| Failure::NoAnswer)?;
        match stream.read(&mut scratch) {
            Ok(0) => break,
            Ok(n) => wire.extend_from_slice(scratch.get(..n).unwrap_or_default()),
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            // The whole answer may have come before a reset.
            Err(_) => break,
        }
    }
    match parse(&wire) {
        Ok(Some((Answer { status, head, body }, _))) => {
            Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
        }
        Ok(None) | Err(_) => Err(Failure::NoAnswer),
    }
}

/// Reads an answer and its length, which is not known where no header tells it: the body is then
/// the rest of `bytes`.
fn parse(bytes: &[u8]) -> Result<Option<(Answer<&str>, Option<usize>)>> {
    ensure!(bytes.len() <= MAX_ANSWER, "answer is longer than {MAX_ANSWER} bytes");
    let Some((first, head, start)) = split_head(bytes)? else { return Ok(None) };
    let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
    let mut answer = Answer {
        status: status.with_context(|| format!("`{first}` is not a status line"))?,
        head,
        body: "",
    };
    let length = match answer.header("content-length") {
        Some(length) => Some(length.parse().context("content-length is not a number")?),
        None if answer.status == 204 => Some(0),
        None => None,
    };
    let end = length.map_or(bytes.len(), |length: usize| start.saturating_add(length));
    let Some(body) = bytes.get(start..end) else { return Ok(None) };
    answer.body = std::str::from_utf8(body).context("answer is not text")?;
    Ok(Some((answer, length.map(|_| end))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_end_where_their_length_says() {
        let wire =
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 410 Gone\r\ncontent-length:0\r\nX-Amzn-ErrorType: GoneException\r\n\r\n";
        let (answer, used) = decode(wire).unwrap().unwrap();
        let next = &wire[used..];
        assert_eq!((answer.status, answer.body, &next[..12]), (200, "{}", &b"HTTP/1.1 410"[..]));
        let (gone, length) = decode(next).unwrap().unwrap();
        assert_eq!((gone.status, gone.body, length), (410, "", next.len()));
        assert_eq!(gone.header("x-amzn-errortype"), Some("GoneException"));
        for cut in 0..used {
            assert_eq!(decode(&wire[..cut]).unwrap(), None, "{cut}");
        }
        let (none, length) = decode(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap().unwrap();
        assert_eq!((none.status, length), (204, 27));
    }

    #[test]
    fn answers_without_a_known_end_are_refused() {
        for wire in [
            &b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nConnection: close\r\n\r\n",
            b"HTTP/1.1 OK\r\ncontent-length: 0\r\n\r\n",
            b"SSH-2.0 hello\r\n\r\n",
        ] {
            assert!(decode(wire).is_err(), "{}", String::from_utf8_lossy(wire));
        }
    }

    #[test]
    fn a_post_says_how_long_it_is() {
        let mut wire = Vec::new();
        encode(
            &mut wire,
            ("POST", "/beta/@connections/a="),
            "127.0.0.1:1",
            ("X-A: b\r\n", "héllo"),
        );
        let text = String::from_utf8(wire).unwrap();
        assert!(
            text.starts_with(
                "POST /beta/@connections/a= HTTP/1.1\r\nHost: 127.0.0.1:1\r\nX-A: b\r\n"
            )
        );
        assert!(text.ends_with("Content-Length: 6\r\n\r\nhéllo"));
    }

    #[test]
    fn a_port_where_nobody_listens_has_seen_nothing() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        assert_eq!(get(port, "/", Duration::from_secs(1)).unwrap_err(), Failure::NotSent);
    }
}
