//! Where a span belongs: nowhere at all without the feature `otlp`.

#[cfg(feature = "otlp")]
use opentelemetry::trace::{SpanId, TraceId};

use crate::model::trail::Trail;

/// A sampled span: the trace it belongs to, itself, and what it is a part of.
#[cfg(feature = "otlp")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceContext {
    pub(crate) trace: TraceId,
    pub(crate) span: SpanId,
    pub(crate) parent: SpanId,
}

#[cfg(feature = "otlp")]
impl TraceContext {
    /// Returns by which others are told of it.
    pub(crate) fn trail(&self) -> Trail {
        let trace = u128::from_be_bytes(self.trace.to_bytes());
        Trail { trace, span: u64::from_be_bytes(self.span.to_bytes()), is_sampled: true }
    }
}

/// Cannot exist, so that an `Option` of it takes no room and what is done with it no code.
#[cfg(not(feature = "otlp"))]
#[derive(Clone, Copy, Debug)]
pub(crate) enum TraceContext {}

#[cfg(not(feature = "otlp"))]
impl TraceContext {
    pub(crate) fn trail(&self) -> Trail {
        match *self {}
    }
}
