//! Calls of back ends: what messages ask for, and what is answered.

use std::sync::Arc;

use super::Shard;
use super::access::Noted;
use crate::model::call::{AnswerBody, CallError, CallReceipt, CallResult, PlannedCall};
use crate::model::id::{ConnectionId, RequestId};
use crate::ops::metrics::RouteOutcome;
use crate::protocol::codec::{Opcode, encode};
use crate::routing::gateway::frames;
use crate::shard::connection::Reading;
use crate::shard::inbox;

impl Shard {
    /// Calls a back end for a connection, at the end of the turn's reading.
    pub(super) fn call(
        &mut self,
        key: usize,
        request: RequestId,
        call: PlannedCall,
        noted: Option<Noted>,
    ) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.calls += 1;
        let id = connection.ticket.record().id;
        let (hub, index, snapshot) =
            (Arc::clone(&self.parts.hub), self.index, Arc::clone(&self.snapshot));
        let (route, wants_reply) = (Arc::clone(&call.event.route), call.event.wants_reply);
        let receipt = CallReceipt::new(move |result: CallResult| {
            if let Some(noted) = noted {
                noted.called(&result);
            }
            snapshot.gateway.on_called(&route, RouteOutcome::of(&result));
            hub.inbox(index).push(inbox::Event::Called { id, request, result, wants_reply });
        });
        self.calls.push(call.with(receipt));
    }

    /// A call has ended. Its connection may have, too.
    pub(super) fn on_called(
        &mut self,
        id: &ConnectionId,
        request: &RequestId,
        result: CallResult,
        wants_reply: bool,
    ) {
        let Some(key) = self.by_id.get(id).copied() else { return };
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.calls -= 1;
        if connection.reading == Reading::Held {
            self.read_later(key);
        }
        let reply = match result {
            Ok(answer) => answer.body.filter(|_| wants_reply).map(|body| match body {
                AnswerBody::Text(text) => encode(Opcode::Text, &text),
                AnswerBody::Binary(bytes) => encode(Opcode::Binary, &bytes),
            }),
            Err(CallError::TimedOut) => Some(frames::timed_out(id, request)),
            Err(CallError::Failed | CallError::Unreachable | CallError::Overload) => {
                Some(frames::internal_server_error(id, request))
            }
        };
        if let Some(reply) = reply {
            self.reply(key, reply);
        }
    }
}
