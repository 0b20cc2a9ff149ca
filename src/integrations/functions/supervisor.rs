//! Carries out what a function's pool says: starts processes, and ends them.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::function::Function;
use super::pool::{Action, ProcessId};
use super::process::{self, Ends, Plant};

/// The processes of one function.
#[derive(Debug)]
pub(super) struct Supervisor {
    plant: Arc<Plant>,
    function: Arc<Function>,
    processes: JoinSet<ProcessId>,
    ends: BTreeMap<ProcessId, Ends>,
}

impl Supervisor {
    pub(super) fn new(plant: Plant, function: Arc<Function>) -> Self {
        Self { plant: Arc::new(plant), function, processes: JoinSet::new(), ends: BTreeMap::new() }
    }

    /// Works until `stop` is cancelled, then ends all processes; at once, if `hurry` is cancelled
    /// as well.
    pub(super) async fn run(mut self, stop: CancellationToken, hurry: CancellationToken) {
        while !stop.is_cancelled() {
            let (actions, wake) = self.function.with(|pool, now| (pool.turn(now), pool.wake()));
            actions.into_iter().for_each(|action| self.act(action));
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.function.due() => {}
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
                Some(ended) = self.processes.join_next() => {
                    // What a panic leaves here is never used again.
                    if let Ok(id) = ended {
                        self.ends.remove(&id);
                    }
                }
            }
        }
        self.function.with(|pool, _| pool.give_up());
        self.ends.values().for_each(|ends| ends.stop.cancel());
        loop {
            tokio::select! {
                ended = self.processes.join_next() => if ended.is_none() { return },
                () = hurry.cancelled() => break,
            }
        }
        self.ends.values().for_each(|ends| ends.kill.cancel());
        while self.processes.join_next().await.is_some() {}
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Start(id) => {
                let (plant, function) = (Arc::clone(&self.plant), Arc::clone(&self.function));
                let ends = self.ends.entry(id).or_default().clone();
                self.processes.spawn(async move {
                    process::run(plant, function, id, ends).await;
                    id
                });
            }
            Action::Stop(id) => self.ends.get(&id).into_iter().for_each(|ends| ends.stop.cancel()),
            Action::Kill(id) => self.ends.get(&id).into_iter().for_each(|ends| ends.kill.cancel()),
        }
    }
}
