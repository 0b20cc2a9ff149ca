//! Who may come in, and what is owed to everybody who did.
//!
//! [`Admission::admit`] counts a place, asks who the client is, runs `$connect` and registers. The
//! [`Ticket`] it gives out goes wherever the connection goes; when it ends, however it ends, the
//! connection is gone for callers, `$disconnect` runs and the place is free. The record goes once
//! what `$disconnect` publishes was accepted ([`crate::cluster::registry::ends`]), so exactly once
//! for each connection that was let in.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, HeaderName, StatusCode};
use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::config::{Auth, Origins, Snapshot, Snapshots};
use crate::limits::budget::Budget;
use crate::model::broker::{Broker, Key, Publication, Receipt, Recipient};
use crate::model::call::{Answer, Backends, CallError, CallReceipt, CallResult, PlannedCall};
use crate::model::handshake::Handshake;
use crate::model::id::{ConnectionId, NodeTag, RequestId};
use crate::model::registry::{Record, Registry, Unavailable};
use crate::model::trace_context::TraceContext;
use crate::model::trouble::Trouble;
use crate::ops::lifecycle::Lifecycle;
use crate::ops::metrics::{Metrics, Refusal, RouteOutcome};
use crate::protocol::close::Close;
use crate::routing::gateway::{Action, Connecting, is_group_name};

pub(super) mod agent;

use crate::cluster::registry::ends::Ends;
use crate::limits::addresses::{Addresses, Who};
use crate::limits::places::{Place, Places};
use crate::limits::rate::Rate;
use crate::limits::ticket::{Disconnects as _, Ticket};

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) snapshots: Snapshots,
    pub(crate) rate: Rate,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) tag: NodeTag,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) places: Arc<Places>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) ends: Arc<Ends>,
    pub(crate) backends: Arc<dyn Backends>,
    pub(crate) lifecycle: Lifecycle,
}

/// Whose handshake it is.
#[derive(Debug)]
pub(crate) struct Visit<'v> {
    pub(crate) source_ip: IpAddr,
    /// Spans of the handshake, if it is sampled.
    pub(crate) trace: Option<TraceContext>,
    /// What becomes known of it, whether it is let in or not.
    pub(crate) seen: &'v mut Option<Seen>,
}

/// What is known of a handshake that has reached `$connect`.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) record: Arc<Record>,
    /// The call of a back end, and how long that took.
    pub(crate) call: Option<(RequestId, Duration)>,
}

/// What came of asking a back end.
struct Asked {
    admitted: Result<Admitted, Refused>,
    latency: Duration,
}

/// A client that was let in.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) ticket: Ticket,
    /// The sub-protocol that is selected, one of those that the client offers.
    pub(crate) subprotocol: Option<Box<str>>,
}

/// Why a client is not let in: what it is answered and what is counted.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    pub(crate) refusal: Refusal,
}

impl Refused {
    /// Redis is away, or this node is not subscribed yet.
    pub(crate) fn unavailable() -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, refusal: Refusal::Unavailable }
    }

    /// Returns whether the client's address has all that one address may have.
    pub(crate) fn is_for_address(&self) -> bool {
        matches!(self.refusal, Refusal::AddressRate | Refusal::AddressConnections)
    }

    fn by_registry(Unavailable(trouble): Unavailable) -> Self {
        match trouble {
            Trouble::Away => Self::unavailable(),
            Trouble::Refused(_) => {
                Self { status: StatusCode::SERVICE_UNAVAILABLE, refusal: Refusal::RedisRefused }
            }
        }
    }
}

impl Admission {
    /// Notes that an address asks to be let in, before anything else is done for it: whoever asks
    /// too often must not use up what is there for all.
    ///
    /// # Errors
    /// What to answer instead.
    pub(crate) fn greet(&self, source_ip: IpAddr, snapshot: &Snapshot) -> Result<(), Refused> {
        let status = StatusCode::TOO_MANY_REQUESTS;
        let refused = Refused { status, refusal: Refusal::AddressRate };
        let (rate, who) = (snapshot.limits.per_address.handshake_rate, who(source_ip, snapshot));
        if self.addresses.take(rate, who, Instant::now()) { Ok(()) } else { Err(refused) }
    }

    /// Lets a client in. `give_way` is called before a back end is waited for, which can take long.
    ///
    /// # Errors
    /// What to answer instead.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        Visit { source_ip, trace, seen }: Visit<'_>,
        handshake: &Handshake,
        snapshot: &Arc<Snapshot>,
        give_way: impl FnOnce(),
    ) -> Result<Admitted, Refused> {
        let headers = &handshake.headers;
        let place = self.take_place(source_ip, snapshot)?;
        if !self.broker.has_begun() {
            return Err(Refused::unavailable());
        }
        let user = identify(&snapshot.auth, headers)?;
        // After whatever refuses at no cost: strangers must not use up what is there for those who
        // may come in.
        if !self.rate.take(snapshot.limits.handshake_rate, Instant::now()) {
            return Err(Refused {
                status: StatusCode::SERVICE_UNAVAILABLE,
                refusal: Refusal::Rate,
            });
        }
        let user_agent = agent::user_agent(headers);
        let id = ConnectionId::mint(self.tag);
        let record =
            Arc::new(Record { id, source_ip, user_agent, user, connected_at: Timestamp::now() });
        let seen = seen.insert(Seen { record: Arc::clone(&record), call: None });
        match snapshot.gateway.on_connect(&record, handshake) {
            Connecting::Answer(status, action) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
                if !status.is_success() {
                    return Err(Refused { status, refusal: Refusal::Connect });
                }
                self.perform(action);
                self.registry.insert(Arc::clone(&record)).await.map_err(Refused::by_registry)?;
                let offered = subprotocols(headers);
                let known = &snapshot.auth.subprotocols;
                let subprotocol =
                    offered.into_iter().find(|one| known.iter().any(|known| known == one));
                Ok(Admitted {
                    ticket: self.ticket(record, place),
                    subprotocol: subprotocol.map(Into::into),
                })
            }
            Connecting::Call(mut call) => {
                call.event.trace = trace;
                let request = call.event.request;
                give_way();
                let asked = Arc::clone(self).ask(record, place, call, Arc::clone(snapshot));
                // Goes on when the client goes away: a back end that has let it in is told of its
                // end.
                let (told, admitted) = oneshot::channel();
                self.lifecycle.spawn(async move {
                    let _gone = told.send(asked.await).is_err();
                });
                let Asked { admitted, latency } = admitted.await.unwrap_or_else(|_| Asked {
                    admitted: Err(Refused::unavailable()),
                    latency: Duration::ZERO,
                });
                seen.call = Some((request, latency));
                let mut admitted = admitted?;
                // A protocol that was not offered would make the client give up (RFC 6455 §4.1).
                admitted.subprotocol.take_if(|one| !subprotocols(headers).contains(&&**one));
                Ok(admitted)
            }
        }
    }

    /// Asks a back end whether a client may come in.
    async fn ask(
        self: Arc<Self>,
        record: Arc<Record>,
        place: Place,
        call: Box<PlannedCall>,
        snapshot: Arc<Snapshot>,
    ) -> Asked {
        let (told, answer) = oneshot::channel();
        let receipt = CallReceipt::new(move |result| {
            let _gone = told.send(result).is_err();
        });
        let (route, since) = (Arc::clone(&call.event.route), Instant::now());
        self.backends.call(call.with(receipt));
        let answer = answer.await.unwrap_or(Err(CallError::Failed));
        let latency = since.elapsed();
        snapshot.gateway.on_called(&route, RouteOutcome::of(&answer));
        Asked { admitted: self.decide(record, place, answer).await, latency }
    }

    /// Does what a back end has answered.
    async fn decide(
        self: Arc<Self>,
        record: Arc<Record>,
        place: Place,
        answer: CallResult,
    ) -> Result<Admitted, Refused> {
        let refused = |status| Refused { status, refusal: Refusal::Connect };
        let Answer { status, subprotocol, .. } = answer.map_err(|error| {
            refused(match error {
                CallError::TimedOut => StatusCode::GATEWAY_TIMEOUT,
                CallError::Failed | CallError::Unreachable | CallError::Overload => {
                    StatusCode::BAD_GATEWAY
                }
            })
        })?;
        // What is no final answer cannot be passed on.
        let status = StatusCode::from_u16(status).ok().filter(|status| !status.is_informational());
        let status = status.unwrap_or(StatusCode::BAD_GATEWAY);
        if !status.is_success() {
            return Err(refused(status));
        }
        if let Err(error) = self.registry.insert(Arc::clone(&record)).await {
            Arc::clone(&self.ends).begin(&record, &Close::Lost);
            return Err(Refused::by_registry(error));
        }
        Ok(Admitted { ticket: self.ticket(record, place), subprotocol })
    }

    fn ticket(&self, record: Arc<Record>, place: Place) -> Ticket {
        Ticket::new(record, self.ends.clone(), Arc::clone(&self.metrics), place)
    }

    fn take_place(&self, source_ip: IpAddr, snapshot: &Snapshot) -> Result<Place, Refused> {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        if self.places.is_closed() {
            return Err(Refused { status, refusal: Refusal::Draining });
        }
        let crowded = |_| Refused {
            status: StatusCode::TOO_MANY_REQUESTS,
            refusal: Refusal::AddressConnections,
        };
        let limits = &snapshot.limits;
        let guest = self.addresses.enter(limits.per_address.connections, who(source_ip, snapshot));
        let guest = guest.map_err(crowded)?;
        let (place, before) = self.places.take(guest);
        if before >= limits.max_connections {
            return Err(Refused { status, refusal: Refusal::Capacity });
        }
        if self.budget.is_tight() {
            return Err(Refused { status, refusal: Refusal::Memory });
        }
        Ok(place)
    }

    /// Carries out what `$connect` asks for.
    fn perform(&self, action: Option<Action>) {
        if let Some(Action::Publish { channel, frame, key }) = action {
            let (key, receipt) = (key.map(Key::Given), Receipt::new(Recipient::Nobody));
            self.broker.publish(&mut vec![Publication { channel, frame, key, receipt }]);
        }
    }
}

/// Checks the origin and returns the user, as configured.
fn identify(auth: &Auth, headers: &HeaderMap) -> Result<Option<Arc<str>>, Refused> {
    if let Origins::Listed(allowed) = &auth.allowed_origins {
        let may_connect = match single(headers, &ORIGIN) {
            Ok(origin) => origin.is_none_or(|origin| allowed.iter().any(|one| one.matches(origin))),
            Err(Unreadable) => false,
        };
        if !may_connect {
            return Err(Refused { status: StatusCode::FORBIDDEN, refusal: Refusal::Origin });
        }
    }
    let Some(name) = &auth.user_header else { return Ok(None) };
    match single(headers, name) {
        Ok(None) => Ok(None),
        Ok(Some(user)) if is_group_name(user) => Ok(Some(user.into())),
        // Whoever the proxy means, it is somebody: to let them in as nobody would hide that they
        // cannot be reached.
        _ => Err(Refused { status: StatusCode::BAD_REQUEST, refusal: Refusal::User }),
    }
}

/// Returns the sub-protocols that a client offers, in the order in which it prefers them (RFC 6455
/// §4.1).
fn subprotocols(headers: &HeaderMap) -> Vec<&str> {
    let values =
        headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|one| !one.is_empty()).collect()
}

/// An address, as bounds apply to it.
fn who(address: IpAddr, snapshot: &Snapshot) -> Who<'_> {
    Who { address, exempt: &snapshot.trusted }
}

/// A header that is there more than once, or is no UTF-8.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unreadable;

/// Returns the value of a header that may be there once.
///
/// # Errors
/// It cannot be told what it says.
pub(crate) fn single<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'h str>, Unreadable> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => str::from_utf8(value.as_bytes()).map(Some).map_err(|_| Unreadable),
        (Some(_), Some(_)) => Err(Unreadable),
    }
}
