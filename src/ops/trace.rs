//! Spans of sampled messages and requests, for OpenTelemetry; nothing at all without the feature
//! `otlp`.
//!
//! Rule: a message carries nothing of its trace between nodes. Its trace is computed from its
//! channel, epoch and offset, and so is whether it is sampled: every node comes to the same. Who is
//! asked for a [`TraceContext`](crate::model::trace_context::TraceContext) gets `None` for what is
//! not sampled; without the feature a `TraceContext` cannot exist, so that an `Option` of it takes
//! no room and what is done with it no code.

mod called;
#[cfg(feature = "otlp")]
mod exporter;
#[cfg(not(feature = "otlp"))]
mod off;
#[cfg(feature = "otlp")]
mod otlp;
mod settings;

pub(crate) use self::called::Called;
#[cfg(not(feature = "otlp"))]
pub(crate) use self::off::Tracer;
#[cfg(feature = "otlp")]
pub(crate) use self::otlp::Tracer;
pub(crate) use self::settings::{TraceError, Tracing};
