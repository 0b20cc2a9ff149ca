//! The body of a call: read within bounds of bytes and time, whatever comes.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use http::{Response, StatusCode};

use super::super::{bad_request, error_reply};

/// A body over the limit is read on to this size, so that its sender gets the answer instead of a reset.
const DISCARD_MAX: usize = 8 << 20;

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    TooLarge,
    /// It ended early, or its chunks are none.
    Broken,
    /// It did not come in time.
    Late,
}

impl Fault {
    pub(super) fn answer(self) -> Response<Vec<u8>> {
        match self {
            Self::TooLarge => {
                error_reply(StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLargeException", "Payload Too Large")
            }
            Self::Broken => bad_request(
                "The request's body did not arrive whole, as Content-Length or the chunks have it",
            ),
            Self::Late => error_reply(
                StatusCode::REQUEST_TIMEOUT,
                "RequestTimeoutException",
                "The request's body did not arrive whole and in time",
            ),
        }
    }
}

/// Reads a body of up to `limit` bytes; more is read and dropped, up to a bound.
///
/// # Errors
/// Why there is none.
pub(super) async fn read<E>(
    stream: impl Stream<Item = Result<impl Buf, E>> + Unpin,
    limit: usize,
    time: Duration,
) -> Result<Bytes, Fault> {
    tokio::time::timeout(time, collect(stream, limit)).await.unwrap_or(Err(Fault::Late))
}

async fn collect<E>(
    mut stream: impl Stream<Item = Result<impl Buf, E>> + Unpin,
    limit: usize,
) -> Result<Bytes, Fault> {
    let mut body = BytesMut::new();
    let mut seen = 0_usize;
    while let Some(chunk) = stream.next().await {
        let mut chunk = chunk.map_err(|_| Fault::Broken)?;
        seen += chunk.remaining();
        if seen > DISCARD_MAX {
            break;
        }
        if seen <= limit {
            body.extend_from_slice(&chunk.copy_to_bytes(chunk.remaining()));
        }
    }
    if seen > limit { Err(Fault::TooLarge) } else { Ok(body.freeze()) }
}
