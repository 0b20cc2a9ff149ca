//! HTTP/1.1 as a client of the management API meets it: requests on connections that stay, answers with a known length.
//!
//! Rule: no I/O and no copies.

use anyhow::{Context, Result, ensure};

/// Longer than any answer to a post; a server that sends more is broken.
const MAX_ANSWER: usize = 1 << 20;

/// What a server said to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    /// Its `x-amzn-ErrorType`; empty without one.
    pub(crate) error: &'a str,
}

/// Appends a POST; each of the further headers has its line's end.
pub(crate) fn encode_post(out: &mut Vec<u8>, (authority, path): (&str, &str), (headers, body): (&str, &str)) {
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: {authority}\r\n{headers}Content-Length: {length}\r\n\r\n");
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(body.as_bytes());
}

/// Reads the answer at the head of `bytes`; returns it and its length, or nothing while it is incomplete.
///
/// # Errors
/// It is no answer whose end can be known beforehand, or the server will hang up after it.
pub(crate) fn decode(bytes: &[u8]) -> Result<Option<(Answer<'_>, usize)>> {
    ensure!(bytes.len() <= MAX_ANSWER, "answer is longer than {MAX_ANSWER} bytes");
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(bytes.get(..end).unwrap_or_default()).context("answer is not text")?;
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status: u16 = status.with_context(|| format!("`{first}` is no answer"))?;
    let mut error = "";
    let mut length = if status == 204 { Some(0) } else { None };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.parse().context("content-length is no number")?);
        }
        if name.eq_ignore_ascii_case("x-amzn-errortype") {
            error = value;
        }
        let is_last = name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close");
        ensure!(!is_last, "server answered {status} and hangs up");
    }
    let length: usize = length.context("answer has no content-length")?;
    let whole = end.saturating_add(4).saturating_add(length);
    Ok((bytes.len() >= whole).then_some((Answer { status, error }, whole)))
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
        assert_eq!((answer, &next[..12]), (Answer { status: 200, error: "" }, &b"HTTP/1.1 410"[..]));
        let gone = Answer { status: 410, error: "GoneException" };
        assert_eq!(decode(next).unwrap(), Some((gone, next.len())));
        for cut in 0..used {
            assert_eq!(decode(&wire[..cut]).unwrap(), None, "{cut}");
        }
        let none = Answer { status: 204, error: "" };
        assert_eq!(decode(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap(), Some((none, 27)));
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
        encode_post(&mut wire, ("127.0.0.1:1", "/beta/@connections/a="), ("X-A: b\r\n", "héllo"));
        let text = String::from_utf8(wire).unwrap();
        assert!(text.starts_with("POST /beta/@connections/a= HTTP/1.1\r\nHost: 127.0.0.1:1\r\nX-A: b\r\n"));
        assert!(text.ends_with("Content-Length: 6\r\n\r\nhéllo"));
    }
}
