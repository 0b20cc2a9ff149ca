//! The way in for clients: who is let in and what the others are told, with the statuses of the
//! contract, and the hand-over of the socket.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{
    CONNECTION, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{HeaderValue, Method, Response, StatusCode, Version};
use jiff::Timestamp;
use mio::net::TcpStream;
use warp::Filter;
use warp::path::FullPath;

use super::answer::error_reply;
use super::caller::Caller;
use super::elsewhere::Elsewhere;
use super::handshake::{self, Head};
use super::local::{self, Foreign};
use super::proxies::{self, Proxies};
use super::request::{RETRY_SECONDS, busy};
use super::slots::{Busy, RequestKind, Turn};
use super::takeover::Takeover;
use super::upgrade::{self, HandshakeError};
use crate::config::{Origins, Snapshot};
use crate::edge::admission::agent;
use crate::edge::admission::{Admission, Admitted, Refused, Seen, Visit};
use crate::model::handshake::Handshake;
use crate::model::id::RequestId;
use crate::model::trace_context::TraceContext;
use crate::ops::access::{Entry, EntryEnd, EntryKind, Who};
use crate::ops::metrics::Refusal;
use crate::ops::refusals::Told;
use crate::ops::telemetry::Telemetry;
use crate::shard::hub::Hub;
use crate::shard::inbox::JoinOutcome;
use crate::shard::socket::NewSocket;

/// What whoever is not of this host is told, since they may be welcome.
const NOT_LOCAL: &str = "Only programs and pages of this host may connect by default. Set auth.allowed_origins to the origins of the \
                         pages that may, \"*\" for all, or trusted_proxies where a proxy on this host passes clients on. What is \
                         foreign about this handshake";

/// What a handshake needs.
#[derive(Debug)]
pub(crate) struct Connect {
    pub(crate) stage: Arc<str>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) telemetry: Telemetry,
    pub(crate) hub: Arc<Hub>,
    pub(crate) proxies: Proxies,
}

/// A handshake on its way through the door.
struct Visitor {
    method: Method,
    version: Version,
    handshake: Handshake,
    client: IpAddr,
    takeover: Takeover,
    /// Spans of the handshake, if it is sampled.
    trace: Option<TraceContext>,
    seen: Option<Seen>,
    /// Until it waits for a back end, which has bounds of its own.
    turn: Option<Turn>,
    /// How it is told that another node may take it.
    elsewhere: Elsewhere,
}

/// Why a client is not let in.
enum No {
    /// What it sent is no handshake.
    Handshake(HandshakeError),
    /// It is not from this host, where only that is served.
    Foreign(Foreign),
    Refused(Refused),
}

/// The last resort of the public port: whatever is not the management API wants to connect, or is
/// refused.
pub(crate) fn routes(
    connect: Arc<Connect>,
) -> impl Filter<Extract = (Response<Vec<u8>>,), Error = warp::Rejection> + Clone {
    let query = warp::query::raw().map(Some).or(warp::any().map(|| None)).unify();
    warp::method()
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::ext::get::<Caller>())
        .then(move |method, path: FullPath, query, headers, caller: Caller| {
            let connect = Arc::clone(&connect);
            async move {
                let Caller { peer, version, takeover, visit } = caller;
                let mut handshake = Handshake { path: path.as_str().to_owned(), query, headers };
                let client = peer.ip().to_canonical();
                match visit.serve(RequestKind::Handshake).await {
                    Ok(turn) => {
                        let (turn, elsewhere) = (Some(turn), Elsewhere::default());
                        connect
                            .answer(&mut Visitor {
                                method,
                                version,
                                handshake,
                                client,
                                takeover,
                                trace: None,
                                seen: None,
                                turn,
                                elsewhere,
                            })
                            .await
                    }
                    Err(Busy) => Elsewhere::take(&mut handshake.headers).refer(busy()),
                }
            }
        })
}

impl Connect {
    /// Serves a handshake that the HTTP server has not seen. Returns the socket, with the answer
    /// for it, of a client that is not let in: what the client sends next is HTTP again.
    pub(super) async fn serve(
        &self,
        head: Head,
        peer: SocketAddr,
        stream: TcpStream,
        turn: Turn,
    ) -> Option<(TcpStream, Response<Vec<u8>>)> {
        let (method, version, takeover) = (Method::GET, Version::HTTP_11, Takeover::default());
        let (handshake, client, turn) = (head.handshake, peer.ip().to_canonical(), Some(turn));
        let (trace, seen, elsewhere) = (None, None, Elsewhere::default());
        let mut visitor =
            Visitor { method, version, handshake, client, takeover, trace, seen, turn, elsewhere };
        let answer = self.answer(&mut visitor).await;
        // After either answer there is no more HTTP.
        let is_last = answer.status() == StatusCode::SWITCHING_PROTOCOLS
            || answer.headers().get(CONNECTION).is_some_and(|value| value == "close");
        if !is_last {
            return Some((stream, answer));
        }
        let sent = handshake::answer(&stream, head.length, &answer);
        visitor.takeover.take_over(sent.map(|()| NewSocket { stream, early: Bytes::new() }));
        None
    }

    /// Finds the client's address, and takes away what is for nobody further in.
    fn look_behind_proxies(
        &self,
        Visitor { client, handshake, elsewhere, .. }: &mut Visitor,
        snapshot: &Snapshot,
    ) {
        let headers = &mut handshake.headers;
        *elsewhere = Elsewhere::take(headers);
        if let Some(name) = &snapshot.auth.user_header
            && !proxies::trust(&snapshot.trusted, *client)
        {
            headers.remove(name);
        }
        *client = self.proxies.client(&snapshot.trusted, *client, headers);
    }

    async fn answer(&self, visitor: &mut Visitor) -> Response<Vec<u8>> {
        let (began, snapshot) = (Instant::now(), self.admission.snapshots.latest());
        self.look_behind_proxies(visitor, &snapshot);
        let metrics = &self.admission.metrics;
        let trace = self.telemetry.tracer.handshake(&visitor.handshake.headers);
        visitor.trace = trace;
        let at = Timestamp::now();
        let (answer, error) = match self.check(visitor, &snapshot) {
            Ok(accept) => match self.admit(visitor, &snapshot, accept).await {
                Ok(answer) => (answer, None),
                Err(refused) => (self.refuse(visitor, &refused), Some(told(&refused).1)),
            },
            Err(No::Refused(refused)) => (self.refuse(visitor, &refused), Some(told(&refused).1)),
            Err(No::Handshake(fault)) => {
                self.count(visitor, Refusal::Malformed, fault.message());
                (fault.answer(), Some(fault.message()))
            }
            Err(No::Foreign(foreign)) => {
                let message = format!("{NOT_LOCAL}: {}", foreign.cause());
                self.count(visitor, Refusal::NotLocal, &message);
                let answer = error_reply(StatusCode::FORBIDDEN, "ForbiddenException", &message);
                (answer, Some("Forbidden"))
            }
        };
        if self.telemetry.access.is_on() {
            self.note(visitor, at, answer.status(), error);
        }
        metrics.handshake_duration.observe(began.elapsed().as_secs_f64());
        if let Some(trace) = trace {
            self.telemetry.tracer.answered(trace, "$connect", began, answer.status());
        }
        answer
    }

    /// Writes the handshake into the access log.
    fn note(&self, visitor: &Visitor, at: Timestamp, status: StatusCode, error: Option<&str>) {
        let agent = agent::user_agent(&visitor.handshake.headers);
        let stranger = Who {
            connection: None,
            source_ip: visitor.client,
            user_agent: agent.as_deref(),
            user: None,
        };
        let seen = visitor.seen.as_ref();
        let call = seen.and_then(|seen| seen.call);
        let is_in = status == StatusCode::SWITCHING_PROTOCOLS;
        self.telemetry.access.note(&Entry {
            kind: EntryKind::Connect,
            route: Some("$connect"),
            request: call.map_or_else(RequestId::mint, |(request, _)| request),
            message: None,
            who: seen.map_or(stranger, |seen| Who::from(&*seen.record)),
            at,
            end: EntryEnd {
                status: if is_in { 200 } else { status.as_u16() },
                error,
                latency: call.map(|(_, latency)| latency),
            },
            close: None,
        });
    }

    /// Checks what needs no place; returns the accept key.
    fn check(&self, visitor: &Visitor, snapshot: &Snapshot) -> Result<HeaderValue, No> {
        let Visitor { method, version, client, handshake: Handshake { path, headers, .. }, .. } =
            visitor;
        self.admission.greet(*client, snapshot).map_err(No::Refused)?;
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        if (segments.next(), segments.next()) != (Some(&*self.stage), None) {
            return Err(No::Refused(Refused {
                status: StatusCode::FORBIDDEN,
                refusal: Refusal::Path,
            }));
        }
        let accept = upgrade::accept(method, *version, headers).map_err(No::Handshake)?;
        if matches!(snapshot.auth.allowed_origins, Origins::Local)
            && let Err(foreign) = local::check(headers, *version)
        {
            return Err(No::Foreign(foreign));
        }
        Ok(accept)
    }

    fn count(&self, visitor: &Visitor, refusal: Refusal, message: &str) {
        let metrics = &self.admission.metrics;
        metrics.count_refusal(refusal);
        let (what, cause, address) = ("handshake", refusal.label(), visitor.client);
        metrics.refusals.tell(Told { what, cause, address, conn: None, message });
    }

    /// Answers a client that is not let in, so that it knows what to do.
    fn refuse(&self, visitor: &Visitor, refused: &Refused) -> Response<Vec<u8>> {
        let (error_type, message) = told(refused);
        self.count(visitor, refused.refusal, message);
        let mut answer = error_reply(refused.status, error_type, message);
        let headers = answer.headers_mut();
        if refused.is_for_address() {
            // Nothing is kept of it, which makes a flood cheap.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if refused.is_for_address() || refused.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, rand::random_range(RETRY_SECONDS).into());
        }
        // Once its turn is over, a back end is asked.
        let is_untouched = visitor.turn.is_some() && refused.refusal != Refusal::Connect;
        if is_untouched && refused.status == StatusCode::SERVICE_UNAVAILABLE {
            visitor.elsewhere.refer(answer)
        } else {
            visitor.elsewhere.refuse(answer)
        }
    }

    /// Lets the client in; the socket follows once the answer is written.
    async fn admit(
        &self,
        visitor: &mut Visitor,
        snapshot: &Arc<Snapshot>,
        accept: HeaderValue,
    ) -> Result<Response<Vec<u8>>, Refused> {
        let Visitor { client, handshake, turn, trace, seen, .. } = visitor;
        let give_way = || drop(turn.take());
        let visit = Visit { source_ip: *client, trace: *trace, seen };
        let admitted = self.admission.admit(visit, handshake, snapshot, give_way).await?;
        let Admitted { ticket, subprotocol } = admitted;
        let id = ticket.record().id;
        let joined = self.hub.expect(ticket);
        // Before anything is waited for: a client that goes away now takes this future with it.
        visitor.takeover.expect(id, Arc::clone(&self.hub));
        if let Some(joined) = joined
            && joined.await != Ok(JoinOutcome::Joined)
        {
            visitor.takeover.forget();
            self.hub.attach(id, None);
            return Err(Refused::unavailable());
        }
        Ok(switching_protocols(accept, subprotocol.as_deref()))
    }
}

fn switching_protocols(accept: HeaderValue, subprotocol: Option<&str>) -> Response<Vec<u8>> {
    let mut answer = Response::new(Vec::new());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(subprotocol) = subprotocol.and_then(|one| HeaderValue::from_str(one).ok()) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    answer
}

/// Returns the type of the error and the message that a client is told.
fn told(refused: &Refused) -> (&'static str, &'static str) {
    match refused.status {
        _ if refused.refusal == Refusal::AddressRate => {
            ("TooManyRequestsException", "Too many handshakes from your address; try again later")
        }
        _ if refused.refusal == Refusal::AddressConnections => (
            "TooManyRequestsException",
            "Too many connections from your address; close some, or try again later",
        ),
        _ if refused.refusal == Refusal::Origin => {
            ("ForbiddenException", "The page's origin is not among auth.allowed_origins")
        }
        _ if refused.refusal == Refusal::User => (
            "BadRequestException",
            "The header with the user's name must be there once, in UTF-8, with 1 to 128 bytes and no control characters",
        ),
        StatusCode::GATEWAY_TIMEOUT => ("GatewayTimeoutException", "Endpoint request timed out"),
        StatusCode::UNAUTHORIZED => ("UnauthorizedException", "Unauthorized"),
        StatusCode::SERVICE_UNAVAILABLE => {
            ("ServiceUnavailableException", unavailable(refused.refusal))
        }
        status if status.is_server_error() => {
            ("InternalServerErrorException", "Internal server error")
        }
        _ => ("ForbiddenException", "Forbidden"),
    }
}

/// Says what is not there now.
fn unavailable(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Unavailable => "Service Unavailable: this node waits for Redis",
        Refusal::RedisRefused => {
            "Service Unavailable: Redis refuses to write; the node's log says why"
        }
        _ => "Service Unavailable",
    }
}
