//! The life of a node: readiness, the tasks to wait for, and the signals that end it.

use std::future::Future;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::model::phase::Phase;

/// Longest wait for requests under way, once all WebSockets are gone.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// Handle on the node's life; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Lifecycle {
    phase: Arc<watch::Sender<Phase>>,
    tasks: TaskTracker,
    stop_accepting: CancellationToken,
    ending: CancellationToken,
    failing: CancellationToken,
    failed: Arc<OnceLock<String>>,
}

/// Held by a part that has to work until a token is cancelled. If it is dropped before, because its
/// part has returned or panicked, the node has failed.
#[derive(Debug)]
pub(crate) struct Vital {
    name: String,
    until: CancellationToken,
    lifecycle: Lifecycle,
}

impl Drop for Vital {
    fn drop(&mut self) {
        if !self.until.is_cancelled() {
            self.lifecycle.fail(&self.name);
        }
    }
}

impl Lifecycle {
    pub(crate) fn new() -> Self {
        Self {
            phase: Arc::new(watch::Sender::new(Phase::Starting)),
            tasks: TaskTracker::new(),
            stop_accepting: CancellationToken::new(),
            ending: CancellationToken::new(),
            failing: CancellationToken::new(),
            failed: Arc::default(),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Returns what tells of every new phase.
    pub(crate) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Moves on. There is no way back from draining.
    pub(crate) fn enter(&self, next: Phase) {
        self.phase.send_if_modified(|phase| {
            let is_later = next > *phase;
            *phase = next.max(*phase);
            is_later
        });
    }

    /// Spawns a task that shutdown waits for.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Spawns a task that has to run until the end of the node, which ends it.
    pub(crate) fn spawn_until_end(
        &self,
        name: &str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let ending = self.ending();
        self.spawn_vital(name, self.ending(), async move {
            ending.run_until_cancelled(task).await;
        });
    }

    /// Spawns a task that has to run until a token is cancelled, and sees to that itself.
    pub(crate) fn spawn_vital(
        &self,
        name: &str,
        until: CancellationToken,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let vital = self.vital(name, until);
        self.spawn(async move {
            task.await;
            drop(vital);
        });
    }

    /// Returns what a part holds for as long as it works.
    pub(crate) fn vital(&self, name: &str, until: CancellationToken) -> Vital {
        Vital { name: name.to_owned(), until, lifecycle: self.clone() }
    }

    fn fail(&self, name: &str) {
        if self.failed.set(name.to_owned()).is_ok() {
            tracing::error!(
                part = name,
                "a part that has to run for ever has ended; so does this node"
            );
            self.failing.cancel();
        }
    }

    /// Returns whether the node has lost a part that it needs.
    pub(crate) fn has_failed(&self) -> bool {
        self.failing.is_cancelled()
    }

    /// Waits until the node has lost a part that it needs. *Cancel safe.*
    pub(crate) async fn failed(&self) {
        self.failing.cancelled().await;
    }

    /// Tells the public port to accept no more.
    pub(crate) fn stop_accepting(&self) {
        self.stop_accepting.cancel();
    }

    /// Returns what [`Lifecycle::stop_accepting`] cancels.
    pub(crate) fn accepting(&self) -> CancellationToken {
        self.stop_accepting.clone()
    }

    /// Returns what [`Lifecycle::finish`] cancels.
    pub(crate) fn ending(&self) -> CancellationToken {
        self.ending.clone()
    }

    /// Asks all tasks to end and waits for them, but not for ever: requests under way are answered.
    pub(crate) async fn finish(&self) {
        self.ending.cancel();
        self.tasks.close();
        if tokio::time::timeout(FINISH_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "requests were cut");
        }
    }
}

/// The signals that ask a process to end; a second one asks it to hurry. Others that would kill it
/// are ignored.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Where nobody reloads.
    hang_up: Option<Signal>,
    user_1: Signal,
    user_2: Signal,
}

impl Signals {
    /// Starts to listen, so that no signal from now on kills the process. SIGHUP is ignored if it
    /// is given, otherwise the caller listens to it.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn listen(hang_up: Option<Signal>) -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up,
            user_1: signal(SignalKind::user_defined1())?,
            user_2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next signal that asks for the end; returns its name. *Cancel safe.*
    pub(crate) async fn next(&mut self) -> &'static str {
        loop {
            let ignored = tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                () = hung_up(&mut self.hang_up) => "SIGHUP",
                _ = self.user_1.recv() => "SIGUSR1",
                _ = self.user_2.recv() => "SIGUSR2",
            };
            tracing::warn!(
                signal = ignored,
                "ignored: it asks this process for nothing; SIGTERM ends it"
            );
        }
    }
}

/// Starts to listen to SIGHUP, which would end the process.
///
/// # Errors
/// The kernel's.
pub(crate) fn hang_ups() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

async fn hung_up(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => _ = signal.recv().await,
        None => std::future::pending().await,
    }
}
