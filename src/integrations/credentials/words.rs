//! Credentials, and why there are none.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

use crate::config::Secret;

/// Longest part of a source's error that is repeated, in characters.
const QUOTED: usize = 100;

/// What requests are signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) key_id: String,
    pub(crate) secret: Secret,
    pub(crate) session_token: Option<Secret>,
    pub(crate) expires: Option<Timestamp>,
}

/// Why there are none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no credentials: {0}")]
pub(crate) struct CredentialsError(Arc<str>);

impl CredentialsError {
    pub(super) fn new(source: &str, message: impl AsRef<str>) -> Self {
        Self(format!("{source}: {}", message.as_ref()).into())
    }
}

impl Credentials {
    /// Takes what was read somewhere.
    pub(super) fn of_keys(
        source: &str,
        [key_id, secret, session_token]: [Option<&str>; 3],
    ) -> Result<Option<Self>, CredentialsError> {
        let is_word = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        let (Some(key_id), Some(secret)) = (key_id, secret) else {
            let message = "a key's id without its secret, or the other way round; set both";
            return match (key_id, secret) {
                (None, None) => Ok(None),
                _ => Err(CredentialsError::new(source, message)),
            };
        };
        if ![key_id, secret, session_token.unwrap_or_default()].into_iter().all(is_word) {
            return Err(CredentialsError::new(source, "a key or token with blanks or the like"));
        }
        let session_token = session_token.map(Secret::new);
        let (key_id, secret) = (key_id.to_owned(), Secret::new(secret));
        Ok(Some(Self { key_id, secret, session_token, expires: None }))
    }

    /// Returns whether they are good at a moment.
    pub(super) fn are_good(&self, at: SystemTime) -> bool {
        self.left(at).is_none_or(|left| !left.is_zero())
    }

    /// Returns for how long they are good; for ever without an end.
    pub(super) fn left(&self, at: SystemTime) -> Option<Duration> {
        let end = u64::try_from(self.expires?.as_millisecond()).unwrap_or_default();
        let end = UNIX_EPOCH + Duration::from_millis(end);
        Some(end.duration_since(at).unwrap_or_default())
    }
}

/// Makes a text that somebody else has sent fit for the log.
pub(super) fn quoted(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(QUOTED).collect()
}
