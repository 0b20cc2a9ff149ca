//! Whether the parts of a node that are to work for ever do so: shards and accept loops.
//!
//! A part counts its steps. Every second the watch wakes each part and looks whether it has made
//! one; a part that has made none for [`DEADLINE`] is stuck, and `/live` says so. Time in which the
//! watch itself did not run, because the process was held, does not count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A part that makes no step for this long is stuck: starts with its last step seen. Work pauses it
/// only by making steps.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Steps of one part; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps(Arc<AtomicU64>);

impl Steps {
    /// Notes a step: cheap enough for every event of a shard, whose thread alone writes it.
    pub(crate) fn step(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

/// What a task does beside its work, so that it makes a step whenever it is woken; clones are the
/// same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pulse {
    steps: Steps,
    woken: Arc<Notify>,
}

impl Pulse {
    /// Makes steps until dropped; to be polled by the task itself.
    pub(crate) async fn beat(&self) {
        loop {
            self.woken.notified().await;
            self.steps.step();
        }
    }

    /// Returns the task as a part.
    pub(crate) fn part(&self, name: &str) -> Part {
        let woken = Arc::clone(&self.woken);
        Part {
            name: name.to_owned(),
            steps: self.steps.clone(),
            wake: Box::new(move || woken.notify_one()),
        }
    }
}

/// A part, and how to wake it if it waits for work.
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) steps: Steps,
    pub(crate) wake: Box<dyn Fn() + Send + Sync>,
}

/// See the [module documentation](self).
#[derive(Debug, Default)]
pub(crate) struct Vitals {
    watched: Mutex<Vec<Watched>>,
}

struct Watched {
    part: Part,
    seen: u64,
    /// When its last step was seen, by the clock of the watch.
    since: Duration,
    /// For how long there was none.
    still: Duration,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Watched")
            .field("name", &self.part.name)
            .field("still", &self.still)
            .finish_non_exhaustive()
    }
}

impl Vitals {
    /// Adds a part to what is watched.
    pub(crate) fn watch(&self, part: Part) {
        let watched = Watched { part, seen: 0, since: Duration::ZERO, still: Duration::ZERO };
        self.watched.lock().push(watched);
    }

    /// Looks at all parts until cancelled.
    pub(crate) async fn run(self: Arc<Self>) {
        let (mut clock, mut last) = (Duration::ZERO, Instant::now());
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = Instant::now();
            clock += (now - last).min(2 * LOOK_EVERY);
            last = now;
            self.look(clock);
        }
    }

    fn look(&self, clock: Duration) {
        for Watched { part, seen, since, still } in self.watched.lock().iter_mut() {
            let steps = part.steps.0.load(Ordering::Relaxed);
            if steps != *seen {
                (*seen, *since) = (steps, clock);
            }
            let was_stuck = *still >= DEADLINE;
            *still = clock.saturating_sub(*since);
            match (was_stuck, *still >= DEADLINE) {
                (false, true) => {
                    tracing::error!(
                        part = part.name,
                        "stuck: it has not moved for 10 s; /live is 503"
                    );
                }
                (true, false) => tracing::warn!(part = part.name, "moves again"),
                _ => {}
            }
            (part.wake)();
        }
    }

    /// Returns the names of the parts that are stuck.
    pub(crate) fn stuck(&self) -> Vec<String> {
        let watched = self.watched.lock();
        watched
            .iter()
            .filter(|each| each.still >= DEADLINE)
            .map(|each| each.part.name.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_part_that_stands_still_is_stuck_until_it_moves_again() {
        let (vitals, works, stands) = (Vitals::default(), Steps::default(), Steps::default());
        // It waits for work, and makes a step when it is woken.
        let woken = works.clone();
        vitals.watch(Part {
            name: "works".to_owned(),
            steps: works,
            wake: Box::new(move || woken.step()),
        });
        vitals.watch(Part {
            name: "stands".to_owned(),
            steps: stands.clone(),
            wake: Box::new(|| {}),
        });
        for second in 1..10 {
            vitals.look(second * SECOND);
            assert!(vitals.stuck().is_empty(), "{second}");
        }
        vitals.look(10 * SECOND);
        assert_eq!(vitals.stuck(), ["stands"]);
        stands.step();
        vitals.look(11 * SECOND);
        assert!(vitals.stuck().is_empty());
    }
}
