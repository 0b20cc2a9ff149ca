//! Where a span belongs: nowhere at all without the feature `otlp`.

#[cfg(feature = "otlp")]
use opentelemetry::trace::{SpanId, TraceId};

/// A sampled span: the trace it belongs to, itself, and what it is a part of.
#[cfg(feature = "otlp")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceContext {
    pub(crate) trace: TraceId,
    pub(crate) span: SpanId,
    pub(crate) parent: SpanId,
}

/// Cannot exist, so that an `Option` of it takes no room and what is done with it no code.
#[cfg(not(feature = "otlp"))]
#[derive(Clone, Copy, Debug)]
pub(crate) enum TraceContext {}
