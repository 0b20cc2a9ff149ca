//! What goes wrong while deletion costs are kept.

use crate::ops::metrics::CostFault;

/// Why something was not done.
#[derive(Debug)]
pub(super) struct CostError {
    pub(super) kind: CostFault,
    /// What was to be done, in Kubernetes' word for it; empty where Kubernetes was not asked.
    pub(super) verb: &'static str,
    pub(super) message: String,
}

pub(super) fn fault(kind: CostFault, message: impl Into<String>) -> CostError {
    CostError { kind, verb: "", message: message.into() }
}

impl CostError {
    pub(super) fn at(self, verb: &'static str) -> Self {
        Self { verb, message: format!("{verb} pods: {}", self.message), ..self }
    }
}
