//! What is counted of the functions that this node runs.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::labels::{FunctionEnd, FunctionOutcome};

const PROCESSES: &str = "gatecast_function_processes";
const RESTARTS: &str = "gatecast_function_restarts_total";
const INVOCATIONS: &str = "gatecast_function_invocations_total";
const LINES_LOST: &str = "gatecast_function_log_lines_lost_total";

/// See the [module documentation](self).
#[derive(Clone, Debug)]
pub(crate) struct FunctionMetrics {
    processes: IntGaugeVec,
    restarts: IntCounterVec,
    invocations: IntCounterVec,
    lines_lost: IntCounterVec,
}

/// What is counted of one function.
#[derive(Clone, Debug)]
pub(crate) struct FunctionCounters {
    function: String,
    all: FunctionMetrics,
    pub(crate) processes: IntGauge,
    pub(crate) lines_lost: IntCounter,
}

impl FunctionMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let processes =
            Opts::new(PROCESSES, "Processes of a function, those included that start or end.");
        let restarts =
            Opts::new(RESTARTS, "Processes of a function that ended before the node did, by why.");
        let invocations = Opts::new(INVOCATIONS, "Invocations of a function, by how they ended.");
        let lines_lost = Opts::new(
            LINES_LOST,
            "Lines of a function that are not in the log, since it wrote too many.",
        );
        let metrics = Self {
            processes: IntGaugeVec::new(processes, &["function"])?,
            restarts: IntCounterVec::new(restarts, &["function", "reason"])?,
            invocations: IntCounterVec::new(invocations, &["function", "outcome"])?,
            lines_lost: IntCounterVec::new(lines_lost, &["function"])?,
        };
        registry.register(Box::new(metrics.processes.clone()))?;
        registry.register(Box::new(metrics.restarts.clone()))?;
        registry.register(Box::new(metrics.invocations.clone()))?;
        registry.register(Box::new(metrics.lines_lost.clone()))?;
        Ok(metrics)
    }

    /// Returns what counts for one function; all of it is there from then on, at 0.
    pub(crate) fn of(&self, function: &str) -> FunctionCounters {
        let counters = FunctionCounters {
            function: function.to_owned(),
            all: self.clone(),
            processes: self.processes.with_label_values(&[function]),
            lines_lost: self.lines_lost.with_label_values(&[function]),
        };
        FunctionEnd::ALL.iter().for_each(|end| drop(counters.ended_as(*end)));
        FunctionOutcome::ALL.iter().for_each(|outcome| drop(counters.invoked_as(*outcome)));
        counters
    }
}

impl FunctionCounters {
    pub(crate) fn count_end(&self, end: FunctionEnd) {
        self.ended_as(end).inc();
    }

    pub(crate) fn count_invocation(&self, outcome: FunctionOutcome) {
        self.invoked_as(outcome).inc();
    }

    fn ended_as(&self, end: FunctionEnd) -> IntCounter {
        self.all.restarts.with_label_values(&[self.function.as_str(), end.label()])
    }

    fn invoked_as(&self, outcome: FunctionOutcome) -> IntCounter {
        self.all.invocations.with_label_values(&[self.function.as_str(), outcome.label()])
    }
}
