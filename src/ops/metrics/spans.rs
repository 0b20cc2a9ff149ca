//! What becomes of spans; there only where they are exported.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

const EXPORTED: &str = "gatecast_spans_exported_total";
const DROPPED: &str = "gatecast_spans_dropped_total";

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct SpanCounters {
    pub(crate) exported: IntCounter,
    dropped: IntCounterVec,
}

/// Why spans did not reach the collector.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SpanDropReason {
    /// More came than were exported.
    QueueFull,
    /// The collector is away, or refused.
    ExportFailed,
}

impl SpanCounters {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let exported = IntCounter::new(EXPORTED, "Spans that the collector took.")?;
        let dropped = Opts::new(DROPPED, "Spans that did not reach the collector.");
        let dropped = IntCounterVec::new(dropped, &["reason"])?;
        registry.register(Box::new(exported.clone()))?;
        registry.register(Box::new(dropped.clone()))?;
        let counters = Self { exported, dropped };
        for reason in [SpanDropReason::QueueFull, SpanDropReason::ExportFailed] {
            counters.dropped(reason);
        }
        Ok(counters)
    }

    pub(crate) fn dropped(&self, reason: SpanDropReason) -> IntCounter {
        let label = match reason {
            SpanDropReason::QueueFull => "queue_full",
            SpanDropReason::ExportFailed => "export_failed",
        };
        self.dropped.with_label_values(&[label])
    }
}
