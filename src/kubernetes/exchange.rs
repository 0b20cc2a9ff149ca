//! One request over one connection, answered in time and within bounds.
//!
//! Nothing is kept between requests: they are few, and a connection of half a minute ago may be to
//! a server that is gone.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::fault::{CostError, fault};
use crate::ops::metrics::CostFault;

/// Most bytes of an answer's head.
const HEAD_BYTES: usize = 16 << 10;

/// Sends a request over a stream that was made for it, and returns the whole answer, of so many
/// bytes at most.
///
/// # Errors
/// There is no answer, or it is too long.
pub(super) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
    longest: usize,
) -> Result<(StatusCode, Bytes), CostError> {
    let broken = |error: &dyn std::error::Error| {
        fault(CostFault::Unexpected, format!("no answer in HTTP: {error}"))
    };
    let mut client = http1::Builder::new();
    client.max_buf_size(HEAD_BYTES);
    let (mut sender, connection) =
        client.handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let answer = async move {
        let (head, body) =
            sender.send_request(request).await.map_err(|error| broken(&error))?.into_parts();
        let body = Limited::new(body, longest).collect().await.map_err(|error| broken(&*error))?;
        Ok((head.status, body.to_bytes()))
    };
    // The connection ends with its only request; what it has to say beyond that does not matter.
    join(answer, connection).await.0
}

/// Waits for `work` no longer than `limit`.
///
/// # Errors
/// Its own, or that of the time.
pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, CostError>>,
) -> Result<T, CostError> {
    let late = |_| {
        fault(CostFault::Timeout, format!("no answer within {}", humantime::format_duration(limit)))
    };
    tokio::time::timeout(limit, work).await.map_err(late)?
}
