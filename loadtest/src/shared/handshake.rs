//! The opening handshake: builds the request, checks the answer.
//!
//! Rule: no I/O; a connection calls [`accept`] again when more bytes have come.

use anyhow::{Result, ensure};

use super::http;
use super::target::Target;

/// Key and answer are the example of RFC 6455 §1.3: a fixed pair lets the client check the answer
/// without SHA-1.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ANSWER: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const MAX_HEAD: usize = 16 << 10;

/// Returns the upgrade request for `target`.
pub(crate) fn request(target: &Target) -> String {
    let Target { authority, path, .. } = target;
    format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// Returns the length of a complete answer that accepts our key, or nothing while it is incomplete.
pub(crate) fn accept(bytes: &[u8]) -> Result<Option<usize>> {
    let Some((status, headers, length)) = http::split_head(bytes)? else {
        ensure!(bytes.len() <= MAX_HEAD, "answer to the handshake is longer than {MAX_HEAD} bytes");
        return Ok(None);
    };
    ensure!(status.starts_with("HTTP/1.1 101"), "server answered the handshake with `{status}`");
    let accepted = http::header(headers, "sec-websocket-accept");
    ensure!(accepted == Some(ANSWER), "server did not answer the handshake key");
    Ok(Some(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[u8] =
        b"HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

    #[test]
    fn an_accepting_answer_ends_where_frames_begin() {
        let mut wire = GOOD.to_vec();
        wire.extend_from_slice(&[0x81, 0x00]);
        assert_eq!(accept(&wire).unwrap(), Some(GOOD.len()));
        assert_eq!(accept(&GOOD[..GOOD.len() - 1]).unwrap(), None);
    }

    #[test]
    fn refusals_and_wrong_keys_are_errors() {
        assert!(accept(b"HTTP/1.1 403 Forbidden\r\n\r\n").is_err());
        assert!(
            accept(b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: nope\r\n\r\n")
                .is_err()
        );
        assert!(accept(&vec![b'x'; MAX_HEAD + 1]).is_err());
    }
}
