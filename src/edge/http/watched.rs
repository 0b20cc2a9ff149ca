//! What a conversation is watched by: its socket and its answers move the connection from stage to
//! stage, and a timer follows.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::Response;
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until};

use super::slots::{Stage, Visit};
use super::stream::Stream;

/// A timer that follows a deadline which comes and goes.
pub(super) struct Clock {
    sleep: Option<Pin<Box<Sleep>>>,
    at: Option<Instant>,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { sleep: None, at: None }
    }

    /// Is ready once the deadline is over.
    pub(super) fn poll_at(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        deadline: Option<Instant>,
    ) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        let clock = &mut *self;
        let at = deadline.into();
        let sleep = clock.sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if clock.at.replace(deadline) != Some(deadline) {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(context)
    }
}

/// The socket as hyper has it: what it reads and writes moves the connection from stage to stage.
pub(super) struct Watched<S> {
    pub(super) stream: S,
    pub(super) visit: Visit,
    /// Whether anything ever came.
    pub(super) is_heard: bool,
    /// Whether hyper wrote something while no request was being answered.
    pub(super) is_kept_back: bool,
}

impl<S: Stream> Watched<S> {
    /// Writes by `write`, but not what hyper says by itself, which would be `length` bytes.
    fn write(
        mut self: Pin<&mut Self>,
        length: usize,
        write: impl FnOnce(Pin<&mut S>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if matches!(self.visit.stage(), Stage::Head | Stage::Idle) {
            self.is_kept_back = true;
            return Poll::Ready(Ok(length));
        }
        let count = ready!(write(Pin::new(&mut self.stream)))?;
        self.visit.wrote(count);
        Poll::Ready(Ok(count))
    }
}

impl<S: Stream> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.is_heard = true;
            if self.visit.stage() == Stage::Idle {
                self.visit.enter(Stage::Head);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream> AsyncWrite for Watched<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(bytes.len(), |stream| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        self.write(length, |stream| stream.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.visit.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Names the body of an answer, as warp does not.
pub(super) trait HasBody {
    type Body;
}

impl<B> HasBody for Response<B> {
    type Body = B;
}

/// The body of an answer, which says when hyper has taken all of it.
pub(super) struct Followed {
    pub(super) body: <warp::reply::Response as HasBody>::Body,
    pub(super) visit: Visit,
}

impl Body for Followed {
    type Data = Bytes;
    type Error = warp::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, warp::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.visit.answer_is_whole();
    }
}
