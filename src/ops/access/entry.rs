//! What a line of the access log is about.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;

use crate::model::call::CallError;
use crate::model::id::{ConnectionId, RequestId};
use crate::model::registry::Record;

/// What has come to pass.
#[derive(Clone, Debug)]
pub(crate) struct Entry<'e> {
    pub(crate) kind: EntryKind,
    /// The route that was run; `None` if none matches.
    pub(crate) route: Option<&'e str>,
    pub(crate) request: RequestId,
    pub(crate) message: Option<RequestId>,
    pub(crate) who: Who<'e>,
    pub(crate) at: Timestamp,
    pub(crate) end: EntryEnd<'e>,
    /// Of the close frame, at the end of a connection.
    pub(crate) close: Option<(u16, &'e str)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Connect,
    Message,
    Disconnect,
}

/// Whose event it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who<'e> {
    /// `None` if it was refused before it had one.
    pub(crate) connection: Option<(ConnectionId, Timestamp)>,
    pub(crate) source_ip: IpAddr,
    pub(crate) user_agent: Option<&'e str>,
    pub(crate) user: Option<&'e str>,
}

/// How it has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryEnd<'e> {
    pub(crate) status: u16,
    pub(crate) error: Option<&'e str>,
    /// Of the call of a back end.
    pub(crate) latency: Option<Duration>,
}

impl EntryEnd<'_> {
    /// Nothing has gone wrong.
    pub(crate) const OK: Self = Self { status: 200, error: None, latency: None };

    /// A back end was called.
    pub(crate) fn of_call(error: Option<CallError>, latency: Duration) -> Self {
        let (status, error) = match error {
            None => (200, None),
            Some(CallError::TimedOut) => (504, Some("Endpoint request timed out")),
            Some(CallError::Failed | CallError::Unreachable | CallError::Overload) => {
                (500, Some("Internal server error"))
            }
        };
        Self { status, error, latency: Some(latency) }
    }
}

impl<'e> From<&'e Record> for Who<'e> {
    fn from(record: &'e Record) -> Self {
        Self {
            connection: Some((record.id, record.connected_at)),
            source_ip: record.source_ip,
            user_agent: record.user_agent.as_deref(),
            user: record.user.as_deref(),
        }
    }
}
