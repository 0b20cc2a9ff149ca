//! What a client has asked for with its handshake.

use http::HeaderMap;

/// The head of a handshake, as the client sent it, without what only a trusted proxy may say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Handshake {
    pub(crate) path: String,
    /// What stands behind the `?`, as sent.
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
}

/// Counted for a header besides its text, in bytes.
const HEADER: usize = 32;

impl Handshake {
    /// Returns about what it takes, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let headers =
            self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER);
        self.path.len() + self.query.as_ref().map_or(0, String::len) + headers.sum::<usize>()
    }
}
