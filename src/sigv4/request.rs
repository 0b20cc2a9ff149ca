//! What is signed.

use http::{HeaderMap, Method};

/// A request as it goes over the wire. Without `Debug` on purpose: its headers hold session tokens.
#[derive(Clone, Copy)]
pub(crate) struct SignedRequest<'a> {
    /// The method, in the case it was sent in.
    pub(crate) method: &'a Method,
    /// The path, percent-encoded as sent: two encodings of one path have two signatures.
    pub(crate) path: &'a str,
    /// What follows `?`, percent-encoded as sent.
    pub(crate) query: Option<&'a str>,
    /// All headers. HTTP/2 sends none named `host`: the caller adds it from `:authority`.
    pub(crate) headers: &'a HeaderMap,
    /// The whole body, before any decoding.
    pub(crate) body: &'a [u8],
}
