//! The registry of a node that is alone: a map.

use std::collections::HashMap;
use std::future::ready;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::RwLock;

use crate::model::broker::Channel;
use crate::model::id::ConnectionId;
use crate::model::registry::{Lease, Record, Registry, Unavailable};

/// Records of this node.
#[derive(Debug, Default)]
pub(crate) struct MemoryRegistry(RwLock<Records>);

#[derive(Debug, Default)]
struct Records {
    open: HashMap<ConnectionId, Arc<Record>>,
    /// Of connections that have ended and whose `$disconnect` is not over.
    ending: HashMap<ConnectionId, Arc<Record>>,
}

impl MemoryRegistry {
    /// Adds a record; never waits.
    pub(crate) fn put(&self, record: Arc<Record>) {
        self.0.write().open.insert(record.id, record);
    }

    /// Returns how many records there are.
    pub(crate) fn len(&self) -> usize {
        let records = self.0.read();
        records.open.len() + records.ending.len()
    }

    /// Returns all records.
    pub(crate) fn all(&self) -> Vec<Arc<Record>> {
        let records = self.0.read();
        records.open.values().chain(records.ending.values()).cloned().collect()
    }
}

impl Registry for MemoryRegistry {
    fn insert(&self, record: Arc<Record>) -> BoxFuture<'_, Result<(), Unavailable>> {
        self.put(record);
        Box::pin(ready(Ok(())))
    }

    fn end(&self, id: &ConnectionId) {
        let Records { open, ending } = &mut *self.0.write();
        ending.extend(open.remove_entry(id));
    }

    fn remove(&self, id: &ConnectionId, _name: Option<Channel>) {
        let Records { open, ending } = &mut *self.0.write();
        if ending.remove(id).is_none() {
            open.remove(id);
        }
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }

    fn others(&self) -> BoxFuture<'_, Result<Vec<Lease>, Unavailable>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn get(&self, id: &ConnectionId) -> Option<Arc<Record>> {
        self.0.read().open.get(id).cloned()
    }
}
