//! The requests of one HTTP connection, from its first to its end: hyper reads and writes them, and
//! this file keeps the time.
//!
//! What hyper would answer by itself to what is no request is kept back and said better, in the
//! form of all other errors.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::CONNECTION;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1::{self, Parts};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use warp::Reply as _;

use super::answer::{CLOSE, closing, error_reply, text_of};
use super::caller::Caller;
use super::elsewhere::Unsent;
use super::manage;
use super::request::{self, MAX_HEAD, MAX_HEADERS, busy};
use super::routes::Routes;
use super::slots::{Stage, Visit};
use super::stream::Stream;
use super::takeover::Takeover;
use super::upgrade::has_token;
use super::watched::{Clock, Followed, Watched};
use crate::model::phase::Phase;
use crate::ops::lifecycle::Lifecycle;
use crate::ops::metrics::{CutCause, HttpState, RequestRefusal};

/// After the last answer, what is still on its way is read for this long, so that it does not reset
/// the connection under the answer.
const LINGER: Duration = Duration::from_secs(1);

/// Most that is read then, in bytes.
const LINGER_BYTES: u64 = 4 << 20;

/// For how long the connection is kept between requests.
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// What the conversations of a port share.
#[derive(Clone, Copy)]
pub(super) struct Conversation<'c> {
    pub(super) lifecycle: &'c Lifecycle,
    pub(super) routes: &'c Routes,
}

/// How a conversation ended.
enum End {
    Http(hyper::Result<()>),
    Cut(HttpState, CutCause),
}

type Reply = Pin<Box<dyn Future<Output = Result<Response<Followed>, Unsent>> + Send>>;

impl Conversation<'_> {
    /// Answers requests until the connection ends or becomes a WebSocket.
    pub(super) async fn hold(self, stream: impl Stream, visit: &Visit) {
        let takeover = Takeover::default();
        let service = service_fn(|request| self.answer(request, &takeover, visit));
        let watched =
            Watched { stream, visit: visit.clone(), is_heard: false, is_kept_back: false };
        let mut conversation = http1::Builder::new()
            .header_read_timeout(None)
            .half_close(true)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(watched), service);
        let (ending, mut is_ending) = (self.lifecycle.ending(), false);
        let mut ending = pin!(ending.cancelled());
        let (mut told, mut is_told) = (pin!(visit.told_to_leave()), false);
        let mut clock = pin!(Clock::new());
        let end = poll_fn(|context| {
            loop {
                if let Poll::Ready(ended) = conversation.poll_without_shutdown(context) {
                    return Poll::Ready(End::Http(ended));
                }
                if !is_ending && ending.as_mut().poll(context).is_ready() {
                    is_ending = true;
                    Pin::new(&mut conversation).graceful_shutdown();
                    continue;
                }
                // Whoever waits for their turn, or has it, is answered, and told to leave then.
                let gives_way = !is_told && told.as_mut().poll(context).is_ready();
                is_told |= gives_way;
                let Some(state) = visit.stage().state() else { return Poll::Pending };
                if gives_way && state != HttpState::Queue {
                    return Poll::Ready(End::Cut(state, CutCause::Crowded));
                }
                return match clock.as_mut().poll_at(context, visit.deadline()) {
                    Poll::Ready(()) => Poll::Ready(End::Cut(state, CutCause::Timeout)),
                    Poll::Pending => Poll::Pending,
                };
            }
        })
        .await;
        let Parts { io, read_buf, .. } = conversation.into_parts();
        self.part(end, io.into_inner(), read_buf, takeover).await;
    }

    /// Parts from a client, or hands its socket over.
    async fn part<S: Stream>(
        self,
        end: End,
        watched: Watched<S>,
        unread: Bytes,
        takeover: Takeover,
    ) {
        let Watched { mut stream, visit, is_heard, is_kept_back } = watched;
        match end {
            End::Http(Ok(())) if takeover.is_expected() => {
                takeover.take_over(stream.into_socket(unread));
            }
            End::Http(Ok(())) => linger(self.lifecycle, stream, &visit, &[]).await,
            End::Http(Err(error)) => {
                tracing::debug!(%error, peer = %visit.peer(), "HTTP connection");
                if error.is_parse() {
                    let (refusal, answer) = malformed(&error, &unread);
                    visit.refuse(refusal);
                    if is_kept_back || error.is_parse_version_h2() {
                        let last = text_of(&answer).unwrap_or_default();
                        linger(self.lifecycle, stream, &visit, &last).await;
                    }
                }
                takeover.take_over(Err(io::Error::other(error)));
            }
            End::Cut(state, cause) => {
                visit.cut(state, cause);
                if state == HttpState::Head && is_heard {
                    // Nothing was sent behind the last answer, which was taken, so there is room
                    // for as little.
                    let last = text_of(&late(cause)).unwrap_or_default();
                    drop(stream.write_all(&last).now_or_never());
                }
                takeover.take_over(Err(io::ErrorKind::TimedOut.into()));
            }
        }
    }

    /// Answers a request, or refuses it.
    fn answer(&self, request: Request<Incoming>, takeover: &Takeover, visit: &Visit) -> Reply {
        visit.enter(Stage::Body);
        let (mut head, body) = request.into_parts();
        // A body that nobody reads is where the connection ends.
        let is_unread = !body.is_end_stream() && !manage::is_path(head.uri.path());
        let is_last = is_unread || closes(head.version, &head.headers);
        let answer = match request::normalize(&mut head.uri, head.version, &mut head.headers) {
            Err(refusal) => {
                visit.refuse(refusal);
                Err(request::refuse(refusal).into_response())
            }
            Ok(()) => {
                let (peer, takeover, visit) = (visit.peer(), takeover.clone(), visit.clone());
                let version = head.version;
                head.extensions.insert(Caller { peer, version, takeover, visit });
                Ok((self.routes)(Request::from_parts(head, body)))
            }
        };
        let (visit, lifecycle) = (visit.clone(), self.lifecycle.clone());
        Box::pin(async move {
            let mut answer = match answer {
                Err(answer) => answer,
                Ok(answer) => answer.await.unwrap_or_else(|never| match never {}),
            };
            if let Some(unsent) = answer.extensions().get::<Unsent>() {
                return Err(*unsent);
            }
            if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                let is_last =
                    is_last || visit.is_to_leave() || lifecycle.phase() == Phase::Draining;
                tell(answer.headers_mut(), (!is_last).then(|| visit.bounds().keep_alive));
            }
            visit.enter(Stage::Answer);
            Ok(answer.map(|body| Followed { body, visit }))
        })
    }
}

/// Says a last thing, and then reads what is on its way, so that the client sees all answers and no
/// reset.
pub(super) async fn linger(
    lifecycle: &Lifecycle,
    mut stream: impl Stream,
    visit: &Visit,
    last: &[u8],
) {
    visit.enter(Stage::Answer);
    let farewell = async {
        stream.write_all(last).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut (&mut stream).take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    let ending = lifecycle.ending();
    tokio::select! {
        biased;
        _ = farewell => {}
        () = visit.told_to_leave() => {}
        () = ending.cancelled() => {}
        () = tokio::time::sleep(LINGER) => {}
    }
}

/// Returns whether a request is its connection's last by its own wish (RFC 9112 §9.3).
fn closes(version: Version, headers: &HeaderMap) -> bool {
    version != Version::HTTP_11 || has_token(headers, &CONNECTION, "close")
}

/// Tells a client how long the connection is kept, or that this was its last answer.
fn tell(headers: &mut HeaderMap, keep_alive: Option<Duration>) {
    match keep_alive {
        _ if has_token(headers, &CONNECTION, "close") => {}
        None => _ = headers.append(CONNECTION, CLOSE),
        Some(time) => {
            if let Ok(value) = HeaderValue::from_str(&format!("timeout={}", time.as_secs())) {
                headers.append(CONNECTION, HeaderValue::from_static("keep-alive"));
                headers.insert(KEEP_ALIVE, value);
            }
        }
    }
}

/// Says what is wrong with what came instead of a request, of which hyper left this.
fn malformed(error: &hyper::Error, unread: &[u8]) -> (RequestRefusal, Response<Vec<u8>>) {
    let bad = |message: &str| error_reply(StatusCode::BAD_REQUEST, "BadRequestException", message);
    let (refusal, answer) = if error.is_parse_too_large() {
        let mut answer = request::refuse(RequestRefusal::TooLarge);
        if !unread.contains(&b'\n') {
            *answer.status_mut() = StatusCode::URI_TOO_LONG;
        }
        (RequestRefusal::TooLarge, answer)
    } else if error.is_parse_version_h2() {
        let message = "HTTP/2 is not spoken here; use HTTP/1.1";
        let status = StatusCode::HTTP_VERSION_NOT_SUPPORTED;
        (RequestRefusal::Malformed, error_reply(status, "BadRequestException", message))
    } else if unread.starts_with(b"\x16\x03") {
        let message =
            "This port speaks plain HTTP; TLS belongs to the load balancer in front of it";
        (RequestRefusal::Malformed, bad(message))
    } else {
        let message = format!("This is not a request in HTTP/1.1: {error}");
        (RequestRefusal::Malformed, bad(&message))
    };
    (refusal, closing(answer))
}

/// Tells a client that its request's head did not come whole.
fn late(cause: CutCause) -> Response<Vec<u8>> {
    closing(match cause {
        CutCause::Timeout => error_reply(
            StatusCode::REQUEST_TIMEOUT,
            "RequestTimeoutException",
            "The request's head did not arrive whole and in time",
        ),
        CutCause::Crowded => busy(),
    })
}
