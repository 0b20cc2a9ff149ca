//! The registry of a node that is alone: a map.

use std::collections::HashMap;
use std::future::ready;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::RwLock;

use super::{Lease, Record, Registry, Unavailable};
use crate::id::ConnectionId;

/// Records of this node.
#[derive(Debug, Default)]
pub(crate) struct MemoryRegistry(RwLock<HashMap<ConnectionId, Arc<Record>>>);

impl MemoryRegistry {
    /// Adds a record; never waits.
    pub(crate) fn put(&self, record: Arc<Record>) {
        self.0.write().insert(record.id, record);
    }

    /// Returns how many records there are.
    pub(crate) fn len(&self) -> usize {
        self.0.read().len()
    }

    /// Returns all records.
    pub(crate) fn all(&self) -> Vec<Arc<Record>> {
        self.0.read().values().cloned().collect()
    }
}

impl Registry for MemoryRegistry {
    fn insert(&self, record: Arc<Record>) -> BoxFuture<'_, Result<(), Unavailable>> {
        self.put(record);
        Box::pin(ready(Ok(())))
    }

    fn remove(&self, id: &ConnectionId) {
        self.0.write().remove(id);
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }

    fn others(&self) -> BoxFuture<'_, Result<Vec<Lease>, Unavailable>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn get(&self, id: &ConnectionId) -> Option<Arc<Record>> {
        self.0.read().get(id).cloned()
    }
}
