//! How a load balancer is told that another node may take a handshake.
//!
//! A node that is full or leaves answers 503, and so may a back end that `$connect` asks. A load
//! balancer that goes on to another node after each 503 would run `$connect` once more there. So it
//! may ask to be told in a way of its own that `$connect` has not run.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

/// In which it asks. Nobody further in sees it.
const BUSY: HeaderName = HeaderName::from_static("x-gatecast-busy");

/// See the [module documentation](self).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Elsewhere {
    /// It has not asked: 503.
    #[default]
    Unavailable,
    /// By a status that nothing else here has (`HAProxy`).
    TooEarly,
    /// By an end without an answer (nginx).
    Close,
}

/// Marks an answer that is not to be sent; the connection ends instead.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("another node may take this handshake")]
pub(super) struct Unsent;

impl Elsewhere {
    /// Takes what a load balancer asks for out of a handshake.
    pub(super) fn take(headers: &mut HeaderMap) -> Self {
        match headers.remove(BUSY).as_ref().map(HeaderValue::as_bytes) {
            Some(b"425") => Self::TooEarly,
            Some(b"close") => Self::Close,
            _ => Self::Unavailable,
        }
    }

    /// Answers a handshake that another node may take.
    pub(super) fn refer(self, mut answer: Response<Vec<u8>>) -> Response<Vec<u8>> {
        match self {
            Self::Unavailable => {}
            Self::TooEarly => *answer.status_mut() = StatusCode::TOO_EARLY,
            Self::Close => _ = answer.extensions_mut().insert(Unsent),
        }
        answer
    }

    /// Answers a handshake that no other node is to take, whatever a back end says.
    pub(super) fn refuse(self, mut answer: Response<Vec<u8>>) -> Response<Vec<u8>> {
        if self == Self::TooEarly && answer.status() == StatusCode::TOO_EARLY {
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        answer
    }
}
