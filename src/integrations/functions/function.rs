//! One function: its pool, and the way in for those who invoke it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::pool::{Failure, Job, Pool, Rules};
use crate::config::{FunctionSettings, Runtime};
use crate::integrations::invoke::{Invocation, Invoke, InvokeError};
use crate::ops::metrics::{FunctionCounters, FunctionOutcome};

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Function {
    pub(super) name: Arc<str>,
    pub(super) runtime: Runtime,
    pub(super) arn: String,
    pub(super) counters: FunctionCounters,
    pool: Mutex<Pool>,
    /// Told when the pool wants a turn.
    due: Notify,
    /// Cancelled once nothing is under way, after [`Function::end`].
    quiet: CancellationToken,
}

/// Counts an invocation, whatever becomes of whoever waits for it.
struct Counted<'f> {
    counters: &'f FunctionCounters,
    outcome: FunctionOutcome,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.counters.count_invocation(self.outcome);
    }
}

impl Function {
    pub(super) fn new(
        FunctionSettings { name, runtime, .. }: &FunctionSettings,
        region: &str,
        rules: Rules,
        counters: FunctionCounters,
    ) -> Self {
        Self {
            name: name.as_str().into(),
            runtime: *runtime,
            arn: format!("arn:aws:lambda:{region}:000000000000:function:{name}"),
            counters,
            pool: Mutex::new(Pool::new(rules)),
            due: Notify::new(),
            quiet: CancellationToken::new(),
        }
    }

    /// Does something with the pool, and sees that it has its turn if it wants one.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Pool, Instant) -> T) -> T {
        let (mut pool, now) = (self.pool.lock(), Instant::now());
        let failures = pool.backoff().failures();
        let result = act(&mut pool, now);
        let (is_due, is_over) = (pool.is_due(), pool.is_ending() && pool.is_quiet());
        let backoff = pool.backoff();
        let paused = backoff.pause().filter(|_| backoff.failures() > failures).cloned();
        drop(pool);
        if let Some((error, until)) = paused {
            let again_in = until.saturating_duration_since(now);
            tracing::warn!(
                function = &*self.name,
                %error,
                ?again_in,
                "a function cannot start, and is not run meanwhile; mend its code or its settings"
            );
        }
        if is_due {
            self.due.notify_one();
        }
        if is_over {
            self.quiet.cancel();
        }
        result
    }

    /// Waits until the pool wants a turn. *Cancel safe.*
    pub(super) async fn due(&self) {
        self.due.notified().await;
    }

    /// Takes no more invocations.
    pub(super) fn refuse(&self) {
        self.with(|pool, _| pool.end());
    }

    /// Waits for what is under way, after [`Function::refuse`]. *Cancel safe.*
    pub(super) async fn end(&self) {
        self.quiet.cancelled().await;
    }
}

impl Invoke for Function {
    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Result<Bytes, InvokeError>> {
        let Invocation { request, event, deadline, trail } = invocation;
        Box::pin(async move {
            let mut counted =
                Counted { counters: &self.counters, outcome: FunctionOutcome::Abandoned };
            let (answer, answered) = oneshot::channel();
            self.with(|pool, now| pool.take(Job { request, event, deadline, trail, answer }, now));
            let (outcome, result) = match timeout_at(deadline, answered).await {
                Ok(Ok(Ok(result))) => (FunctionOutcome::Ok, Ok(result)),
                Ok(Ok(Err(Failure { outcome, error }))) => (outcome, Err(error)),
                Ok(Err(_)) => {
                    let error = InvokeError::Unreachable("the node is ending".to_owned());
                    (FunctionOutcome::Ending, Err(error))
                }
                Err(_) => (FunctionOutcome::Timeout, Err(InvokeError::TimedOut)),
            };
            counted.outcome = outcome;
            result
        })
    }
}
