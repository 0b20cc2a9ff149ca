//! Calls of back ends, and the contract of whoever carries them out.
//!
//! Contract: [`Backends::call`] never waits. Every call is answered once, whatever becomes of the
//! back end, of the node and of the task that carries it out; a call that is dropped is answered
//! [`CallError::Failed`]. Calls of one target are bounded in number and bytes; over the bound the
//! answer is [`CallError::Overload`], at once.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use crate::model::handshake::Handshake;
use crate::model::id::RequestId;
use crate::model::registry::Record;
use crate::model::trace_context::TraceContext;
use crate::model::trail::Trail;

/// Counted for a call besides its body, in bytes.
pub(crate) const CALL_WEIGHT: usize = 512;

/// Names a back end among those that are configured: `functions.NAME` or `targets.NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TargetName(pub(crate) Arc<str>);

/// A call that nobody waits for yet.
#[derive(Debug)]
pub(crate) struct PlannedCall {
    pub(crate) target: TargetName,
    pub(crate) event: Event,
}

/// One call of a back end.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) target: TargetName,
    pub(crate) event: Event,
    pub(crate) receipt: CallReceipt,
}

/// What a back end is told.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) route: Arc<str>,
    /// The same for each try.
    pub(crate) request: RequestId,
    pub(crate) record: Arc<Record>,
    pub(crate) at: Timestamp,
    pub(crate) occasion: Occasion,
    /// Whether the sender is sent what is answered.
    pub(crate) wants_reply: bool,
    /// What the call is a part of, for the back end.
    pub(crate) trail: Trail,
    /// The span of the handshake that it is a part of, if that is sampled.
    pub(crate) trace: Option<TraceContext>,
    /// Whether the calls of one connection go one after the other, in their order.
    pub(crate) is_ordered: bool,
}

/// What is the same in all events of a gateway.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) stage: String,
    /// Host, with its port where that is not 443, at which back ends reach the management API.
    pub(crate) domain_name: String,
    pub(crate) api_id: String,
}

/// Why a back end is called.
#[derive(Clone, Debug)]
pub(crate) enum Occasion {
    /// A client wants to come in.
    Connect(Arc<Handshake>),
    /// A client has sent a message.
    Message { id: RequestId, body: Body },
    /// A connection has ended, with the code and reason of its close frame.
    Disconnect { code: u16, reason: Box<str> },
}

/// What a client has sent.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    Text(Bytes),
    Binary(Bytes),
}

/// What a back end has answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Of a handshake: what the client is answered.
    pub(crate) status: u16,
    /// What the sender is sent, where the route is two-way.
    pub(crate) body: Option<AnswerBody>,
    /// The sub-protocol that the handshake selects.
    pub(crate) subprotocol: Option<Box<str>>,
}

impl Answer {
    /// Returns the length of the body.
    pub(crate) fn len(&self) -> usize {
        match &self.body {
            Some(AnswerBody::Text(body) | AnswerBody::Binary(body)) => body.len(),
            None => 0,
        }
    }
}

/// The body of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AnswerBody {
    Text(Bytes),
    Binary(Bytes),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// The back end has failed: it threw, or what it answered is no result.
    #[error("the back end has failed")]
    Failed,
    /// It did not answer in time.
    #[error("the back end did not answer in time")]
    TimedOut,
    /// It could not be reached, so it has not begun.
    #[error("the back end cannot be reached")]
    Unreachable,
    /// It takes no more calls now, or as many wait for it as may.
    #[error("the back end takes no more calls now")]
    Overload,
}

/// What became of a call.
pub(crate) type CallResult = Result<Answer, CallError>;

/// Where the answer goes. Dropped without one, it tells that the call has failed.
pub(crate) struct CallReceipt(Option<Box<dyn FnOnce(CallResult) + Send>>);

impl CallReceipt {
    /// `told` must not wait.
    pub(crate) fn new(told: impl FnOnce(CallResult) + Send + 'static) -> Self {
        Self(Some(Box::new(told)))
    }

    /// Answers.
    pub(crate) fn answer(mut self, result: CallResult) {
        if let Some(told) = self.0.take() {
            told(result);
        }
    }
}

impl Drop for CallReceipt {
    fn drop(&mut self) {
        if let Some(told) = self.0.take() {
            told(Err(CallError::Failed));
        }
    }
}

impl fmt::Debug for CallReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallReceipt")
    }
}

impl PlannedCall {
    pub(crate) fn with(self, receipt: CallReceipt) -> Call {
        let Self { target, event } = self;
        Call { target, event, receipt }
    }
}

impl Event {
    /// Returns what the event counts while it waits, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let body = match &self.occasion {
            Occasion::Message { body: Body::Text(body) | Body::Binary(body), .. } => body.len(),
            Occasion::Connect(handshake) => handshake.weight(),
            Occasion::Disconnect { reason, .. } => reason.len(),
        };
        CALL_WEIGHT + body
    }
}

/// See the [module documentation](self) for the contract.
pub(crate) trait Backends: fmt::Debug + Send + Sync {
    /// Carries a call out.
    fn call(&self, call: Call);
}

/// Back ends of tests and benchmarks.
#[cfg(any(test, feature = "bench"))]
pub(crate) mod fake {
    use super::*;

    /// No back end, so every call fails.
    #[derive(Debug)]
    pub(crate) struct Nobody;

    impl Backends for Nobody {
        fn call(&self, _: Call) {}
    }
}
