//! What is done with a connection of this node, whoever asks for it: a caller here, or another
//! node.

use std::sync::Arc;

use bytes::Bytes;

use super::call::{Answer, DEADLINE, Operation};
use crate::model::id::{ConnectionId, NodeTag};
use crate::model::registry::Registry;
use crate::protocol::close::Close;
use crate::shard::hub::Hub;
use crate::shard::inbox::{JoinOutcome, PostOutcome};

/// See the [module documentation](self).
#[derive(Clone, Debug)]
pub(crate) struct OwnNode {
    pub(crate) tag: NodeTag,
    pub(crate) hub: Arc<Hub>,
    pub(crate) registry: Arc<dyn Registry>,
}

impl OwnNode {
    /// Does what is asked with a connection of this node.
    pub(crate) async fn carry_out(
        &self,
        operation: Operation,
        id: ConnectionId,
        frame: Bytes,
    ) -> Answer {
        let Self { hub, registry, .. } = self;
        match operation {
            Operation::Post => match hub.post(id, frame).await {
                PostOutcome::Sent => Answer::Done,
                PostOutcome::Gone => Answer::Gone,
                PostOutcome::Full => Answer::Full,
            },
            Operation::Delete if hub.close(id, Close::Deleted).await => Answer::Done,
            Operation::Delete => Answer::Gone,
            Operation::Get => match (registry.get(&id), hub.last_active(id).await) {
                (Some(record), Some(last_active)) => {
                    Answer::Described(record.describe(last_active))
                }
                _ => Answer::Gone,
            },
            Operation::Groups => hub.groups_of(id).await.map_or(Answer::Gone, |groups| {
                Answer::Described(serde_json::json!({ "groups": groups }).to_string())
            }),
            // A subscription that does not come to stand is refused in the end; the caller does not
            // wait so long.
            Operation::Join(group) => {
                match tokio::time::timeout(DEADLINE, hub.join(id, group)).await {
                    Ok(JoinOutcome::Joined) => Answer::Done,
                    Ok(JoinOutcome::Gone) => Answer::Gone,
                    Ok(JoinOutcome::TooMany) => Answer::TooMany,
                    Ok(JoinOutcome::Refused) | Err(_) => Answer::Refused,
                }
            }
            Operation::Leave(group) => {
                if hub.leave(id, group).await {
                    Answer::Done
                } else {
                    Answer::Gone
                }
            }
        }
    }
}
