//! Pauses between starts of processes that fail.

use std::time::Duration;

use tokio::time::Instant;

use crate::integrations::invoke::InvokeError;
use crate::ops::jitter::jittered;

/// First and longest pause after a process that could not be started; each is twice the one before.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Counts the starts that failed since one succeeded, one for each pause.
#[derive(Debug, Default)]
pub(in super::super) struct Backoff {
    failures: u32,
    pause: Option<(InvokeError, Instant)>,
    /// Why the last start failed.
    error: Option<InvokeError>,
}

impl Backoff {
    pub(in super::super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Returns why no process is started, and until when.
    pub(in super::super) fn pause(&self) -> Option<&(InvokeError, Instant)> {
        self.pause.as_ref()
    }

    /// Returns why the last start failed, if none has succeeded since.
    pub(super) fn error(&self) -> Option<&InvokeError> {
        self.error.as_ref()
    }

    /// Begins a pause, unless one is under way.
    pub(super) fn fail(&mut self, error: InvokeError, now: Instant) {
        self.error = Some(error.clone());
        if self.pause.is_none() {
            let pause = PAUSE.saturating_mul(1 << self.failures.min(5)).min(PAUSE_MAX);
            self.pause = Some((error, now + jittered(pause)));
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// Ends a pause that is over.
    pub(super) fn resume(&mut self, now: Instant) {
        self.pause.take_if(|(_, until)| *until <= now);
    }
}
