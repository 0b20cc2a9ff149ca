//! The WebSocket handshake (RFC 6455 §4.2), with the statuses of the contract, and the hand-over of the socket.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    CONNECTION, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use mio::net::TcpStream;
use parking_lot::Mutex;
use sha1::{Digest as _, Sha1};
use warp::Filter;
use warp::path::FullPath;

use super::handshake::{self, Head};
use super::proxies::Proxies;
use super::{Caller, error_reply};
use crate::admission::{Admission, Refused};
use crate::connection::NewSocket;
use crate::hub::Hub;
use crate::id::ConnectionId;
use crate::inbox::JoinOutcome;
use crate::metrics::Refusal;

/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Seconds after which a client that found no room should try again: drawn for each, lest all come back at once.
const RETRY_SECONDS: RangeInclusive<u64> = 1..=5;

/// What a handshake needs.
#[derive(Debug)]
pub(crate) struct Connect {
    pub(crate) stage: Arc<str>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) proxies: Arc<Proxies>,
}

/// Who takes an HTTP connection's socket over once its answer is written, if anybody; an extension of every request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heir(Arc<Mutex<Option<HandOver>>>);

#[derive(Debug)]
struct HandOver {
    id: ConnectionId,
    hub: Arc<Hub>,
}

/// One handshake.
struct Handshake {
    method: Method,
    path: String,
    headers: HeaderMap,
    client: IpAddr,
    /// Whether HTTP lets the connection go after the answer.
    upgradable: bool,
    heir: Heir,
}

/// The last resort of the public port: whatever is not the management API wants to connect, or is refused.
pub(crate) fn routes(
    connect: Arc<Connect>,
) -> impl Filter<Extract = (Response<Vec<u8>>,), Error = warp::Rejection> + Clone {
    warp::method()
        .and(warp::path::full())
        .and(warp::header::headers_cloned())
        .and(warp::ext::get::<Caller>())
        .and(warp::ext::optional::<OnUpgrade>())
        .map(|method, path: FullPath, headers, Caller { peer, heir }, upgrade: Option<_>| {
            let (path, client) = (path.as_str().to_owned(), peer.ip().to_canonical());
            Handshake { method, path, headers, client, upgradable: upgrade.is_some(), heir }
        })
        .then(move |mut handshake| {
            let connect = Arc::clone(&connect);
            async move { connect.answer(&mut handshake).await }
        })
}

impl Connect {
    /// Serves a handshake that the HTTP server has not seen. Returns the socket, with the answer for it, of a client that is not
    /// let in: what the client sends next is HTTP again.
    pub(super) async fn serve(
        &self,
        head: Head,
        peer: SocketAddr,
        stream: TcpStream,
    ) -> Option<(TcpStream, Response<Vec<u8>>)> {
        let (path, headers, client) = (head.path, head.headers, peer.ip().to_canonical());
        let (method, heir) = (Method::GET, Heir::default());
        let mut handshake = Handshake { method, path, headers, client, upgradable: true, heir };
        let answer = self.answer(&mut handshake).await;
        // After either answer there is no more HTTP.
        let is_last = answer.status() == StatusCode::SWITCHING_PROTOCOLS
            || answer.headers().get(CONNECTION).is_some_and(|value| value == "close");
        if !is_last {
            return Some((stream, answer));
        }
        let sent = handshake::answer(&stream, head.length, &answer);
        handshake.heir.take_over(sent.map(|()| NewSocket { stream, early: Bytes::new() }));
        None
    }

    /// Finds the client's address, and takes away what only a trusted proxy may say: nobody further in can believe it.
    fn look_behind_proxies(&self, Handshake { client, headers, .. }: &mut Handshake) {
        if let Some(name) = &self.admission.auth.user_header
            && !self.proxies.trust(*client)
        {
            headers.remove(name);
        }
        *client = self.proxies.client(*client, headers);
    }

    async fn answer(&self, handshake: &mut Handshake) -> Response<Vec<u8>> {
        let began = Instant::now();
        self.look_behind_proxies(handshake);
        let metrics = &self.admission.metrics;
        // A client is nobody who may decide that it is sampled.
        let trace = metrics.tracer.request(None);
        let greeted = self.admission.greet(handshake.client);
        let admitted = match greeted.and_then(|()| self.check(handshake)) {
            Ok(accept) => self.admit(handshake, accept).await,
            Err(refused) => Err(refused),
        };
        let answer = match admitted {
            Ok(answer) => answer,
            Err(refused) => {
                metrics.count_refusal(refused.refusal);
                refuse(&refused)
            }
        };
        metrics.handshake_duration.observe(began.elapsed().as_secs_f64());
        if let Some(trace) = trace {
            metrics.tracer.answered(trace, "$connect", began, answer.status());
        }
        answer
    }

    /// Checks what needs no state; returns the accept key.
    fn check(&self, handshake: &Handshake) -> Result<HeaderValue, Refused> {
        let Handshake { method, path, headers, upgradable, .. } = handshake;
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        if (segments.next(), segments.next()) != (Some(&*self.stage), None) {
            return Err(Refused { status: StatusCode::FORBIDDEN, refusal: Refusal::Path });
        }
        let upgrades =
            has_token(headers, &CONNECTION, "upgrade") && has_token(headers, &UPGRADE, "websocket");
        let version = headers.get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes);
        if *method != Method::GET || !upgrades || version != Some(b"13") {
            return Err(Refused { status: StatusCode::UPGRADE_REQUIRED, refusal: Refusal::Malformed });
        }
        let malformed = || Refused { status: StatusCode::BAD_REQUEST, refusal: Refusal::Malformed };
        let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
        if STANDARD.decode(key).map(|nonce| nonce.len()) != Ok(16) || !upgradable {
            return Err(malformed());
        }
        let accept = STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize());
        HeaderValue::from_str(&accept).map_err(|_| malformed())
    }

    /// Lets the client in; the socket follows once the answer is written.
    async fn admit(&self, handshake: &Handshake, accept: HeaderValue) -> Result<Response<Vec<u8>>, Refused> {
        let ticket = self.admission.admit(handshake.client, &handshake.headers).await?;
        let id = ticket.record().id;
        let joined = self.hub.expect(ticket);
        // Before anything is waited for: a client that goes away now takes this future with it.
        *handshake.heir.0.lock() = Some(HandOver { id, hub: Arc::clone(&self.hub) });
        if let Some(joined) = joined
            && joined.await != Ok(JoinOutcome::Joined)
        {
            *handshake.heir.0.lock() = None;
            self.hub.attach(id, None);
            return Err(Refused::unavailable());
        }
        Ok(switching_protocols(accept))
    }
}

impl Heir {
    /// Gives the socket to its shard, with what was read behind the request, or tells it that none will come. To be called
    /// when HTTP is done with the connection.
    pub(super) fn take_over(self, socket: io::Result<NewSocket>) {
        let Some(HandOver { id, hub }) = self.0.lock().take() else { return };
        match &socket {
            Ok(_) => tracing::debug!(conn.id = %id, "connected"),
            Err(error) => tracing::debug!(conn.id = %id, %error, "the client went away during its handshake"),
        }
        hub.attach(id, socket.ok());
    }
}

fn switching_protocols(accept: HeaderValue) -> Response<Vec<u8>> {
    let mut answer = Response::new(Vec::new());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    answer
}

/// Answers a handshake that is not let in, so that its client knows what to do.
fn refuse(refused: &Refused) -> Response<Vec<u8>> {
    let (error_type, message) = match refused.status {
        _ if refused.refusal == Refusal::AddressRate => {
            ("TooManyRequestsException", "Too many handshakes from your address; try again later")
        }
        _ if refused.refusal == Refusal::AddressConnections => (
            "TooManyRequestsException",
            "Too many connections from your address; close some, or try again later",
        ),
        StatusCode::BAD_REQUEST => ("BadRequestException", "Sec-WebSocket-Key must be 16 bytes in base64"),
        StatusCode::UNAUTHORIZED => ("UnauthorizedException", "Unauthorized"),
        StatusCode::UPGRADE_REQUIRED => {
            ("UpgradeRequiredException", "Connect with a WebSocket client, version 13")
        }
        StatusCode::SERVICE_UNAVAILABLE => ("ServiceUnavailableException", "Service Unavailable"),
        status if status.is_server_error() => ("InternalServerErrorException", "Internal server error"),
        _ => ("ForbiddenException", "Forbidden"),
    };
    let mut answer = error_reply(refused.status, error_type, message);
    let headers = answer.headers_mut();
    match refused.status {
        // RFC 6455 §4.2.2, RFC 9110 §15.5.22.
        StatusCode::UPGRADE_REQUIRED => {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        _ if refused.is_for_address() => {
            // Nothing is kept of it, which makes a flood cheap.
            headers.insert(RETRY_AFTER, rand::random_range(RETRY_SECONDS).into());
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(RETRY_AFTER, rand::random_range(RETRY_SECONDS).into());
        }
        _ => {}
    }
    answer
}

/// Returns whether a header that is a list has a token (RFC 9110 §5.6.1).
fn has_token(headers: &HeaderMap, name: &http::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(token))
}
