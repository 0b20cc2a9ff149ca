//! Routes: selects the route of a message and says what its integration does.
//!
//! Pure: it reads a message and returns an [`Outcome`]; whoever owns the socket carries it out. A
//! message that cannot be routed gets the frame of the contract and is counted, and the connection
//! stays open.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use crate::model::broker::{Channel, is_key};
use crate::model::call::{self, Event, Occasion, PlannedCall};
use crate::model::handshake::Handshake;
use crate::model::id::{NodeTag, RequestId};
use crate::model::registry::Record;
use crate::model::trail::Trail;
use crate::ops::metrics::{Metrics, RouteOutcome, Runs};
use crate::protocol::close::Close;
use crate::protocol::codec::{Opcode, encode};
use crate::routing::expression::{Body, Context, ContextKey, Expression};
use crate::routing::route::{Integration, Route, RouteTable};

pub(crate) mod frames;

/// Longest name of a group, in bytes.
pub(crate) const GROUP_NAME_MAX: usize = 128;

/// The routes of this node's stage.
#[derive(Debug)]
pub(crate) struct Gateway {
    table: RouteTable,
    /// Of each route, by its number, what counts its runs, and its key.
    runs: Vec<Runs>,
    keys: Vec<Arc<str>>,
    /// Counts messages that no route matched.
    unmatched: Runs,
    stage: Box<str>,
    tag: NodeTag,
}

/// What a message leads to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Names the run, for a later error frame.
    pub(crate) request: Option<RequestId>,
    /// The number of the route, if one matched.
    pub(crate) route: Option<usize>,
    /// Names the message, where its sender is told that.
    pub(crate) message: Option<RequestId>,
    /// What the contract says of a failure.
    pub(crate) failure: Option<Failure>,
    pub(crate) action: Option<Action>,
    /// A frame for the sender, once `action` is done.
    pub(crate) reply: Option<Bytes>,
}

/// Why a message leads to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Forbidden,
    BadBody,
}

/// What an integration does besides replying.
#[derive(Debug)]
pub(crate) enum Action {
    Publish {
        channel: Channel,
        frame: Bytes,
        key: Option<Arc<str>>,
    },
    /// Call a back end. In a box, as it is larger than the others and rarer.
    Call(Box<PlannedCall>),
    Join(Arc<str>),
    Leave(Arc<str>),
    /// Close, after the reply.
    Close,
}

/// What `$connect` leads to.
#[derive(Debug)]
pub(crate) enum Connecting {
    /// The handshake is answered with a status: 200 lets the client in.
    Answer(u16, Option<Action>),
    /// A back end is asked.
    Call(Box<PlannedCall>),
}

/// A message as its sender typed it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Payload<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
}

/// The body lacks what the route takes from it.
struct BadBody;

impl Gateway {
    pub(crate) fn new(table: RouteTable, stage: &str, tag: NodeTag, metrics: &Metrics) -> Self {
        let mut routes: Vec<_> = table.iter().collect();
        routes.sort_by_key(|route| route.number);
        let runs = routes.iter().map(|route| metrics.runs_of(&route.key)).collect();
        let keys = routes.iter().map(|route| Arc::clone(&route.key)).collect();
        Self { table, runs, keys, unmatched: metrics.runs_of("none"), stage: stage.into(), tag }
    }

    /// Routes one message of a client.
    pub(crate) fn on_message(&self, payload: Payload<'_>, record: &Arc<Record>) -> Outcome {
        let request = RequestId::mint();
        let run = Run { record, stage: &self.stage, tag: self.tag, request };
        let body = Body::new(match payload {
            Payload::Text(text) => text,
            Payload::Binary(_) => "",
        });
        let route = match payload {
            Payload::Text(_) if body.is_text() => self.table.for_text(),
            Payload::Text(_) => self.table.select(&body, &run),
            Payload::Binary(_) => self.table.for_binary(),
        };
        let Some(route) = route else {
            self.unmatched.count(RouteOutcome::Forbidden);
            let reply = Some(frames::forbidden(&record.id, &request));
            let failure = Some(Failure::Forbidden);
            return Outcome { request: Some(request), failure, reply, ..Outcome::default() };
        };
        match run.outcome(route, payload, &body) {
            Ok(outcome) => {
                // How a call ends is counted when it has.
                if !matches!(outcome.action, Some(Action::Call(_))) {
                    self.count(route, RouteOutcome::Ok);
                }
                outcome
            }
            Err(BadBody) => {
                self.count(route, RouteOutcome::BadBody);
                let message = RequestId::mint_message(self.tag);
                Outcome {
                    request: Some(request),
                    route: Some(route.number),
                    message: Some(message),
                    failure: Some(Failure::BadBody),
                    reply: Some(frames::bad_request_body(&record.id, &message)),
                    action: None,
                }
            }
        }
    }

    /// Returns the key of a route.
    pub(crate) fn key_of(&self, number: usize) -> Option<&str> {
        self.keys.get(number).map(|key| &**key)
    }

    fn count(&self, route: &Route, outcome: RouteOutcome) {
        if let Some(runs) = self.runs.get(route.number) {
            runs.count(outcome);
        }
    }

    /// Runs `$connect`.
    pub(crate) fn on_connect(&self, record: &Arc<Record>, handshake: &Handshake) -> Connecting {
        let Some(route) = self.table.connect() else { return Connecting::Answer(200, None) };
        if let Integration::Call { .. } = &route.integration {
            let occasion = Occasion::Connect(Arc::new(handshake.clone()));
            return match event(route, record, RequestId::mint(), occasion) {
                Some(call) => Connecting::Call(call),
                None => Connecting::Answer(route.status, None),
            };
        }
        Connecting::Answer(route.status, self.lifecycle_action(route, record, false))
    }

    /// Notes how the call of a route has ended.
    pub(crate) fn on_called(&self, route: &str, outcome: RouteOutcome) {
        if let Some(route) = self.table.get(route) {
            self.count(route, outcome);
        }
    }

    /// Returns whether `$disconnect` calls a back end.
    pub(crate) fn calls_at_end(&self) -> bool {
        self.table
            .disconnect()
            .is_some_and(|route| matches!(route.integration, Integration::Call { .. }))
    }

    /// Runs `$disconnect` of a connection that has ended so; a repetition is not counted again.
    pub(crate) fn on_disconnect(
        &self,
        record: &Arc<Record>,
        close: &Close,
        is_repeat: bool,
    ) -> Option<Action> {
        let route = self.table.disconnect()?;
        if let Integration::Call { .. } = &route.integration {
            if !is_repeat {
                self.count(route, RouteOutcome::Ok);
            }
            let occasion =
                Occasion::Disconnect { code: close.code(), reason: close.reason().into() };
            // The same whoever calls, and however often.
            let request = RequestId::of_end(&record.id);
            return event(route, record, request, occasion).map(Action::Call);
        }
        self.lifecycle_action(route, record, is_repeat)
    }

    /// The action of `$connect` or `$disconnect`; there is no body and nobody to reply to.
    fn lifecycle_action(
        &self,
        route: &Route,
        record: &Arc<Record>,
        is_repeat: bool,
    ) -> Option<Action> {
        let run = Run { record, stage: &self.stage, tag: self.tag, request: RequestId::mint() };
        let outcome = run.outcome(route, Payload::Text(""), &Body::new(""));
        if !is_repeat {
            let counted = if outcome.is_ok() { RouteOutcome::Ok } else { RouteOutcome::BadBody };
            self.count(route, counted);
        }
        outcome.ok().and_then(|outcome| outcome.action)
    }
}

/// Returns the call of a route that calls.
fn event(
    route: &Route,
    record: &Arc<Record>,
    request: RequestId,
    occasion: Occasion,
) -> Option<Box<PlannedCall>> {
    let Integration::Call { target, two_way, is_ordered } = &route.integration else { return None };
    let at = Timestamp::now();
    let trail = match &occasion {
        Occasion::Connect(handshake) => Trail::of(&handshake.headers),
        Occasion::Message { .. } | Occasion::Disconnect { .. } => None,
    };
    let event = Event {
        route: Arc::clone(&route.key),
        request,
        record: Arc::clone(record),
        at,
        trail: trail.unwrap_or_else(|| Trail::begin(at)),
        trace: None,
        occasion,
        wants_reply: *two_way,
        is_ordered: *is_ordered,
    };
    Some(Box::new(PlannedCall { target: target.clone(), event }))
}

/// One run of a route.
struct Run<'a> {
    record: &'a Arc<Record>,
    stage: &'a str,
    tag: NodeTag,
    request: RequestId,
}

impl Context for Run<'_> {
    fn get(&self, key: ContextKey) -> Cow<'_, str> {
        match key {
            ContextKey::ConnectionId => self.record.id.as_str().into(),
            ContextKey::RequestId => self.request.to_string().into(),
            ContextKey::Stage => self.stage.into(),
            ContextKey::SourceIp => self.record.source_ip.to_string().into(),
        }
    }
}

impl Run<'_> {
    fn outcome(
        &self,
        route: &Route,
        payload: Payload<'_>,
        body: &Body<'_>,
    ) -> Result<Outcome, BadBody> {
        let action = match &route.integration {
            Integration::Mock => None,
            Integration::Close => Some(Action::Close),
            Integration::Broadcast { data } => {
                let (frame, key) = (self.frame(data, payload, body)?, self.key(route, body)?);
                Some(Action::Publish { channel: Channel::Broadcast, frame, key })
            }
            Integration::SendGroup { group, data } => {
                let channel = Channel::Group(self.group(group, body)?);
                let (frame, key) = (self.frame(data, payload, body)?, self.key(route, body)?);
                Some(Action::Publish { channel, frame, key })
            }
            Integration::Join { group } => Some(Action::Join(self.group(group, body)?)),
            Integration::Leave { group } => Some(Action::Leave(self.group(group, body)?)),
            Integration::Call { .. } => {
                let body = match payload {
                    Payload::Text(text) => {
                        call::Body::Text(Bytes::copy_from_slice(text.as_bytes()))
                    }
                    Payload::Binary(bytes) => call::Body::Binary(Bytes::copy_from_slice(bytes)),
                };
                let occasion = Occasion::Message { id: RequestId::mint_message(self.tag), body };
                event(route, self.record, self.request, occasion).map(Action::Call)
            }
        };
        let reply =
            route.reply.as_ref().map(|reply| self.frame(reply, payload, body)).transpose()?;
        let (request, route) = (Some(self.request), Some(route.number));
        Ok(Outcome { request, route, action, reply, ..Outcome::default() })
    }

    /// The frame of an expression's text; the whole of a binary message goes on as binary.
    fn frame(
        &self,
        data: &Expression,
        payload: Payload<'_>,
        body: &Body<'_>,
    ) -> Result<Bytes, BadBody> {
        if let Payload::Binary(bytes) = payload
            && data.is_whole_body()
        {
            return Ok(encode(Opcode::Binary, bytes));
        }
        let text = data.render(body, self).ok_or(BadBody)?;
        Ok(encode(Opcode::Text, text.as_bytes()))
    }

    fn key(&self, route: &Route, body: &Body<'_>) -> Result<Option<Arc<str>>, BadBody> {
        let Some(key) = &route.idempotency_key else { return Ok(None) };
        let key = key.render(body, self).ok_or(BadBody)?;
        if is_key(&key) { Ok(Some(key.into())) } else { Err(BadBody) }
    }

    fn group(&self, group: &Expression, body: &Body<'_>) -> Result<Arc<str>, BadBody> {
        let name = group.render(body, self).ok_or(BadBody)?;
        if is_group_name(&name) { Ok(name.into()) } else { Err(BadBody) }
    }
}

/// Returns whether `name` may name a group or a user: 1 to 128 bytes, no control characters.
pub(crate) fn is_group_name(name: &str) -> bool {
    (1..=GROUP_NAME_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests;
