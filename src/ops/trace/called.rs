//! What spans say of calls of back ends.

/// What the span of a call says of it.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "only what exports spans reads it"))]
pub(crate) struct Called<'c> {
    /// The back end.
    pub(crate) name: &'c str,
    /// Attributes of the standard for its kind.
    pub(crate) attributes: &'c [(&'static str, String)],
    /// How the call has failed, if it has.
    pub(crate) error: Option<&'static str>,
}
