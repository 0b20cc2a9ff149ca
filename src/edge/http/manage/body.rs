//! The body of a call: read within bounds of bytes and time, whatever comes.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use http::{Response, StatusCode};

use crate::edge::http::answer::{bad_request, error_reply, unavailable};
use crate::limits::budget::{Budget, Kind};

/// A body over the limit is read on to this size, so that its sender gets the answer instead of a
/// reset.
const DISCARD_MAX: usize = 8 << 20;

/// A body grows by doubling, and becomes a frame.
const COPIES: usize = 3;

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    TooLarge,
    /// It was not kept, or what it asks for is not done, since memory runs out.
    Memory,
    /// It ended early, or its chunks are none.
    Broken,
    /// It did not come in time.
    Late,
}

impl BodyError {
    pub(super) fn answer(self) -> Response<Vec<u8>> {
        match self {
            Self::TooLarge => error_reply(
                StatusCode::PAYLOAD_TOO_LARGE,
                "PayloadTooLargeException",
                "Payload Too Large",
            ),
            Self::Memory => unavailable("The node's memory is nearly used up; try again later"),
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

/// Reads a body of up to `limit` bytes, which counts as memory as long as it is there; more is read
/// and dropped, up to a bound, and so is all of it while memory runs out.
///
/// # Errors
/// Why there is none.
pub(super) async fn read<E>(
    stream: impl Stream<Item = Result<impl Buf, E>> + Unpin,
    limit: usize,
    time: Duration,
    budget: &Budget,
) -> Result<Bytes, BodyError> {
    tokio::time::timeout(time, collect(stream, limit, budget)).await.unwrap_or(Err(BodyError::Late))
}

async fn collect<E>(
    mut stream: impl Stream<Item = Result<impl Buf, E>> + Unpin,
    limit: usize,
    budget: &Budget,
) -> Result<Bytes, BodyError> {
    let mut body = BytesMut::new();
    let mut held = budget.gauge(Kind::Http, 0).hold(0);
    let mut is_refused = false;
    let mut seen = 0_usize;
    while let Some(chunk) = stream.next().await {
        let mut chunk = chunk.map_err(|_| BodyError::Broken)?;
        seen += chunk.remaining();
        if seen > DISCARD_MAX {
            break;
        }
        is_refused |= budget.is_tight();
        if is_refused || seen > limit {
            (body, held) = (BytesMut::new(), budget.gauge(Kind::Http, 0).hold(0));
        } else {
            held.grow(COPIES * chunk.remaining());
            budget.renew();
            body.extend_from_slice(&chunk.copy_to_bytes(chunk.remaining()));
        }
    }
    match seen > limit {
        true => Err(BodyError::TooLarge),
        false if is_refused => Err(BodyError::Memory),
        false => Ok(held.with(body.freeze())),
    }
}
