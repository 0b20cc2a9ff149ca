//! Lines of the access log about messages: each is written once it is known what came of its
//! message.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use crate::config::Snapshot;
use crate::model::broker::{Answered, PublishResult, Recipient};
use crate::model::call::{CallResult, Occasion};
use crate::model::id::{ConnectionId, RequestId};
use crate::model::registry::Record;
use crate::ops::access::{AccessLog, Entry, EntryEnd, EntryKind};
use crate::routing::gateway::{Action, Failure, Outcome};
use crate::shard::hub::Hub;
use crate::shard::inbox::Event;

/// A message that is to have a line.
pub(super) struct Noted {
    log: Arc<AccessLog>,
    snapshot: Arc<Snapshot>,
    record: Arc<Record>,
    route: Option<usize>,
    request: RequestId,
    message: Option<RequestId>,
    at: Timestamp,
    since: Instant,
    end: EntryEnd<'static>,
}

impl fmt::Debug for Noted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Noted").field("request", &self.request.to_string()).finish_non_exhaustive()
    }
}

/// What is known of a message from the start; `None` where there is no log.
pub(super) fn begin(
    log: &Arc<AccessLog>,
    snapshot: &Arc<Snapshot>,
    record: &Arc<Record>,
    outcome: &Outcome,
) -> Option<Noted> {
    if !log.is_on() {
        return None;
    }
    let message = match &outcome.action {
        Some(Action::Call(call)) => match call.event.occasion {
            Occasion::Message { id, .. } => Some(id),
            Occasion::Connect(_) | Occasion::Disconnect { .. } => None,
        },
        _ => outcome.message,
    };
    let end = match outcome.failure {
        None => EntryEnd::OK,
        Some(Failure::Forbidden) => failed(403, "Forbidden"),
        Some(Failure::BadBody) => failed(400, "Bad request body"),
    };
    Some(Noted {
        log: Arc::clone(log),
        snapshot: Arc::clone(snapshot),
        record: Arc::clone(record),
        route: outcome.route,
        request: outcome.request?,
        message,
        at: Timestamp::now(),
        since: Instant::now(),
        end,
    })
}

fn failed(status: u16, error: &'static str) -> EntryEnd<'static> {
    EntryEnd { status, error: Some(error), latency: None }
}

impl Noted {
    /// The client has asked for more than it may.
    pub(super) fn refuse(&mut self) {
        self.end = failed(429, "Limit exceeded");
    }

    /// Writes the line.
    pub(super) fn write(self) {
        self.log.note(&Entry {
            kind: EntryKind::Message,
            route: self.route.and_then(|number| self.snapshot.gateway.key_of(number)),
            request: self.request,
            message: self.message,
            who: (&*self.record).into(),
            at: self.at,
            end: self.end,
            close: None,
        });
    }

    /// Writes the line of a message that has called a back end.
    pub(super) fn called(mut self, result: &CallResult) {
        self.end = EntryEnd::of_call(result.as_ref().err().copied(), self.since.elapsed());
        self.write();
    }

    /// Returns whom to tell what became of a message that is published.
    pub(super) fn publishing(self, hub: &Arc<Hub>, id: ConnectionId) -> Recipient {
        Recipient::Told(Box::new(Publishing { noted: self, hub: Arc::clone(hub), id }))
    }
}

/// A message on its way to the broker.
#[derive(Debug)]
struct Publishing {
    noted: Noted,
    hub: Arc<Hub>,
    id: ConnectionId,
}

impl Answered for Publishing {
    fn answered(self: Box<Self>, result: PublishResult) {
        let Self { mut noted, hub, id } = *self;
        if result.is_err() {
            noted.end = failed(500, "Internal server error");
            hub.inbox_of(&id).push(Event::PublishFailed { id, request: noted.request });
        }
        noted.write();
    }
}
