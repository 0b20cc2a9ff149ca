//! The management API: `POST/GET/DELETE /{stage}/@connections/{id}` as API Gateway has it, and
//! extensions.
//!
//! Extensions have the same authentication: sends to many, memberships, and lists (`listing.rs`);
//! `path.rs` has the table of all. Every answer is empty or JSON, since the SDKs parse nothing
//! else; every error has its `x-amzn-ErrorType`.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use jiff::Timestamp;
use tokio::sync::oneshot;
use warp::Filter;
use warp::path::FullPath;

pub(super) use self::answers::not_local;
use self::answers::{
    forbidden, gone, invalid_name, no_content, not_authentic, out_of_scope, published,
};
use self::body::BodyError;
use self::callers::Callers;
use self::path::{Endpoint, Found, Path};
use super::answer::{
    bad_request, closing, error_reply, json_reply, method_not_allowed, unavailable,
};
use super::caller::Caller;
use super::listing::{self, Lister};
use super::local;
use super::request::busy;
use super::slots::{Busy, RequestKind};
use crate::cluster::nodes::Nodes;
use crate::cluster::peers::{Answer, Operation};
use crate::config::{AccessKey, Snapshots};
use crate::edge::sigv4::Scope;
use crate::model::broker::{
    Broker, Channel, Key, Publication, PublishError, Receipt, Recipient, is_key,
};
use crate::model::id::{ConnectionId, RequestId};
use crate::model::trace_context::TraceContext;
use crate::ops::metrics::{CutCause, HttpState};
use crate::ops::refusals::Told;
use crate::ops::telemetry::Telemetry;
use crate::protocol::codec::{Opcode, encode};
use crate::routing::gateway::is_group_name;
use crate::shard::hub::Hub;
use crate::sigv4::SignedRequest;

mod answers;
mod body;
mod callers;
mod path;

/// What the management API works with.
#[derive(Clone, Debug)]
pub(crate) struct Manage {
    pub(crate) stage: Arc<str>,
    /// Whether callers sign whatever the settings ask for.
    pub(crate) must_sign: bool,
    /// Keys of functions, which open connections alone.
    pub(crate) functions: Arc<[AccessKey]>,
    pub(crate) snapshots: Snapshots,
    pub(crate) nodes: Nodes,
    pub(crate) lister: Lister,
    pub(crate) hub: Arc<Hub>,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) telemetry: Telemetry,
}

/// A request whose path is the management API's.
struct Call {
    method: Method,
    path: Path,
    wire_path: FullPath,
    query: Option<String>,
    caller: Caller,
    headers: HeaderMap,
    body: Result<Bytes, BodyError>,
    /// Spans of the request, if it is sampled.
    trace: Option<TraceContext>,
}

/// Returns whether a path is the management API's.
pub(crate) fn is_path(path: &str) -> bool {
    Path::is_ours(path)
}

/// The routes of the management API; other paths are rejected.
pub(crate) fn routes(
    manage: Arc<Manage>,
) -> impl Filter<Extract = (Response<Vec<u8>>,), Error = warp::Rejection> + Clone {
    let (snapshots, budget) = (manage.snapshots.clone(), Arc::clone(manage.hub.budget()));
    let path = warp::path::full().and_then(|path: FullPath| async move {
        Path::parse(path.as_str()).map(|parsed| (parsed, path)).ok_or_else(warp::reject::not_found)
    });
    let query = warp::query::raw().map(Some).or(warp::any().map(|| None)).unify();
    path.untuple_one()
        .and(warp::method())
        .and(query)
        .and(warp::ext::get::<Caller>())
        .and(warp::header::headers_cloned())
        .and(warp::body::stream().then(move |stream| {
            let (limits, budget) = (snapshots.latest().limits, Arc::clone(&budget));
            async move {
                body::read(stream, limits.message_bytes, limits.handshake_timeout, &budget).await
            }
        }))
        .map(|path, wire_path, method, query, caller, headers, body| Call {
            method,
            path,
            wire_path,
            query,
            caller,
            headers,
            body,
            trace: None,
        })
        .then(move |call| {
            let manage = Arc::clone(&manage);
            async move { manage.take(call).await }
        })
}

impl Manage {
    /// Returns the same API for those alone who sign.
    pub(crate) fn for_signed(&self) -> Self {
        Self { must_sign: true, ..self.clone() }
    }

    /// Returns who may call now.
    fn callers(&self) -> Callers {
        let management = &self.snapshots.latest().management;
        let make = if self.must_sign { Callers::signed } else { Callers::new };
        make(management, &self.functions)
    }

    /// Answers a call when its turn comes.
    async fn take(&self, call: Call) -> Response<Vec<u8>> {
        let (visit, fault) = (call.caller.visit.clone(), call.body.as_ref().err().copied());
        if fault == Some(BodyError::Late) {
            visit.cut(HttpState::Body, CutCause::Timeout);
        }
        let answer = match visit.serve(RequestKind::Call).await {
            Ok(_turn) => self.answer(call).await,
            Err(Busy) => busy(),
        };
        // A body that was not read to its end is where the connection ends.
        if fault.is_some() { closing(answer) } else { answer }
    }

    async fn answer(&self, mut call: Call) -> Response<Vec<u8>> {
        let (began, callers) = (Instant::now(), self.callers());
        let admitted = self.admit(&callers, &call);
        // Whoever may not call may not have themselves sampled either.
        call.trace = self.telemetry.tracer.request(admitted.is_ok().then_some(&call.headers));
        let (operation, mut answer) = match admitted {
            Ok(scope) => self.dispatch(&call, scope).await,
            Err(refusal) => ("unauthenticated", refusal),
        };
        self.telemetry
            .metrics
            .management
            .with_label_values(&[operation, answer.status().as_str()])
            .inc();
        self.tell(&callers, &call, &answer);
        if let Some(trace) = call.trace {
            self.telemetry.tracer.answered(trace, operation, began, answer.status());
        }
        // Not `new_v4`, which asks the kernel for each.
        let request = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
        let (second, random) = (Timestamp::now().as_second(), rand::random::<u128>() >> 32);
        let ids = [
            ("x-amzn-requestid", request.to_string()),
            ("x-amz-apigw-id", RequestId::mint().to_string()),
            ("x-amzn-trace-id", format!("Root=1-{second:08x}-{random:024x}")),
        ];
        for (name, id) in ids {
            if let Ok(id) = HeaderValue::from_str(&id) {
                answer.headers_mut().insert(HeaderName::from_static(name), id);
            }
        }
        answer
    }

    /// Logs a call that is refused. That something is not there is an answer, and who is not of
    /// this host is told of already.
    fn tell(&self, callers: &Callers, call: &Call, answer: &Response<Vec<u8>>) {
        let status = answer.status();
        let is_said = matches!(callers, Callers::Local) && status == StatusCode::FORBIDDEN;
        let is_refused = status.is_client_error() || status.is_server_error();
        if !is_refused || is_said || matches!(status, StatusCode::GONE | StatusCode::NOT_FOUND) {
            return;
        }
        let cause = status.canonical_reason().unwrap_or("other");
        let address = call.caller.peer.ip().to_canonical();
        let message = String::from_utf8_lossy(answer.body());
        self.telemetry.metrics.refusals.tell(Told {
            what: "management",
            cause,
            address,
            conn: None,
            message: &message,
        });
    }

    /// Returns what a caller may do, or how to refuse one who has not shown that they may call.
    #[expect(clippy::result_large_err, reason = "it is the answer, and is moved once")]
    fn admit(&self, callers: &Callers, call: &Call) -> Result<Scope, Response<Vec<u8>>> {
        let verifier = match callers {
            Callers::Any => return Ok(Scope::All),
            Callers::Local => {
                let address = Some(call.caller.peer.ip());
                let refused =
                    |foreign| not_local(foreign, address, &self.telemetry.metrics.refusals);
                let checked = local::check(&call.headers, call.caller.version);
                return checked.map(|()| Scope::All).map_err(refused);
            }
            Callers::Signed(verifier) => verifier,
        };
        let body = call.body.as_ref().map_err(|fault| fault.answer())?;
        let request = SignedRequest {
            method: &call.method,
            path: call.wire_path.as_str(),
            query: call.query.as_deref(),
            headers: &call.headers,
            body,
        };
        let verified = verifier.verify(&request, SystemTime::now());
        verified.map(|(_, scope)| scope).map_err(|error| not_authentic(&error))
    }

    async fn dispatch(&self, call: &Call, scope: Scope) -> (&'static str, Response<Vec<u8>>) {
        let (endpoint, [name, group]) = match call.path.find(&self.stage, call.method.as_str()) {
            Found::Endpoint(endpoint, names) => (endpoint, names),
            Found::OtherMethod => {
                return ("none", method_not_allowed(&call.path.methods(&self.stage)));
            }
            Found::Unreadable => {
                return ("none", bad_request("The path must be UTF-8, percent-encoded"));
            }
            Found::Nothing => return ("none", forbidden()),
        };
        let answer = match &call.body {
            Ok(_) if !endpoint.is_open_to(scope) => out_of_scope(),
            Ok(_) if endpoint.takes_memory() && self.hub.budget().is_tight() => {
                BodyError::Memory.answer()
            }
            Ok(body) => self.serve(endpoint, [name, group], call, body).await,
            Err(fault) => fault.answer(),
        };
        (endpoint.label(), answer)
    }

    async fn serve(
        &self,
        endpoint: Endpoint,
        [name, group]: [&str; 2],
        call: &Call,
        body: &[u8],
    ) -> Response<Vec<u8>> {
        let query = call.query.as_deref();
        let (name, group): (Arc<str>, Arc<str>) = (name.into(), group.into());
        match endpoint {
            Endpoint::Post => self.perform(Operation::Post, &name, body).await,
            Endpoint::Get => self.perform(Operation::Get, &name, body).await,
            Endpoint::Delete => self.perform(Operation::Delete, &name, body).await,
            Endpoint::GroupsOf => self.perform(Operation::Groups, &name, body).await,
            Endpoint::Join if is_group_name(&group) => {
                self.perform(Operation::Join(group), &name, body).await
            }
            Endpoint::Leave if is_group_name(&group) => {
                self.perform(Operation::Leave(group), &name, body).await
            }
            Endpoint::Join | Endpoint::Leave => invalid_name(),
            Endpoint::SendToGroup | Endpoint::SendToUser if !is_group_name(&name) => invalid_name(),
            Endpoint::GroupConnections | Endpoint::UserConnections | Endpoint::History
                if !is_group_name(&name) =>
            {
                invalid_name()
            }
            Endpoint::Broadcast => self.publish(Channel::Broadcast, call, body).await,
            Endpoint::SendToGroup => self.publish(Channel::Group(name), call, body).await,
            Endpoint::SendToUser => self.publish(Channel::User(name), call, body).await,
            Endpoint::Connections => self.lister.connections(Channel::Broadcast, query).await,
            Endpoint::GroupConnections => {
                self.lister.connections(Channel::Group(name), query).await
            }
            Endpoint::UserConnections => self.lister.connections(Channel::User(name), query).await,
            Endpoint::Groups => self.lister.groups(query).await,
            Endpoint::History => self.lister.history(&Channel::Group(name), query).await,
            Endpoint::Counts => self.lister.counts().await,
            Endpoint::Functions => self.lister.functions().await,
            Endpoint::Document => json_reply(StatusCode::OK, listing::DOCUMENT.into()),
        }
    }

    /// Does something with a connection, wherever it is.
    async fn perform(&self, operation: Operation, id: &str, body: &[u8]) -> Response<Vec<u8>> {
        let Some(id) = ConnectionId::parse(id) else {
            return bad_request(&format!("Invalid connectionId: {id}"));
        };
        let is_silent = matches!(operation, Operation::Delete | Operation::Leave(_));
        let limit =
            |message| error_reply(StatusCode::TOO_MANY_REQUESTS, "LimitExceededException", message);
        match self.nodes.ask(operation, id, frame(body)).await {
            Ok(Answer::Done) if is_silent => no_content(),
            Ok(Answer::Done) => json_reply(StatusCode::OK, Vec::new()),
            Ok(Answer::Described(text)) => json_reply(StatusCode::OK, text.into_bytes()),
            Ok(Answer::Gone) => gone(),
            Ok(Answer::Full) => limit("The connection does not take its messages fast enough"),
            Ok(Answer::TooMany) => limit("The connection is in as many groups as it may be"),
            Ok(Answer::Refused) => unavailable("The group's messages cannot be had now"),
            Ok(Answer::Listed(_)) => unavailable("The connection's node answered something else"),
            Err(error) => unavailable(&error.to_string()),
        }
    }

    async fn publish(&self, channel: Channel, call: &Call, body: &[u8]) -> Response<Vec<u8>> {
        let key = match idempotency_key(&call.headers) {
            Ok(key) => key,
            Err(message) => return bad_request(message),
        };
        let (caller, answer) = oneshot::channel();
        let receipt = Receipt { trace: call.trace, ..Receipt::new(Recipient::Caller(caller)) };
        let publication =
            Publication { channel, frame: frame(body), key: key.map(Key::Given), receipt };
        self.broker.publish(&mut vec![publication]);
        match answer.await {
            Ok(Ok(accepted)) => published(accepted),
            Ok(Err(error @ PublishError::Overload)) => error_reply(
                StatusCode::TOO_MANY_REQUESTS,
                "LimitExceededException",
                &error.to_string(),
            ),
            Ok(Err(error @ (PublishError::Unavailable | PublishError::Refused(_)))) => {
                unavailable(&error.to_string())
            }
            Ok(Err(PublishError::TooLong)) => BodyError::TooLarge.answer(),
            Ok(Err(error @ PublishError::KeyUnkept)) => bad_request(&error.to_string()),
            Err(_) => unavailable("The node is shutting down"),
        }
    }
}

/// A body that is UTF-8 goes out as text, any other as bytes: nothing a back end posts is refused
/// or bent.
fn frame(body: &[u8]) -> Bytes {
    let opcode = if str::from_utf8(body).is_ok() { Opcode::Text } else { Opcode::Binary };
    encode(opcode, body)
}

/// Returns the key that keeps a retry from being published twice.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<Arc<str>>, &'static str> {
    let mut values = headers.get_all("idempotency-key").iter();
    match (values.next().map(HeaderValue::to_str), values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(key)), None) if is_key(key) => Ok(Some(key.into())),
        (Some(_), None) => Err("Idempotency-Key must have 1 to 64 printable ASCII characters"),
        (Some(_), Some(_)) => Err("There must be one Idempotency-Key"),
    }
}
