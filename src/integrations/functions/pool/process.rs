//! What a pool knows of one process.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use super::words::{ASKS_AGAIN, Action, Job, ProcessId, Run};
use crate::ops::metrics::FunctionEnd;

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Process {
    pub(super) phase: Phase,
    /// Its questions for work, that nothing was answered to yet.
    pub(super) polls: VecDeque<oneshot::Sender<Run>>,
    pub(super) running: BTreeMap<Uuid, Running>,
    /// Runs that it was handed.
    pub(super) handed: u64,
    /// When it last began or ended a run.
    pub(super) used: Instant,
    /// Whether its code has changed since it was started.
    pub(super) is_outdated: bool,
}

/// How far the life of a process has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has not asked for work yet.
    Starting {
        until: Instant,
    },
    Ready,
    /// It has said that it cannot start, and exits.
    Leaving {
        until: Instant,
    },
    /// It is being ended.
    Stopping(FunctionEnd),
}

/// An invocation that a process has.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) job: Job,
    pub(super) until: Instant,
}

impl Process {
    pub(super) fn new(until: Instant, now: Instant) -> Self {
        Self {
            phase: Phase::Starting { until },
            polls: VecDeque::new(),
            running: BTreeMap::new(),
            handed: 0,
            used: now,
            is_outdated: false,
        }
    }

    pub(super) fn ask(&mut self, poll: oneshot::Sender<Run>) {
        self.polls.retain(|poll| !poll.is_closed());
        self.polls.push_back(poll);
    }

    /// Returns whether it can be handed something, of which it has `most` at a time.
    pub(super) fn is_open(&mut self, most: usize) -> bool {
        while self.polls.front().is_some_and(oneshot::Sender::is_closed) {
            self.polls.pop_front();
        }
        let has_room = self.running.len() < most && !self.polls.is_empty();
        self.phase == Phase::Ready && !self.is_outdated && has_room
    }

    /// Hands something out; returns it if nobody takes it.
    pub(super) fn hand(&mut self, run: Run, job: Job, now: Instant) -> Result<(), Job> {
        let (id, until) = (run.id, run.until);
        match self.polls.pop_front().map(|poll| poll.send(run)) {
            Some(Ok(())) => {
                self.running.insert(id, Running { job, until });
                (self.handed, self.used) = (self.handed + 1, now);
                Ok(())
            }
            Some(Err(_)) | None => Err(job),
        }
    }

    /// Asks it to end.
    pub(super) fn stop(&mut self, id: ProcessId, end: FunctionEnd) -> Action {
        self.phase = Phase::Stopping(end);
        self.polls.clear();
        Action::Stop(id)
    }

    pub(super) fn is_alive(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. } | Phase::Ready)
    }

    pub(super) fn is_starting(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. })
    }

    /// Returns until when it may be about to ask for work.
    pub(super) fn asks_until(&self, now: Instant) -> Option<Instant> {
        let is_between =
            self.phase == Phase::Ready && self.running.is_empty() && self.polls.is_empty();
        Some(self.used + ASKS_AGAIN).filter(|until| is_between && *until > now)
    }

    pub(super) fn is_idle_since(&self, now: Instant, idle: Duration) -> bool {
        self.phase == Phase::Ready && self.running.is_empty() && self.used + idle <= now
    }

    /// Returns when something has to be done about it; `idle` is how long it may have nothing to
    /// do, if that is bounded.
    pub(super) fn next_wake(&self, idle: Option<Duration>) -> Option<Instant> {
        match self.phase {
            Phase::Starting { until } | Phase::Leaving { until } => Some(until),
            Phase::Ready if self.running.is_empty() => idle.map(|idle| self.used + idle),
            Phase::Ready => self.running.values().map(|running| running.until).min(),
            Phase::Stopping(_) => None,
        }
    }
}
