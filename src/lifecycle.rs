//! The life of a node: readiness, the tasks to wait for, and the signals that end it.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Longest wait for requests under way, once all WebSockets are gone.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// Where a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    Starting,
    Ready,
    Draining,
}

/// Handle on the node's life; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Lifecycle {
    phase: Arc<watch::Sender<Phase>>,
    tasks: TaskTracker,
    stop_accepting: CancellationToken,
    ending: CancellationToken,
}

impl Lifecycle {
    pub(crate) fn new() -> Self {
        Self {
            phase: Arc::new(watch::Sender::new(Phase::Starting)),
            tasks: TaskTracker::new(),
            stop_accepting: CancellationToken::new(),
            ending: CancellationToken::new(),
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

    /// Spawns a task that would run for ever; the end of the node ends it.
    pub(crate) fn spawn_until_end(&self, task: impl Future<Output = ()> + Send + 'static) {
        let ending = self.ending();
        self.spawn(async move {
            ending.run_until_cancelled(task).await;
        });
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

/// The signals that ask a node to end. A second one asks it to hurry.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Starts to listen, so that no signal from now on kills the process.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next signal; returns its name. *Cancel safe.*
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
