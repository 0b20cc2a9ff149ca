//! What each setting was read as, so that the next reading can tell what has changed.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::row::{Described as _, Kind, Reload, Row};

/// See the [module documentation](self). By key; of each the kind is its row's.
#[derive(Clone, Default)]
pub(crate) struct Values(BTreeMap<String, Arc<dyn Any + Send + Sync>>);

/// A setting that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) key: String,
    pub(super) reload: Reload,
}

impl Values {
    pub(super) fn set<K: Kind>(&mut self, row: &'static Row<K>, value: K) {
        self.0.insert(row.key(), Arc::new(value));
    }

    pub(super) fn get<K: Kind>(&self, row: &'static Row<K>) -> Option<&K> {
        self.0.get(&row.key())?.downcast_ref()
    }
}

/// Some are secret.
impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}
