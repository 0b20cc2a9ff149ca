//! What is signed, and by whom it says it was.

use std::borrow::Cow;

use http::{HeaderMap, Method};

/// The only algorithm accepted; `AWS4-ECDSA-P256-SHA256` (`SigV4a`) needs keys we do not have.
pub(super) const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// A request as it came over the wire. Without `Debug` on purpose: its headers hold session tokens.
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

/// The `Authorization` header, or the parameters of a presigned URL, taken apart.
pub(super) struct Authorization<'a> {
    pub(super) credential: Cow<'a, str>,
    /// Lower case, sorted, each once: canonical, whatever order they came in.
    pub(super) signed_headers: Vec<String>,
    pub(super) signature: Cow<'a, str>,
}

/// The parameter that makes a request one of these; what it covers is everything else.
pub(super) const SIGNATURE: &str = "X-Amz-Signature";
