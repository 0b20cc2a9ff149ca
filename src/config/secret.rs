//! Texts that no log shows.

use std::fmt;

/// A text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Box<str>);

impl Secret {
    /// Wraps a secret.
    pub(crate) fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Returns the secret, for the one who computes with it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MASKED")
    }
}
