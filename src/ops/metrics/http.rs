//! What the HTTP server of a port counts, in whatever process it runs.

use prometheus::{IntCounterVec, Opts, Registry};

use super::begin::begin;
use super::labels::{CutCause, HttpState, RequestRefusal};

const REFUSED: &str = "gatecast_http_requests_refused_total";
const CUT: &str = "gatecast_http_connections_cut_total";

/// See the [module documentation](self).
#[derive(Clone, Debug)]
pub(crate) struct HttpMetrics {
    refused: IntCounterVec,
    cut: IntCounterVec,
}

impl HttpMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let refused = Opts::new(REFUSED, "HTTP requests refused before they came to a route.");
        let cut = Opts::new(
            CUT,
            "HTTP connections ended by the node, by what they were doing and whether their time was up or others waited.",
        );
        let metrics = Self {
            refused: IntCounterVec::new(refused, &["reason"])?,
            cut: IntCounterVec::new(cut, &["state", "cause"])?,
        };
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.cut.clone()))?;
        // Counters are there from the start, at 0.
        begin(&metrics.refused, RequestRefusal::ALL, RequestRefusal::label);
        for state in HttpState::ALL {
            CutCause::ALL.iter().for_each(|cause| {
                drop(metrics.cut.with_label_values(&[state.label(), cause.label()]));
            });
        }
        Ok(metrics)
    }

    pub(crate) fn count_refused(&self, refusal: RequestRefusal) {
        self.refused.with_label_values(&[refusal.label()]).inc();
    }

    pub(crate) fn count_cut(&self, state: HttpState, cause: CutCause) {
        self.cut.with_label_values(&[state.label(), cause.label()]).inc();
    }
}
