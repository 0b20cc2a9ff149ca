//! What operators see and do: metrics, spans, logs, probes, the life of a node.

pub(crate) mod access;
pub(crate) mod jitter;
pub(crate) mod lifecycle;
pub(crate) mod lines;
pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod probe;
pub(crate) mod refusals;
pub(crate) mod telemetry;
pub(crate) mod trace;
pub(crate) mod vitals;
