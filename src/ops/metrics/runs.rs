//! The runs of one route, counted with every message: so its counters are looked up once.

use prometheus::{IntCounter, IntCounterVec};

use super::labels::RouteOutcome;

/// The counters of one route, by outcome.
#[derive(Debug)]
pub(crate) struct Runs(Box<[IntCounter]>);

impl Runs {
    pub(super) fn of(routes: &IntCounterVec, key: &str) -> Self {
        let counter = |outcome: &RouteOutcome| routes.with_label_values(&[key, outcome.label()]);
        Self(RouteOutcome::ALL.iter().map(counter).collect())
    }

    pub(crate) fn count(&self, outcome: RouteOutcome) {
        if let Some(counter) = self.0.get(outcome as usize) {
            counter.inc();
        }
    }
}
