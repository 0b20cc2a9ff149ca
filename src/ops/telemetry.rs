//! What a node tells of its work: metrics, spans of what is sampled, and lines about clients.

use std::sync::Arc;

use crate::ops::access::AccessLog;
use crate::ops::lifecycle::Lifecycle;
use crate::ops::metrics::Metrics;
use crate::ops::trace::{TraceError, Tracer, Tracing};

/// Metrics, tracer and access log of a node; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Telemetry {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tracer: Arc<Tracer>,
    pub(crate) access: Arc<AccessLog>,
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
        Ok(Self { metrics: Arc::new(metrics), tracer: Arc::new(tracer), access: Arc::default() })
    }

    /// Exports no spans.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn without_spans() -> Result<Self, prometheus::Error> {
        let metrics = Arc::new(Metrics::new()?);
        Ok(Self { metrics, tracer: Arc::default(), access: Arc::default() })
    }
}
