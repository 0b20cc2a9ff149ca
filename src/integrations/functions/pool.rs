//! The processes of a function, and the invocations that wait for them. Without I/O: whoever owns a
//! pool carries out what [`Pool::turn`] says, and tells it what has become of the processes.
//!
//! - *Rule:* an invocation is answered once, or its caller's deadline passes.
//! - *Rule:* a process has at most `concurrency` runs at a time, however often it asks.
//! - *Rule:* while no process can be started, callers are told so at once; after a pause one is
//!   tried again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use self::backoff::Backoff;
use self::process::{Phase, Process};
pub(super) use self::state::State;
pub(super) use self::words::{Action, Answer, Failure, Job, Misplaced, ProcessId, Rules, Run};
use self::words::{is_ending, never_asked_for_work, too_slow};
use crate::integrations::invoke::InvokeError;
use crate::model::id::RequestId;
use crate::ops::metrics::{FunctionEnd, FunctionOutcome};

mod backoff;
mod process;
mod state;
#[cfg(test)]
mod tests;
mod words;

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Pool {
    rules: Rules,
    waiting: VecDeque<Job>,
    processes: BTreeMap<ProcessId, Process>,
    started: ProcessId,
    backoff: Backoff,
    is_ending: bool,
    /// When the next turn is due of itself.
    wake: Option<Instant>,
    /// Whether a turn is due now.
    is_due: bool,
}

impl Pool {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            waiting: VecDeque::new(),
            processes: BTreeMap::new(),
            started: 0,
            backoff: Backoff::default(),
            is_ending: false,
            wake: None,
            is_due: true,
        }
    }

    /// Takes an invocation: it is handed to a process, waits for one, or is answered why not.
    pub(super) fn take(&mut self, job: Job, now: Instant) {
        if self.is_ending {
            return job.fail(FunctionOutcome::Ending, is_ending());
        }
        if let Some((error, until)) = self.backoff.pause()
            && *until > now
            && !self.is_serving()
        {
            return job.fail(FunctionOutcome::Init, error.clone());
        }
        self.waiting.push_back(job);
        self.dispatch(now);
        self.is_due |= !self.waiting.is_empty();
    }

    /// A process asks for work.
    pub(super) fn ask(
        &mut self,
        id: ProcessId,
        poll: oneshot::Sender<Run>,
        now: Instant,
    ) -> Result<(), Misplaced> {
        let process = self.processes.get_mut(&id).ok_or(Misplaced)?;
        match process.phase {
            Phase::Starting { .. } => {
                process.phase = Phase::Ready;
                (self.backoff, self.is_due) = (Backoff::default(), true);
            }
            Phase::Ready => {}
            Phase::Leaving { .. } | Phase::Stopping(_) => return Err(Misplaced),
        }
        process.ask(poll);
        self.dispatch(now);
        Ok(())
    }

    /// A process has not taken what it was handed, so that it has not begun.
    pub(super) fn take_back(&mut self, id: ProcessId, run: Uuid, now: Instant) {
        if let Some(running) =
            self.processes.get_mut(&id).and_then(|process| process.running.remove(&run))
        {
            self.waiting.push_front(running.job);
            self.dispatch(now);
            self.is_due = true;
        }
    }

    /// A process has a result. Returns whether it was asked for.
    pub(super) fn answer(
        &mut self,
        id: ProcessId,
        run: Uuid,
        answer: Answer,
        now: Instant,
    ) -> bool {
        let Some(process) = self.processes.get_mut(&id) else { return false };
        let Some(running) = process.running.remove(&run) else { return false };
        process.used = now;
        let is_outdated = process.is_outdated;
        _ = running.job.answer.send(answer);
        self.dispatch(now);
        let idles_first = self.wake.is_none_or(|wake| now + self.rules.idle < wake);
        self.is_due |= idles_first || is_outdated || !self.waiting.is_empty();
        true
    }

    /// Returns until when a process has time for a run.
    pub(super) fn until(&self, id: ProcessId, run: Uuid) -> Option<Instant> {
        Some(self.processes.get(&id)?.running.get(&run)?.until)
    }

    /// A process says that it cannot start.
    pub(super) fn cannot_start(
        &mut self,
        id: ProcessId,
        error: InvokeError,
        now: Instant,
    ) -> Result<(), Misplaced> {
        let process = self.processes.get_mut(&id).ok_or(Misplaced)?;
        if !matches!(process.phase, Phase::Starting { .. }) {
            return Err(Misplaced);
        }
        process.phase = Phase::Leaving { until: now + self.rules.leave };
        self.pause(error, now);
        Ok(())
    }

    /// A process has ended. Returns why, unless the node is ending.
    pub(super) fn exited(
        &mut self,
        id: ProcessId,
        error: InvokeError,
        now: Instant,
    ) -> Option<FunctionEnd> {
        let process = self.processes.remove(&id)?;
        self.is_due = true;
        for running in process.running.into_values() {
            running.job.fail(FunctionOutcome::Exit, error.clone());
        }
        match process.phase {
            Phase::Starting { .. } => {
                self.pause(error, now);
                Some(FunctionEnd::Init)
            }
            Phase::Leaving { .. } => Some(FunctionEnd::Init),
            Phase::Stopping(end) => Some(end),
            Phase::Ready => {
                // Whoever asks and ends would be started again and again.
                if process.handed == 0 {
                    self.pause(error, now);
                }
                Some(FunctionEnd::Exit)
            }
        }
    }

    /// Returns what a list tells of the pool.
    pub(super) fn state(&self) -> State {
        State::new(self.processes.values(), self.waiting.len(), self.backoff.error())
    }

    /// Says what is to be done now.
    pub(super) fn turn(&mut self, now: Instant) -> Vec<Action> {
        self.is_due = false;
        self.backoff.resume(now);
        self.expire(now);
        self.dispatch(now);
        let mut actions = self.kill_late(now);
        actions.extend(self.stop_outdated());
        actions.extend(self.stop_idle(now));
        actions.extend(self.start(now));
        self.wake = self.next_wake(now);
        actions
    }

    /// Returns when the next turn is due of itself.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.wake
    }

    /// Returns whether a turn is due now.
    pub(super) fn is_due(&self) -> bool {
        self.is_due
    }

    /// The code has changed: every process ends once it has nothing to do, and the new code is
    /// tried at once, however the old one has fared.
    pub(super) fn renew(&mut self) {
        self.processes.values_mut().for_each(|process| process.is_outdated = true);
        (self.backoff, self.is_due) = (Backoff::default(), true);
    }

    /// Takes no more invocations.
    pub(super) fn end(&mut self) {
        self.is_ending = true;
    }

    pub(super) fn is_ending(&self) -> bool {
        self.is_ending
    }

    /// Gives up what waits.
    pub(super) fn give_up(&mut self) {
        self.is_ending = true;
        self.waiting.drain(..).for_each(|job| job.fail(FunctionOutcome::Ending, is_ending()));
    }

    /// Returns whether nothing is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.waiting.is_empty() && self.processes.values().all(|process| process.running.is_empty())
    }

    /// Returns which request a process works on: that of a run, otherwise the only one there is.
    pub(super) fn request(&self, id: ProcessId, run: Option<Uuid>) -> Option<RequestId> {
        let running = &self.processes.get(&id)?.running;
        let run = match run {
            Some(run) => running.get(&run),
            None => running.values().next().filter(|_| running.len() == 1),
        };
        run.map(|running| running.job.request)
    }

    fn is_serving(&self) -> bool {
        self.processes.values().any(|process| process.phase == Phase::Ready)
    }

    /// Hands out what can be handed out.
    fn dispatch(&mut self, now: Instant) {
        let (most, timeout) = (self.rules.concurrency, self.rules.timeout);
        while let Some(job) = self.waiting.pop_front() {
            if job.deadline <= now {
                job.fail(FunctionOutcome::Timeout, InvokeError::TimedOut);
                continue;
            }
            // Least runs first; of equals the one that worked last, so that the others can be seen
            // to idle.
            let open = self
                .processes
                .values_mut()
                .filter_map(|process| process.is_open(most).then_some(process));
            let Some(process) =
                open.min_by_key(|process| (process.running.len(), Reverse(process.used)))
            else {
                self.waiting.push_front(job);
                return;
            };
            let (event, trail) = (job.event.clone(), job.trail);
            let run = Run { id: Uuid::new_v4(), event, trail, until: now + timeout };
            self.is_due |= self.wake.is_none_or(|wake| run.until < wake);
            if let Err(job) = process.hand(run, job, now) {
                self.waiting.push_front(job);
            }
        }
    }

    fn expire(&mut self, now: Instant) {
        let (late, waiting): (VecDeque<_>, _) =
            self.waiting.drain(..).partition(|job| job.deadline <= now);
        self.waiting = waiting;
        late.into_iter().for_each(|job| job.fail(FunctionOutcome::Timeout, InvokeError::TimedOut));
    }

    /// Starts nothing for a while, and tells those who wait, unless others work.
    fn pause(&mut self, error: InvokeError, now: Instant) {
        self.is_due = true;
        if !self.is_serving() {
            self.waiting.drain(..).for_each(|job| job.fail(FunctionOutcome::Init, error.clone()));
        }
        self.backoff.fail(error, now);
    }

    /// Returns how starts have fared.
    pub(super) fn backoff(&self) -> &Backoff {
        &self.backoff
    }

    fn kill_late(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut never_asked = false;
        for (id, process) in &mut self.processes {
            let end = match process.phase {
                Phase::Starting { until } if until <= now => {
                    never_asked = true;
                    FunctionEnd::Init
                }
                Phase::Leaving { until } if until <= now => FunctionEnd::Init,
                Phase::Ready if process.running.values().any(|running| running.until <= now) => {
                    let late = process.running.extract_if(.., |_, running| running.until <= now);
                    for (_, running) in late {
                        let error = too_slow(self.rules.timeout);
                        running.job.fail(FunctionOutcome::Timeout, error);
                    }
                    FunctionEnd::Timeout
                }
                _ => continue,
            };
            process.phase = Phase::Stopping(end);
            process.polls.clear();
            actions.push(Action::Kill(*id));
        }
        if never_asked {
            self.pause(never_asked_for_work(self.rules.init), now);
        }
        actions
    }

    fn stop_outdated(&mut self) -> Vec<Action> {
        let outdated = self.processes.iter_mut().filter(|(_, process)| {
            process.is_outdated && process.is_alive() && process.running.is_empty()
        });
        outdated.map(|(id, process)| process.stop(*id, FunctionEnd::Outdated)).collect()
    }

    fn stop_idle(&mut self, now: Instant) -> Vec<Action> {
        let over = self.alive().saturating_sub(self.rules.min);
        let idle = self.rules.idle;
        let idle =
            self.processes.iter_mut().filter(|(_, process)| process.is_idle_since(now, idle));
        idle.take(over).map(|(id, process)| process.stop(*id, FunctionEnd::Idle)).collect()
    }

    fn start(&mut self, now: Instant) -> Vec<Action> {
        if self.backoff.pause().is_some() {
            return Vec::new();
        }
        let starting = self.processes.values().filter(|process| process.is_starting()).count();
        let asking =
            self.processes.values().filter(|process| process.asks_until(now).is_some()).count();
        let Rules { min, max, concurrency, init, .. } = self.rules;
        let for_waiting =
            self.waiting.len().div_ceil(concurrency).saturating_sub(starting + asking);
        let for_least = if self.is_ending { 0 } else { min.saturating_sub(self.alive()) };
        let room = max.saturating_sub(self.processes.len());
        let mut count = for_waiting.max(for_least).min(room);
        if self.backoff.failures() > 0 {
            // One shows whether it works again.
            count = count.min(1_usize.saturating_sub(starting));
        }
        let mut actions = Vec::new();
        for _ in 0..count {
            self.started += 1;
            self.processes.insert(self.started, Process::new(now + init, now));
            actions.push(Action::Start(self.started));
        }
        actions
    }

    fn next_wake(&self, now: Instant) -> Option<Instant> {
        let waiting = self.waiting.iter().map(|job| job.deadline);
        let idle = (self.alive() > self.rules.min).then_some(self.rules.idle);
        let processes = self.processes.values().filter_map(|process| process.next_wake(idle));
        let asking = self.processes.values().filter_map(|process| process.asks_until(now));
        let asking = asking.take(self.waiting.len());
        let pause = self.backoff.pause().map(|(_, until)| *until);
        waiting.chain(processes).chain(asking).chain(pause).min().map(|wake| wake.max(now))
    }

    fn alive(&self) -> usize {
        self.processes.values().filter(|process| process.is_alive()).count()
    }
}
