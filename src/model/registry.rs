//! Who is connected where.
//!
//! Contract: a record is found from the end of `$connect` to the start of `$disconnect`. A node's
//! registry has the records of its own connections; whoever wants another node's asks that node.
//! `insert` is done when the record would survive the node, so that its `$disconnect` can be run by
//! another; for that it is kept after `end`, until `remove`.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::model::broker::Channel;
use crate::model::id::ConnectionId;
use crate::model::phase::Phase;
use crate::model::trouble::Trouble;

/// How long the mark of a node that has left, or was taken for dead, stays. Who sleeps for longer
/// finds nothing of it any more.
pub(crate) const MARK_KEPT: Duration = Duration::from_secs(24 * 3_600);

/// What is known of a connection from its handshake on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: ConnectionId,
    pub(crate) source_ip: IpAddr,
    pub(crate) user_agent: Option<Box<str>>,
    /// The authenticated principal, if any.
    pub(crate) user: Option<Arc<str>>,
    pub(crate) connected_at: Timestamp,
}

/// What a node says of itself to the others, for as long as it lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) name: String,
    pub(crate) connections: usize,
    pub(crate) max_connections: usize,
    /// Handshakes that it lets in a second.
    pub(crate) handshake_rate: usize,
    pub(crate) phase: Phase,
    /// Counts renewals, so that no two leases of a node are the same; `None` if it is of an earlier
    /// version, whose leases end by the clock of Redis.
    #[serde(default)]
    pub(crate) renewals: Option<u64>,
}

/// The registry cannot be reached, or does not do what it is asked.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct Unavailable(pub(crate) Trouble);

/// Keeps records.
pub(crate) trait Registry: fmt::Debug + Send + Sync {
    /// Adds a record.
    fn insert(&self, record: Arc<Record>) -> BoxFuture<'_, Result<(), Unavailable>>;

    /// The connection has ended: its record is not found any more, and is kept.
    fn end(&self, id: &ConnectionId);

    /// Removes a record; then the name of what `$disconnect` has published, where nobody will use
    /// it again, from the channel.
    fn remove(&self, id: &ConnectionId, name: Option<Channel>);

    /// Says that this node ends and has no connections left; nobody needs to wait for its lease to
    /// end.
    fn leave(&self) -> BoxFuture<'_, ()>;

    /// Returns what the other nodes that live say of themselves.
    fn others(&self) -> BoxFuture<'_, Result<Vec<Lease>, Unavailable>>;

    /// Returns the record of a connection of this node, `None` if it is gone.
    fn get(&self, id: &ConnectionId) -> Option<Arc<Record>>;
}

impl Lease {
    /// Returns the text in which the lease is kept.
    pub(crate) fn to_json(&self) -> String {
        json!(self).to_string()
    }

    /// Reads it.
    pub(crate) fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

impl Record {
    /// Returns the body of `GetConnection`, with the spacing of API Gateway.
    pub(crate) fn describe(&self, last_active: SystemTime) -> String {
        let Self { source_ip, user_agent, connected_at, .. } = self;
        let user_agent = json!(user_agent);
        let last_active =
            Timestamp::try_from(last_active).unwrap_or(*connected_at).max(*connected_at);
        format!(
            "{{\n  \"identity\" : {{\n    \"sourceIp\" : \"{source_ip}\",\n    \"userAgent\" : {user_agent}\n  }},\n  \
             \"connectedAt\" : \"{connected_at:.3}\",\n  \"lastActiveAt\" : \"{last_active:.3}\"\n}}"
        )
    }

    /// Returns the text in which the record is kept.
    pub(crate) fn to_json(&self) -> String {
        json!(self).to_string()
    }

    /// Reads it.
    pub(crate) fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}
