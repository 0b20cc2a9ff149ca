//! How spans are exported, and why they cannot be.

/// Where spans go, and how many.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(any(feature = "otlp", test)),
    expect(dead_code, reason = "only what exports spans reads it")
)]
pub(crate) struct Tracing {
    /// URL of the collector to which spans are posted; `None` for no spans.
    pub(crate) endpoint: Option<String>,
    /// Share of messages and requests that are sampled.
    pub(crate) ratio: f64,
    /// What this program is called there.
    pub(crate) service_name: String,
    /// What else is said of it there.
    pub(crate) attributes: Vec<(String, String)>,
}

/// Spans cannot be exported as configured.
#[derive(Debug, thiserror::Error)]
#[error("cannot export spans: {0}")]
pub(crate) struct TraceError(#[from] pub(super) Box<dyn std::error::Error + Send + Sync>);
