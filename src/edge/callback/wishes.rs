//! What functions ask of the way back.

use std::collections::BTreeMap;

/// Hosts by name, in small letters, and where they are instead: `dynamodb.eu-west-1.amazonaws.com`
/// at `127.0.0.1:8000`.
pub(crate) type HostMap = BTreeMap<String, String>;

/// What one function asks of the way back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    /// Its own `domainName`, with `http://` in front where that is to be spoken.
    pub(crate) domain: Option<String>,
    /// Hosts that are elsewhere for it.
    pub(crate) hosts: HostMap,
}
