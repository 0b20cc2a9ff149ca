//! Functions that Gatecast runs itself: it serves the Lambda Runtime API, and starts the processes
//! that ask it for work.
//!
//! Way of an invocation: `function` (the way in) → `pool` (who is handed what, without I/O) →
//! `runtime_api` (a process asks) → the code → `runtime_api` → `pool` → whoever waits. `supervisor`
//! starts and ends what `pool` says, each in a `process`.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::function::Function;
use self::guard::Guard;
use self::output::Pace;
use self::pool::{Rules, State};
use self::process::Plant;
use self::supervisor::Supervisor;
use self::watch::Watch;
use super::invoke::Invoke;
use crate::config::FunctionSettings;
use crate::model::listing;
use crate::ops::lifecycle::Lifecycle;
use crate::ops::metrics::FunctionMetrics;

pub(crate) use self::common::Common;

mod body;
mod common;
mod environment;
mod function;
mod guard;
mod output;
mod pool;
mod process;
mod runtime_api;
mod supervisor;
#[cfg(test)]
mod tests;
mod watch;

/// What is the same for all functions, but in tests.
#[derive(Clone, Copy, Debug)]
struct Timings {
    /// Longest time from the start of a process to its first question for work.
    init: Duration,
    /// A process without work ends after this time, unless it is one of `min_processes`.
    idle: Duration,
    /// A process that has said that it cannot start exits within this time, or is killed.
    leave: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            // As on Lambda.
            init: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            leave: Duration::from_secs(2),
        }
    }
}

/// All functions of a node.
#[derive(Debug)]
pub(crate) struct Functions {
    functions: BTreeMap<String, Arc<Function>>,
    guard: Option<Arc<Guard>>,
    supervisors: TaskTracker,
    stop: CancellationToken,
}

impl Functions {
    /// Starts what supervises each function, and the processes that are to be there always. Must be
    /// called within the runtime.
    ///
    /// # Errors
    /// A function's folder is not there, or cannot be watched.
    pub(crate) fn start(
        settings: Vec<FunctionSettings>,
        common: Common,
        lifecycle: &Lifecycle,
        metrics: &FunctionMetrics,
    ) -> io::Result<Self> {
        Self::start_with(settings, common, lifecycle, metrics, Timings::default())
    }

    fn start_with(
        settings: Vec<FunctionSettings>,
        common: Common,
        lifecycle: &Lifecycle,
        metrics: &FunctionMetrics,
        timings: Timings,
    ) -> io::Result<Self> {
        let common = Arc::new(common);
        let guard = (!settings.is_empty()).then(|| Arc::new(Guard::start()));
        let stop = lifecycle.ending().child_token();
        let mut all = Self {
            functions: BTreeMap::new(),
            guard: guard.clone(),
            supervisors: TaskTracker::new(),
            stop,
        };
        for (mut settings, guard) in settings.into_iter().zip(std::iter::repeat(guard).flatten()) {
            settings.code =
                settings.code.canonicalize().map_err(|error| unusable(&settings, &error))?;
            let (name, counters) = (settings.name.clone(), metrics.of(&settings.name));
            let function = Arc::new(Function::new(
                &settings,
                &common.region,
                rules(&settings, timings),
                counters,
            ));
            if common.watches {
                let watch = Watch::start(&settings.code);
                let watch = watch.map_err(|it| unusable(&settings, &io::Error::other(it)))?;
                let work = watch.run(Arc::clone(&function));
                let stop = all.stop.clone();
                lifecycle.spawn(async move { _ = stop.run_until_cancelled(work).await });
            }
            let plant = Plant { settings, common: Arc::clone(&common), guard, pace: Pace::new() };
            let supervisor = Supervisor::new(plant, Arc::clone(&function));
            let work = supervisor.run(all.stop.clone(), lifecycle.ending());
            let part = format!("function {name}");
            lifecycle.spawn_vital(&part, all.stop.clone(), all.supervisors.track_future(work));
            all.functions.insert(name, function);
        }
        Ok(all)
    }

    /// Returns a function.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<dyn Invoke>> {
        self.functions.get(name).map(|function| Arc::clone(function) as Arc<dyn Invoke>)
    }

    /// Returns what is known of each function, in the order of their names; `waiting` says how many
    /// calls wait before they get here.
    pub(crate) fn list(&self, waiting: impl Fn(&str) -> usize) -> Vec<listing::Function> {
        let row = |function: &Arc<Function>| {
            let State { processes, in_flight, waiting: here, init_error } =
                function.with(|pool, _| pool.state());
            let (name, runtime) = (function.name.to_string(), function.runtime.name().to_owned());
            let waiting = here + waiting(&name);
            listing::Function { name, runtime, processes, in_flight, waiting, init_error }
        };
        self.functions.values().map(row).collect()
    }

    /// Takes no more invocations, waits for those under way for `grace` at most, then ends all
    /// processes: those that do not go within two seconds are killed.
    pub(crate) async fn shut_down(&self, grace: Duration) {
        let quiet = async {
            for function in self.functions.values() {
                function.end().await;
            }
        };
        self.functions.values().for_each(|function| function.refuse());
        if timeout(grace, quiet).await.is_err() {
            tracing::warn!("functions had not finished at the end of this node, and were cut");
        }
        self.stop.cancel();
        self.supervisors.close();
        self.supervisors.wait().await;
        if let Some(guard) = &self.guard {
            guard.end().await;
        }
    }
}

fn unusable(settings: &FunctionSettings, error: &io::Error) -> io::Error {
    let place = settings.code.display();
    let message = format!("functions.{}.code: {place}: {error}", settings.name);
    io::Error::new(error.kind(), message)
}

fn rules(settings: &FunctionSettings, timings: Timings) -> Rules {
    Rules {
        min: settings.min_processes,
        max: settings.max_processes,
        concurrency: settings.concurrency,
        timeout: settings.timeout,
        init: timings.init,
        idle: timings.idle,
        leave: timings.leave,
    }
}
