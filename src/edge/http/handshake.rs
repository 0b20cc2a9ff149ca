//! A handshake that has come in one piece, as clients send them, is read without the HTTP server,
//! which would take as much time as everything else that an opening does.
//!
//! Rule: nothing is decided here, and nothing is taken that is not a handshake: a head is looked at
//! where it lies, and the HTTP server finds whatever else it is untouched.

use std::io::{self, Read as _, Write as _};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, Uri, Version};
use mio::net::TcpStream;

use super::answer::text_of;
use super::{manage, request};
use crate::model::handshake::Handshake;

/// Longest head that is looked at, in bytes.
pub(super) const LOOK_BYTES: usize = 2 << 10;

/// Most header fields of one; browsers send some fifteen.
pub(super) const LOOK_FIELDS: usize = 48;

/// The head of a request that asks for a change of protocol.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) handshake: Handshake,
    /// In bytes, as it lies in the socket.
    pub(super) length: usize,
}

/// Returns the handshake that has come; `None` if that is something else, or is not whole.
pub(super) fn look(stream: &TcpStream) -> Option<Head> {
    let mut buffer = [0; LOOK_BYTES];
    let count = stream.peek(&mut buffer).ok()?;
    look_at(buffer.get(..count)?)
}

/// Returns the handshake that bytes begin with.
pub(super) fn look_at(input: &[u8]) -> Option<Head> {
    let mut fields = [httparse::EMPTY_HEADER; LOOK_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = parsed.parse(input).ok()? else { return None };
    if (parsed.method, parsed.version) != (Some("GET"), Some(1)) {
        return None;
    }
    // One piece of memory for all values.
    let values = Bytes::copy_from_slice(input.get(..length)?);
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for field in parsed.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let from = field.value.as_ptr().addr() - input.as_ptr().addr();
        let value = values.slice(from..from + field.value.len());
        headers.append(name, HeaderValue::from_maybe_shared(value).ok()?);
    }
    let has_more =
        [CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT].iter().any(|name| headers.contains_key(name));
    if has_more || !headers.contains_key(UPGRADE) {
        return None;
    }
    let mut uri: Uri = parsed.path?.parse().ok()?;
    request::normalize(&mut uri, Version::HTTP_11, &mut headers).ok()?;
    if manage::is_path(uri.path()) {
        return None;
    }
    let (path, query) = (uri.path().to_owned(), uri.query().map(str::to_owned));
    Some(Head { handshake: Handshake { path, query, headers }, length })
}

/// Takes a head of `length` bytes out of a socket, and answers it.
///
/// # Errors
/// The client went away.
pub(super) fn answer(
    mut stream: &TcpStream,
    length: usize,
    answer: &Response<Vec<u8>>,
) -> io::Result<()> {
    let mut buffer = [0; LOOK_BYTES];
    stream.read_exact(buffer.get_mut(..length).unwrap_or_default())?;
    let text = text_of(answer)?;
    // A socket that has sent nothing takes as little as this at once.
    let written = stream.write(&text)?;
    if written == text.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HANDSHAKE: &str = "GET /beta?token=a%20b HTTP/1.1\r\nHost: gate\r\nUpgrade: websocket\r\n\
        X-Forwarded-For: 192.0.2.1\r\nConnection: keep-alive, Upgrade\r\nX-Forwarded-For: 192.0.2.2\r\n\r\n";

    #[test]
    fn a_handshake_is_read_up_to_its_end() {
        for behind in ["", "\x01\u{2}", "GET / HTTP/1.1\r\n\r\n"] {
            let head = look_at(format!("{HANDSHAKE}{behind}").as_bytes()).expect("a handshake");
            let Head { handshake: Handshake { path, query, headers }, length } = head;
            assert_eq!((path.as_str(), length), ("/beta", HANDSHAKE.len()));
            assert_eq!(query.as_deref(), Some("token=a%20b"));
            assert_eq!(headers["connection"], "keep-alive, Upgrade");
            let hops: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
            assert_eq!(hops, ["192.0.2.1", "192.0.2.2"]);
        }
    }

    #[test]
    fn half_a_handshake_is_left() {
        for end in 0..HANDSHAKE.len() {
            assert!(look_at(&HANDSHAKE.as_bytes()[..end]).is_none(), "{end}");
        }
    }

    #[test]
    fn what_is_no_plain_handshake_is_left() {
        let many = "X: y\r\n".repeat(LOOK_FIELDS) + "Upgrade: ";
        for (part, other) in [
            ("GET", "POST"),
            ("GET", "get"),
            ("HTTP/1.1", "HTTP/1.0"),
            ("Upgrade: ", "X-Upgrade: "),
            ("Host: gate", "Content-Length: 0"),
            ("Host: gate", "Transfer-Encoding: chunked"),
            ("Host: ", "Ho st: "),
            ("gate", "ga\0te"),
            ("Host: gate", "X: y"),
            ("Host: gate", "Host: gate\r\nHost: gate"),
            ("Host: gate", "Expect: 100-continue"),
            ("/beta", "beta"),
            ("token=", "token=<"),
            ("Upgrade: ", &many),
        ] {
            assert!(look_at(HANDSHAKE.replacen(part, other, 1).as_bytes()).is_none(), "{other}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_comes_is_too_much(input in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(look_at(&input).is_none());
            let from = HANDSHAKE.find("Host").expect("a header");
            let mut mixed = HANDSHAKE.as_bytes().to_vec();
            mixed.splice(from..from, input);
            look_at(&mixed);
        }
    }
}
