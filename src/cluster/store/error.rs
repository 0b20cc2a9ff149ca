//! Why Redis did not do what it was asked.

use redis::{ErrorKind, ParsingError, RedisError, Value};

use super::resp::Breach;
use crate::model::trouble::{RedisRefusal, Trouble};

/// Why Redis did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// No connection could be made; the class is that of what the server said, if it said anything.
    #[error("no connection to Redis: {1}")]
    Connect(Option<RedisRefusal>, String),
    /// A command failed.
    #[error("Redis: {0}")]
    Command(#[from] RedisError),
    /// The connection ended.
    #[error("the connection to Redis ended")]
    Closed,
    /// No answer came in time.
    #[error("Redis did not answer in time")]
    Timeout,
    /// The server holds a copy of another's data. Some replicas take writes, and lose them.
    #[error("the server is a replica (role:slave)")]
    Replica,
    /// The server lacks commands that are needed.
    #[error("the server's version is {version}, and {}.{} or later is needed", .needed.0, .needed.1)]
    TooOld { version: String, needed: (u32, u32) },
    /// What came cannot be an answer of Redis to what was asked.
    #[error("{0}")]
    Broken(Breach),
    /// It is not known where Redis is.
    #[error("{0}")]
    NotFound(&'static str),
    /// The Cluster is there, and not whole.
    #[error("{0}")]
    Unserved(&'static str),
    /// The settings cannot be meant.
    #[error("{0}")]
    Settings(String),
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        Self::Command(error.into())
    }
}

impl From<ParsingError> for StoreError {
    fn from(error: ParsingError) -> Self {
        Self::Command(error.into())
    }
}

impl StoreError {
    /// Returns whether nothing was carried out: the server was not reached, or has said no.
    pub(crate) fn is_certain(&self) -> bool {
        match self {
            Self::Connect(..)
            | Self::Replica
            | Self::TooOld { .. }
            | Self::NotFound(_)
            | Self::Unserved(_)
            | Self::Settings(_) => true,
            // A script may have done a part before a command that the user has no right to.
            Self::Command(error) if RedisRefusal::is_halfway(error) => false,
            Self::Command(error) => {
                matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
            }
            Self::Broken(_) | Self::Closed | Self::Timeout => false,
        }
    }

    /// Returns it as what keeps a connection from being made, so that nothing was asked over it.
    pub(super) fn before_it_began(self) -> Self {
        match self {
            Self::Command(_) | Self::Broken(_) | Self::Closed | Self::Timeout => {
                Self::Connect(self.class(), self.to_string())
            }
            certain => certain,
        }
    }

    /// Returns the class of what Redis said; `None` if it is away, or has not said anything.
    pub(crate) fn class(&self) -> Option<RedisRefusal> {
        match self {
            Self::Connect(class, _) => *class,
            Self::Command(error) => RedisRefusal::of(error),
            Self::Replica => Some(RedisRefusal::ReadOnly),
            Self::TooOld { .. } => Some(RedisRefusal::TooOld),
            Self::Broken(_) => Some(RedisRefusal::Broken),
            Self::Unserved(_) => Some(RedisRefusal::ClusterDown),
            Self::Closed | Self::Timeout | Self::NotFound(_) | Self::Settings(_) => None,
        }
    }

    /// Returns whether the server may not be the right one any more.
    pub(super) fn is_of_topology(&self) -> bool {
        let is_moved_on = self.class().is_some_and(RedisRefusal::is_moved_on);
        match self {
            Self::Command(error) => error.is_unrecoverable_error() || is_moved_on,
            Self::Connect(..) | Self::Broken(_) | Self::Closed | Self::Timeout | Self::Replica => {
                true
            }
            Self::TooOld { .. } | Self::NotFound(_) | Self::Unserved(_) | Self::Settings(_) => {
                false
            }
        }
    }
}

impl From<&StoreError> for Trouble {
    fn from(error: &StoreError) -> Self {
        error.class().map_or(Self::Away, Self::Refused)
    }
}

/// An error that the server has answered with is an error.
pub(super) fn refused_or(value: Value) -> Result<Value, StoreError> {
    match value {
        Value::ServerError(error) => Err(StoreError::Command(error.into())),
        value => Ok(value),
    }
}
