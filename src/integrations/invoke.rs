//! The contract of what runs a Lambda function, wherever that is.

use std::fmt;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::model::id::RequestId;
use crate::model::trail::Trail;

/// Why a function has given no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvokeError {
    /// It threw, exited, or could not be started; what it says of itself is for the log.
    #[error("{kind}: {message}")]
    Function { kind: String, message: String },
    /// It did not answer before the deadline.
    #[error("no result before the deadline")]
    TimedOut,
    /// As many run as may, so it has not begun.
    #[error("takes no more calls now: {0}")]
    Overload(String),
    /// It could not be reached, so it has not begun.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
}

/// What a function is run for.
#[derive(Clone, Debug)]
pub(crate) struct Invocation {
    pub(crate) request: RequestId,
    /// In JSON.
    pub(crate) event: Bytes,
    /// The result is awaited until then.
    pub(crate) deadline: Instant,
    /// What the run is a part of.
    pub(crate) trail: Trail,
}

/// Runs a function. Dropping the future gives the result up, and not the run.
pub(crate) trait Invoke: fmt::Debug + Send + Sync {
    /// Hands an event to the function, and returns its result, in JSON as a rule.
    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Result<Bytes, InvokeError>>;
}
