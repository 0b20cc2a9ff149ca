//! The registry of a node that is alone: a map.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::{Record, Registry};
use crate::id::ConnectionId;

/// Records of this node.
#[derive(Debug, Default)]
pub(crate) struct MemoryRegistry(RwLock<HashMap<ConnectionId, Arc<Record>>>);

impl Registry for MemoryRegistry {
    fn insert(&self, record: Arc<Record>) {
        self.0.write().insert(record.id, record);
    }

    fn remove(&self, id: &ConnectionId) {
        self.0.write().remove(id);
    }

    fn get(&self, id: &ConnectionId) -> Option<Arc<Record>> {
        self.0.read().get(id).cloned()
    }
}
