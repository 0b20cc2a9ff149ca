//! What says who has signed, and what.

use std::borrow::Cow;

/// The `Authorization` header, or the parameters of a presigned URL, taken apart.
pub(super) struct Authorization<'a> {
    pub(super) credential: Cow<'a, str>,
    /// Lower case, sorted, each once: canonical, whatever order they came in.
    pub(super) signed_headers: Vec<String>,
    pub(super) signature: Cow<'a, str>,
}
