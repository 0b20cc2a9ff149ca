//! Waiting: for a condition, with a deadline, and not after the user has pressed Ctrl-C.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use parking_lot::{Condvar, Mutex};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Between two checks of a condition.
const LOOK: Duration = Duration::from_millis(10);

/// Set by Ctrl-C; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

/// Ends the sleep of threads that are told to stop; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Interrupt {
    /// Handles SIGINT and SIGTERM: the first signal asks for an orderly end, the second ends the
    /// program at once.
    pub(crate) fn on_signals() -> Result<Self> {
        let this = Self::default();
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, 1, Arc::clone(&this.0))?;
            flag::register(signal, Arc::clone(&this.0))?;
        }
        Ok(this)
    }

    /// Checks until there is something to return; fails after the time limit, or if the user wants
    /// to stop.
    pub(crate) fn eventually<T>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let until = Instant::now() + limit;
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            if Instant::now() > until {
                bail!("not within {limit:?}: {what}");
            }
            self.sleep(LOOK)?;
        }
    }

    /// Fails if the user wants to stop.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Acquire) {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Waits; fails if the user wants to stop.
    pub(crate) fn sleep(&self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        loop {
            self.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::park_timeout(left.min(LOOK));
        }
    }
}

impl Stop {
    pub(crate) fn stop(&self) {
        let (is_set, wake) = &*self.0;
        *is_set.lock() = true;
        wake.notify_all();
    }

    pub(crate) fn is_set(&self) -> bool {
        *self.0.0.lock()
    }

    /// Sleeps until the time is over or it is set; returns whether to continue.
    pub(crate) fn sleep(&self, time: Duration) -> bool {
        let (is_set, wake) = &*self.0;
        let mut is_set = is_set.lock();
        let until = Instant::now() + time;
        while !*is_set && !wake.wait_until(&mut is_set, until).timed_out() {}
        !*is_set
    }
}
