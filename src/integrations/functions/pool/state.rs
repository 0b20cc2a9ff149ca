//! What a list tells of a pool.

use super::process::{Phase, Process};
use crate::integrations::invoke::InvokeError;
use crate::model::listing::Processes;

/// See the [module documentation](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct State {
    pub(in super::super) processes: Processes,
    pub(in super::super) in_flight: usize,
    pub(in super::super) waiting: usize,
    /// Why the last process that was started never asked for work.
    pub(in super::super) init_error: Option<String>,
}

/// Longest part of an error that is told, in characters.
const TOLD: usize = 500;

impl State {
    pub(super) fn new<'p>(
        all: impl Iterator<Item = &'p Process>,
        waiting: usize,
        init_error: Option<&InvokeError>,
    ) -> Self {
        let (mut processes, mut in_flight) = (Processes::default(), 0);
        for process in all {
            in_flight += process.running.len();
            let kind = match process.phase {
                Phase::Starting { .. } => &mut processes.starting,
                Phase::Ready if process.running.is_empty() => &mut processes.idle,
                Phase::Ready => &mut processes.busy,
                Phase::Leaving { .. } | Phase::Stopping(_) => &mut processes.ending,
            };
            *kind += 1;
        }
        let init_error = init_error.map(|error| error.to_string().chars().take(TOLD).collect());
        Self { processes, in_flight, waiting, init_error }
    }
}
