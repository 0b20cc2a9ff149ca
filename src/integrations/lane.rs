//! One back end: its queue, its breaker, and the tasks that carry calls out.
//!
//! A call's deadline starts when it is taken, and nothing pauses it: waiting for a turn counts. A
//! task carries one call out and is gone; what waits is a queue's entry.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::integrations::breaker::Breaker;
use crate::integrations::queue::{Bounds, Queue, Waiting};
use crate::integrations::target::{Failure, Target};
use crate::model::call::{Call, CallError, CallResult, Event, TargetName};
use crate::model::id::ConnectionId;
use crate::ops::metrics::backends::{CallOutcome, TargetMetrics};
use crate::ops::trace::{Called, Tracer};

/// Longest time between two looks for calls whose time is up.
const LOOK: Duration = Duration::from_millis(500);

/// Between two lines in the log about failures of one back end.
const TOLD: Duration = Duration::from_secs(10);

/// A back end, and how much it takes.
#[derive(Debug)]
pub(crate) struct BackEnd {
    pub(crate) name: TargetName,
    pub(crate) target: Arc<dyn Target>,
    pub(crate) bounds: Bounds,
    /// From when a call is taken to its answer.
    pub(crate) timeout: Duration,
}

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Lane {
    name: TargetName,
    target: Arc<dyn Target>,
    timeout: Duration,
    state: Mutex<State>,
    metrics: TargetMetrics,
    tracer: Arc<Tracer>,
    /// What spans say of the back end.
    attributes: Vec<(&'static str, String)>,
    told: Mutex<ToldFailures>,
    /// Tells of calls that wait.
    waits: Notify,
    /// Tells that there is nothing left.
    empty: Notify,
    runtime: Handle,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    breaker: Breaker,
}

/// What the log says of failures.
#[derive(Debug, Default)]
struct ToldFailures {
    last: Option<Instant>,
    untold: u64,
}

/// A call under way; dropping it makes room for the next.
struct UnderWay {
    lane: Arc<Lane>,
    ordered_by: Option<ConnectionId>,
    /// Nothing is known of a task that has panicked.
    got_through: bool,
}

enum Next {
    Begin(Waiting),
    Refuse(Waiting),
}

impl Lane {
    pub(super) fn new(
        BackEnd { name, target, bounds, timeout }: BackEnd,
        metrics: TargetMetrics,
        tracer: Arc<Tracer>,
    ) -> Self {
        Self {
            name,
            attributes: target.attributes(),
            tracer,
            target,
            timeout,
            state: Mutex::new(State { queue: Queue::new(bounds), breaker: Breaker::default() }),
            metrics,
            told: Mutex::default(),
            waits: Notify::new(),
            empty: Notify::new(),
            runtime: Handle::current(),
        }
    }

    /// Takes a call; never waits.
    pub(super) fn call(self: &Arc<Self>, call: Call) {
        let since = Instant::now();
        let waiting = Waiting { call, deadline: since + self.timeout, since };
        let refused = self.state.lock().queue.push(waiting).err();
        match refused {
            Some(waiting) => self.answer(waiting, Err(CallError::Overload)),
            None => self.go_on(),
        }
    }

    /// Begins what may begin.
    fn go_on(self: &Arc<Self>) {
        while let Some(next) = self.next() {
            match next {
                Next::Begin(waiting) => {
                    drop(self.runtime.spawn(Arc::clone(self).carry_out(waiting)));
                }
                Next::Refuse(waiting) => self.answer(waiting, Err(CallError::Unreachable)),
            }
        }
        let (waiting, in_flight) = self.state.lock().queue.len();
        self.metrics.waiting(waiting, in_flight);
        if waiting > 0 {
            self.waits.notify_one();
        } else if in_flight == 0 {
            self.empty.notify_waiters();
        }
    }

    fn next(&self) -> Option<Next> {
        let State { queue, breaker } = &mut *self.state.lock();
        let waiting = queue.begin()?;
        if breaker.admit(Instant::now()) {
            return Some(Next::Begin(waiting));
        }
        queue.end(waiting.lane());
        Some(Next::Refuse(waiting))
    }

    async fn carry_out(self: Arc<Self>, mut waiting: Waiting) {
        let (span, begun) = (self.tracer.call(&waiting.call.event), Instant::now());
        if let Some(span) = span {
            waiting.call.event.trail = span.trail();
        }
        let mut under_way =
            UnderWay { lane: Arc::clone(&self), ordered_by: waiting.lane(), got_through: false };
        let event = &waiting.call.event;
        let carried_out = self.target.carry_out(event, waiting.deadline);
        let result = match tokio::time::timeout_at(waiting.deadline, carried_out).await {
            Ok(result) => result,
            Err(_) => {
                Err(Failure { error: CallError::TimedOut, message: "no answer in time".to_owned() })
            }
        };
        let result = result.map_err(|failure| {
            self.tell(event, &failure);
            failure.error
        });
        under_way.got_through =
            !matches!(result, Err(CallError::Unreachable | CallError::TimedOut));
        if let Some(span) = span {
            let error = result.as_ref().err().map(|_| outcome(&result).label());
            let called = Called { name: &self.name.0, attributes: &self.attributes, error };
            let times = [waiting.since.into_std(), begun.into_std()];
            self.tracer.called(span, &waiting.call.event, times, called);
        }
        self.answer(waiting, result);
    }

    /// Answers calls whose time is up while they wait, for ever.
    pub(super) async fn expire(self: Arc<Self>) {
        loop {
            let next = self.state.lock().queue.next_deadline();
            let Some(next) = next else {
                self.waits.notified().await;
                continue;
            };
            tokio::time::sleep_until(next.min(Instant::now() + LOOK)).await;
            let expired = self.state.lock().queue.expired(Instant::now());
            if !expired.is_empty() {
                expired
                    .into_iter()
                    .for_each(|waiting| self.answer(waiting, Err(CallError::TimedOut)));
                self.go_on();
            }
        }
    }

    /// Returns how many calls wait for their turn.
    pub(super) fn waiting(&self) -> usize {
        self.state.lock().queue.len().0
    }

    /// Waits until there is nothing left to carry out. *Cancel safe.*
    pub(super) async fn settled(&self) {
        loop {
            let empty = self.empty.notified();
            if self.state.lock().queue.len() == (0, 0) {
                return;
            }
            empty.await;
        }
    }

    /// Writes a failure into the log: each at `debug`, and at `warn` one in [`TOLD`].
    fn tell(&self, event: &Event, Failure { error, message }: &Failure) {
        let (back_end, route, request) = (&*self.name.0, &*event.route, event.request);
        tracing::debug!(back_end, route, request = %request, %error, reason = message, "a call has failed");
        let mut told = self.told.lock();
        told.untold += 1;
        let now = Instant::now();
        if told.last.is_none_or(|last| last + TOLD <= now) {
            let count = std::mem::take(&mut told.untold);
            told.last = Some(now);
            tracing::warn!(
                back_end, route, request = %request, %error, reason = message, count,
                "calls of a back end have failed; RUST_LOG=gatecast=debug shows each"
            );
        }
    }

    fn answer(&self, waiting: Waiting, result: CallResult) {
        self.metrics.called(outcome(&result), waiting.since.elapsed());
        waiting.call.receipt.answer(result);
    }
}

fn outcome(result: &CallResult) -> CallOutcome {
    match result {
        Ok(_) => CallOutcome::Ok,
        Err(CallError::Failed) => CallOutcome::Failed,
        Err(CallError::TimedOut) => CallOutcome::TimedOut,
        Err(CallError::Unreachable) => CallOutcome::Unreachable,
        Err(CallError::Overload) => CallOutcome::Overload,
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let lane = &self.lane;
        let (has_opened, is_open) = {
            let State { queue, breaker } = &mut *lane.state.lock();
            queue.end(self.ordered_by);
            let has_opened = !self.got_through && breaker.on_failure(Instant::now());
            if self.got_through {
                breaker.on_answer();
            }
            (has_opened, breaker.is_open())
        };
        lane.metrics.breaker(is_open);
        if has_opened {
            tracing::warn!(
                back_end = &*lane.name.0,
                "a back end does not answer; calls fail at once for a while"
            );
        }
        lane.go_on();
    }
}

#[cfg(test)]
mod tests;
