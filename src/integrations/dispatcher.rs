//! Takes calls to the back ends that they are for.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;

pub(crate) use crate::integrations::lane::BackEnd;
use crate::integrations::lane::Lane;
use crate::model::call::{Backends, Call, TargetName};
use crate::ops::lifecycle::Lifecycle;
use crate::ops::telemetry::Telemetry;

/// All back ends of a node.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    lanes: HashMap<TargetName, Arc<Lane>>,
}

impl Dispatcher {
    /// Takes over back ends. To be called in a runtime.
    pub(crate) fn start(
        back_ends: Vec<BackEnd>,
        lifecycle: &Lifecycle,
        Telemetry { metrics, tracer, .. }: &Telemetry,
    ) -> Self {
        let lane = |back_end: BackEnd| {
            let name = back_end.name.clone();
            let counted = metrics.backends.of(&name.0);
            let lane = Arc::new(Lane::new(back_end, counted, Arc::clone(tracer)));
            lifecycle.spawn_until_end("deadlines of back ends", Arc::clone(&lane).expire());
            (name, lane)
        };
        Self { lanes: back_ends.into_iter().map(lane).collect() }
    }

    /// Returns how many calls wait for their turn at a back end.
    pub(crate) fn waiting(&self, name: &TargetName) -> usize {
        self.lanes.get(name).map_or(0, |lane| lane.waiting())
    }

    /// Waits until no call is left. *Cancel safe.*
    pub(crate) async fn settled(&self) {
        join_all(self.lanes.values().map(|lane| lane.settled())).await;
    }
}

impl Backends for Dispatcher {
    fn call(&self, call: Call) {
        match self.lanes.get(&call.target) {
            Some(lane) => lane.call(call),
            // Dropped, which tells that it has failed.
            None => tracing::warn!(
                back_end = &*call.target.0,
                "a route calls a back end that this node has not had when it started; restart it"
            ),
        }
    }
}
