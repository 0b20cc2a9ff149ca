//! What a pool speaks of: invocations, processes, and what is to be done with them.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use crate::integrations::invoke::InvokeError;
use crate::model::id::RequestId;
use crate::model::trail::Trail;
use crate::ops::metrics::FunctionOutcome;

/// A process that has answered asks again within this time, as a rule, so that nothing is started
/// instead.
pub(super) const ASKS_AGAIN: Duration = Duration::from_millis(50);

/// Names a process of a function; never given again.
pub(in super::super) type ProcessId = u64;

/// What a caller is told.
pub(in super::super) type Answer = Result<Bytes, Failure>;

/// Why there is no result, and how that is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Failure {
    pub(in super::super) outcome: FunctionOutcome,
    pub(in super::super) error: InvokeError,
}

/// An invocation.
#[derive(Debug)]
pub(in super::super) struct Job {
    pub(in super::super) request: RequestId,
    pub(in super::super) event: Bytes,
    /// The caller waits until then.
    pub(in super::super) deadline: Instant,
    pub(in super::super) trail: Trail,
    pub(in super::super) answer: oneshot::Sender<Answer>,
}

/// What a process is handed.
#[derive(Debug)]
pub(in super::super) struct Run {
    pub(in super::super) id: Uuid,
    pub(in super::super) event: Bytes,
    pub(in super::super) trail: Trail,
    /// The process is killed then.
    pub(in super::super) until: Instant,
}

/// What a pool goes by.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Rules {
    pub(in super::super) min: usize,
    pub(in super::super) max: usize,
    pub(in super::super) concurrency: usize,
    /// Longest run.
    pub(in super::super) timeout: Duration,
    /// Longest time from a start to the first question for work.
    pub(in super::super) init: Duration,
    /// Longest time for which a process has nothing to do.
    pub(in super::super) idle: Duration,
    /// Longest time for a process to exit after it has said that it cannot start.
    pub(in super::super) leave: Duration,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Action {
    Start(ProcessId),
    /// Ask it to end, and see that it does.
    Stop(ProcessId),
    /// End it at once.
    Kill(ProcessId),
}

/// The process may not ask that now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Misplaced;

impl Job {
    pub(super) fn fail(self, outcome: FunctionOutcome, error: InvokeError) {
        // Nobody may be waiting any more.
        _ = self.answer.send(Err(Failure { outcome, error }));
    }
}

pub(super) fn is_ending() -> InvokeError {
    InvokeError::Unreachable("the node is ending".to_owned())
}

pub(super) fn too_slow(timeout: Duration) -> InvokeError {
    let message = format!("Task timed out after {:.2} seconds", timeout.as_secs_f64());
    InvokeError::Function { kind: "Sandbox.Timedout".to_owned(), message }
}

pub(super) fn never_asked_for_work(init: Duration) -> InvokeError {
    let message = format!("the process did not ask for work within {init:?} of its start");
    InvokeError::Function { kind: "Sandbox.Timedout".to_owned(), message }
}
