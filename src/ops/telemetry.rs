//! What a node tells of its work: metrics, and spans of what is sampled.

use std::sync::Arc;

use crate::ops::lifecycle::Lifecycle;
use crate::ops::metrics::Metrics;
use crate::ops::trace::{TraceError, Tracer, Tracing};

/// Metrics and tracer of a node; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Telemetry {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tracer: Arc<Tracer>,
}

impl Telemetry {
    /// Starts to export spans, if there is where to.
    ///
    /// # Errors
    /// The endpoint is no URL.
    pub(crate) fn start(
        metrics: Metrics,
        settings: &Tracing,
        node_name: &str,
        lifecycle: &Lifecycle,
    ) -> Result<Self, TraceError> {
        let tracer = Tracer::start(settings, node_name, &metrics, lifecycle)?;
        Ok(Self { metrics: Arc::new(metrics), tracer: Arc::new(tracer) })
    }

    /// Exports no spans.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn without_spans() -> Result<Self, prometheus::Error> {
        Ok(Self { metrics: Arc::new(Metrics::new()?), tracer: Arc::default() })
    }
}
