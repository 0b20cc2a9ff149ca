//! What nodes ask of each other, and what they answer.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::listing::Listed;

/// Longest wait for another node's answer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(3);

/// What is asked of the node that holds a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Operation {
    Post,
    Get,
    Delete,
    /// The names of its groups.
    Groups,
    Join(Arc<str>),
    Leave(Arc<str>),
}

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done,
    /// The body of `GetConnection`.
    Described(String),
    Gone,
    Full,
    /// The connection is in as many groups as it may be.
    TooMany,
    /// The broker is not available there.
    Refused,
    /// The answer to a query, not to an operation.
    Listed(Listed),
}
