//! This node, and the others if it meets any: callers do not see which of them answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::peers::{Answer, Operation, OwnNode, PeerError, Peers};
use crate::model::id::{ConnectionId, NodeTag};
use crate::model::listing::{Listed, Query};

/// See the [module documentation](self).
#[derive(Clone, Debug)]
pub(crate) enum Nodes {
    Alone(OwnNode),
    Many(Arc<Peers>),
}

impl Nodes {
    /// Does something with a connection, wherever it is.
    ///
    /// # Errors
    /// The connection's node did not answer.
    pub(crate) async fn ask(
        &self,
        operation: Operation,
        id: ConnectionId,
        frame: Bytes,
    ) -> Result<Answer, PeerError> {
        match self {
            Self::Alone(own) => Ok(own.carry_out(operation, id, frame).await),
            Self::Many(peers) => peers.ask(operation, id, frame).await,
        }
    }

    /// Asks a node what it holds; one that is gone holds nothing.
    ///
    /// # Errors
    /// It did not answer.
    pub(crate) async fn list(
        &self,
        node: NodeTag,
        query: Query,
        within: Duration,
    ) -> Result<Option<Listed>, PeerError> {
        match self {
            Self::Alone(own) => Ok(Some(own.hub.list(query).await)),
            Self::Many(peers) => peers.list(node, query, within).await,
        }
    }

    /// Returns the tags of all nodes, in order.
    ///
    /// # Errors
    /// Redis did not answer.
    pub(crate) async fn tags(&self) -> Result<Vec<NodeTag>, PeerError> {
        match self {
            Self::Alone(own) => Ok(vec![own.tag]),
            Self::Many(peers) => Ok(peers.nodes().await?),
        }
    }
}
