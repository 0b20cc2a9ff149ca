//! Who is connected where.
//!
//! Contract: a record is there from the end of `$connect` to the start of `$disconnect`, and the registry of a node answers
//! for every connection of the cluster. The memory implementation answers for one node.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use crate::id::ConnectionId;

pub(crate) mod memory;

/// What is known of a connection from its handshake on.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) id: ConnectionId,
    pub(crate) source_ip: IpAddr,
    pub(crate) user_agent: Option<Box<str>>,
    /// The authenticated principal, if any.
    pub(crate) user: Option<Arc<str>>,
    pub(crate) connected_at: Timestamp,
}

/// Keeps records.
pub(crate) trait Registry: fmt::Debug + Send + Sync {
    /// Adds a record.
    fn insert(&self, record: Arc<Record>);

    /// Removes a record.
    fn remove(&self, id: &ConnectionId);

    /// Returns the record of a connection, `None` if it is gone.
    fn get(&self, id: &ConnectionId) -> Option<Arc<Record>>;
}
