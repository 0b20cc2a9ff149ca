//! What a WebSocket handshake has to be (RFC 6455 §4.2.1), and what is said where it is not.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use sha1::{Digest as _, Sha1};

use super::answer::error_reply;

/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Reads a key as RFC 6455 writes its own examples: the bits behind the last byte may be anything.
const KEY: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// What is wrong with a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandshakeError {
    Method,
    NoUpgrade,
    HttpVersion,
    WebSocketVersion,
    Twice,
    Key,
    Body,
}

/// Checks a handshake; returns the value of `Sec-WebSocket-Accept`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn accept(
    method: &Method,
    version: Version,
    headers: &HeaderMap,
) -> Result<HeaderValue, HandshakeError> {
    if *method != Method::GET && *method != Method::HEAD {
        return Err(HandshakeError::Method);
    }
    let upgrades =
        has_token(headers, &CONNECTION, "upgrade") && has_token(headers, &UPGRADE, "websocket");
    if *method == Method::HEAD || !upgrades {
        return Err(HandshakeError::NoUpgrade);
    }
    // RFC 9110 §7.8: from an older version an upgrade must not be taken.
    if version != Version::HTTP_11 {
        return Err(HandshakeError::HttpVersion);
    }
    if [SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION]
        .iter()
        .any(|name| headers.get_all(name).iter().count() > 1)
    {
        return Err(HandshakeError::Twice);
    }
    if headers.get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes) != Some(b"13") {
        return Err(HandshakeError::WebSocketVersion);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if KEY.decode(key).map(|nonce| nonce.len()) != Ok(16) {
        return Err(HandshakeError::Key);
    }
    if headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0")
    {
        return Err(HandshakeError::Body);
    }
    let accept = STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize());
    HeaderValue::from_str(&accept).map_err(|_| HandshakeError::Key)
}

impl HandshakeError {
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Method => "A WebSocket handshake is a GET request",
            Self::NoUpgrade => {
                "Connect with a WebSocket client, version 13; Connection: Upgrade and Upgrade: websocket are needed, \
                 and a proxy in front must speak HTTP/1.1 and pass both on"
            }
            Self::HttpVersion => {
                "A WebSocket handshake needs HTTP/1.1, and this came as HTTP/1.0; \
                 a proxy in front must be told to use HTTP/1.1"
            }
            Self::WebSocketVersion => {
                "Connect with a WebSocket client, version 13: Sec-WebSocket-Version must be 13"
            }
            Self::Twice => "Sec-WebSocket-Key and Sec-WebSocket-Version must each be there once",
            Self::Key => "Sec-WebSocket-Key must be 16 bytes in base64",
            Self::Body => {
                "A WebSocket handshake has no body; leave out Content-Length and Transfer-Encoding"
            }
        }
    }

    /// Answers a request that is no handshake, so that its client knows what to do.
    pub(super) fn answer(self) -> Response<Vec<u8>> {
        let (status, error_type) = match self {
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "BadRequestException"),
            Self::NoUpgrade | Self::WebSocketVersion => {
                (StatusCode::UPGRADE_REQUIRED, "UpgradeRequiredException")
            }
            Self::HttpVersion | Self::Twice | Self::Key | Self::Body => {
                (StatusCode::BAD_REQUEST, "BadRequestException")
            }
        };
        let mut answer = error_reply(status, error_type, self.message());
        let headers = answer.headers_mut();
        if status == StatusCode::UPGRADE_REQUIRED {
            // RFC 6455 §4.2.2, RFC 9110 §15.5.22.
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        if self == Self::Method {
            headers.insert(ALLOW, HeaderValue::from_static("GET"));
        }
        answer
    }
}

/// Returns whether a header that is a list has a token (RFC 9110 §5.6.1).
pub(super) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter();
    values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|one| one.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANDSHAKE: [(&str, &str); 4] = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    /// A handshake without a header, and with others instead.
    fn without(left_out: &str, others: &[(&str, &[u8])]) -> Result<HeaderValue, HandshakeError> {
        let mut headers = HeaderMap::new();
        let kept = HANDSHAKE.iter().filter(|(name, _)| *name != left_out);
        let kept = kept.map(|(name, value)| (*name, value.as_bytes()));
        for (name, value) in kept.chain(others.iter().copied()) {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            headers.append(name, HeaderValue::from_bytes(value).expect("a value"));
        }
        accept(&Method::GET, Version::HTTP_11, &headers)
    }

    #[test]
    fn the_examples_of_the_rfc_are_handshakes() {
        assert_eq!(without("", &[]).expect("a handshake"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        // RFC 6455 §4.1: 0x01 to 0x10, with bits behind the last byte.
        assert!(
            without("sec-websocket-key", &[("sec-websocket-key", b"AQIDBAUGBwgJCgsMDQ4PEC==")])
                .is_ok()
        );
    }

    #[test]
    fn lists_are_lists() {
        for value in [&b"keep-alive, UPGRADE"[..], b"upgrade", b",, upgrade ,", b"x, \xff, Upgrade"]
        {
            assert!(without("connection", &[("connection", value)]).is_ok());
        }
        let lines: &[(&str, &[u8])] = &[("connection", b"keep-alive"), ("connection", b"upgrade")];
        assert!(without("connection", lines).is_ok());
        let lines: &[(&str, &[u8])] = &[("upgrade", b"h2c"), ("upgrade", b"WebSocket")];
        assert!(without("upgrade", lines).is_ok());
        for value in [&b""[..], b"upgraded", b"keep-alive upgrade", b"up grade"] {
            assert_eq!(
                without("connection", &[("connection", value)]),
                Err(HandshakeError::NoUpgrade)
            );
        }
    }

    #[test]
    fn each_fault_is_named() {
        type Case = (&'static str, &'static [(&'static str, &'static [u8])], HandshakeError);
        let faults: &[Case] = &[
            ("upgrade", &[("upgrade", b"h2c")], HandshakeError::NoUpgrade),
            ("connection", &[], HandshakeError::NoUpgrade),
            ("sec-websocket-version", &[], HandshakeError::WebSocketVersion),
            (
                "sec-websocket-version",
                &[("sec-websocket-version", b"8")],
                HandshakeError::WebSocketVersion,
            ),
            (
                "sec-websocket-version",
                &[("sec-websocket-version", b"13, 8")],
                HandshakeError::WebSocketVersion,
            ),
            ("", &[("sec-websocket-version", b"13")], HandshakeError::Twice),
            ("", &[("sec-websocket-key", b"AQIDBAUGBwgJCgsMDQ4PEA==")], HandshakeError::Twice),
            ("sec-websocket-key", &[], HandshakeError::Key),
            (
                "sec-websocket-key",
                &[("sec-websocket-key", b"AQIDBAUGBwgJCgsMDQ4PEA")],
                HandshakeError::Key,
            ),
            (
                "sec-websocket-key",
                &[("sec-websocket-key", b"AQIDBAUGBwgJCgsMDQ4P")],
                HandshakeError::Key,
            ),
            (
                "sec-websocket-key",
                &[("sec-websocket-key", b"AQIDBAUGBwgJCgsMDQ4PEBE=")],
                HandshakeError::Key,
            ),
            ("", &[("content-length", b"1")], HandshakeError::Body),
            ("", &[("transfer-encoding", b"chunked")], HandshakeError::Body),
        ];
        for (left_out, others, fault) in faults {
            assert_eq!(without(left_out, others), Err(*fault), "{left_out} {others:?}");
        }
        assert!(without("", &[("content-length", b"0")]).is_ok());
        let mut headers = HeaderMap::new();
        assert_eq!(accept(&Method::POST, Version::HTTP_11, &headers), Err(HandshakeError::Method));
        assert_eq!(
            accept(&Method::HEAD, Version::HTTP_11, &headers),
            Err(HandshakeError::NoUpgrade)
        );
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        assert_eq!(
            accept(&Method::GET, Version::HTTP_10, &headers),
            Err(HandshakeError::HttpVersion)
        );
    }
}
