//! Finds out whether Redis holds this node's records, no more and no fewer, and what it has to be
//! told if not.
//!
//! Every renewal brings how many there are. Writes may be under way, so one difference says
//! nothing; the same one twice does. That one record is missing and another is too many is found by
//! an audit, now and then.

use std::collections::HashSet;
use std::sync::Arc;

use redis::{Cmd, cmd};
use tokio::sync::mpsc;

use super::{BATCH, RegistryTask, Write};
use crate::cluster::store::StoreError;
use crate::model::id::ConnectionId;
use crate::model::registry::Record;
use crate::ops::metrics::Reconciled;

/// Renewals from one audit to the next: five and a half minutes by default. Reading 100,000 records
/// takes 15 MB.
const AUDIT: u32 = 100;

/// Decides when to compare all records.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    /// How many more records than Redis this node had at the last renewal, if not as many.
    excess: Option<i64>,
    renewals: u32,
}

/// What Redis has to be told.
#[derive(Debug, Default)]
struct Difference {
    missing: Vec<Arc<Record>>,
    foreign: Vec<String>,
}

impl Suspicion {
    /// Takes both counts; returns whether all records should be compared.
    pub(super) fn on_counts(&mut self, local: i64, kept: i64) -> bool {
        self.renewals += 1;
        let excess = Some(local - kept).filter(|excess| *excess != 0);
        let has_forgotten = kept == 0 && local > 0;
        let is_lasting = excess.is_some() && excess == self.excess;
        self.excess = excess;
        let compare = has_forgotten || is_lasting || self.renewals >= AUDIT;
        if compare {
            *self = Self::default();
        }
        compare
    }
}

impl RegistryTask {
    /// Makes Redis hold this node's records, no more and no fewer. Nobody else writes meanwhile:
    /// what comes is put into `batch`.
    pub(super) async fn reconcile(
        &self,
        writes: &mut mpsc::Receiver<Write>,
        batch: &mut Vec<Write>,
    ) -> Result<(), StoreError> {
        let kept = self.kept().await?;
        let local = self.local.all();
        batch.extend(std::iter::from_fn(|| writes.try_recv().ok()));
        let id_of = |write: &Write| match write {
            Write::Insert(record, _) => Some(record.id),
            Write::Remove(id, _) => Some(*id),
            Write::Reconcile | Write::Leave(_) => None,
        };
        let pending = batch.iter().filter_map(id_of).collect();
        let difference = Difference::between(kept, &local, &pending);
        if difference.is_none() {
            return Ok(());
        }
        let Difference { missing, foreign } = difference;
        let key = self.store.records(&self.tag);
        for chunk in missing.chunks(BATCH) {
            let write =
                |record: &Arc<Record>| Cmd::hset(&key, record.id.as_str(), record.to_json());
            self.store.run(&key, chunk.iter().map(write).collect()).await?;
        }
        for chunk in foreign.chunks(BATCH) {
            self.store.run(&key, vec![Cmd::hdel(&key, chunk)]).await?;
        }
        self.presence.metrics.count_reconciled(Reconciled::Written, missing.len());
        self.presence.metrics.count_reconciled(Reconciled::Removed, foreign.len());
        let (written, removed) = (missing.len(), foreign.len());
        tracing::warn!(written, removed, "Redis did not hold this node's records; now it does");
        Ok(())
    }

    /// Returns the ids of which Redis keeps a record.
    async fn kept(&self) -> Result<HashSet<String>, StoreError> {
        let key = self.store.records(&self.tag);
        let (mut kept, mut cursor) = (HashSet::new(), 0_u64);
        loop {
            let scan = cmd("HSCAN").arg(&key).arg(cursor).arg("COUNT").arg(BATCH).to_owned();
            let page: (u64, Vec<(String, String)>) = self.store.ask(&key, scan).await?;
            cursor = page.0;
            kept.extend(page.1.into_iter().map(|(id, _)| id));
            if cursor == 0 {
                return Ok(kept);
            }
        }
    }
}

impl Difference {
    /// Compares what Redis keeps with this node's records. `pending`: those of which a write is
    /// still to come.
    ///
    /// `kept` must be read before `local`, and nothing be written from then on: what is in `kept`
    /// only is gone for good then, since a record is local before it is written.
    fn between(
        kept: HashSet<String>,
        local: &[Arc<Record>],
        pending: &HashSet<ConnectionId>,
    ) -> Self {
        let is_missing = |record: &&Arc<Record>| {
            !kept.contains(record.id.as_str()) && !pending.contains(&record.id)
        };
        let missing = local.iter().filter(is_missing).cloned().collect();
        let ours: HashSet<&str> = local.iter().map(|record| record.id.as_str()).collect();
        let is_foreign = |id: &String| {
            let is_pending = ConnectionId::parse(id).is_some_and(|id| pending.contains(&id));
            !ours.contains(id.as_str()) && !is_pending
        };
        Self { missing, foreign: kept.into_iter().filter(is_foreign).collect() }
    }

    fn is_none(&self) -> bool {
        self.missing.is_empty() && self.foreign.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::model::id::NodeTag;

    fn record() -> Arc<Record> {
        let source_ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let id = ConnectionId::mint(NodeTag::random());
        Arc::new(Record {
            id,
            source_ip,
            user_agent: None,
            user: None,
            connected_at: Timestamp::UNIX_EPOCH,
        })
    }

    #[test]
    fn one_difference_is_a_write_under_way_and_the_same_one_twice_is_not() {
        let mut suspicion = Suspicion::default();
        assert!(!suspicion.on_counts(7, 7));
        assert!(!suspicion.on_counts(8, 7), "a record is being written");
        assert!(!suspicion.on_counts(8, 8));
        assert!(!suspicion.on_counts(7, 8), "one is being removed");
        assert!(!suspicion.on_counts(9, 8), "another is being written");
        assert!(suspicion.on_counts(5, 4));
        assert!(!suspicion.on_counts(5, 4), "compared a moment ago");
        assert!(suspicion.on_counts(5, 4));
        assert!(!suspicion.on_counts(4, 5));
        assert!(suspicion.on_counts(14, 15), "one too many, still");
    }

    #[test]
    fn a_redis_that_has_forgotten_all_is_told_at_once() {
        let mut suspicion = Suspicion::default();
        assert!(suspicion.on_counts(3, 0));
        assert!(!suspicion.on_counts(0, 0));
    }

    #[test]
    fn an_audit_comes_now_and_then_though_the_counts_agree() {
        let mut suspicion = Suspicion::default();
        let audits = (0..10 * AUDIT).filter(|_| suspicion.on_counts(7, 7)).count();
        assert_eq!(audits, 10);
    }

    proptest! {
        /// Each connection is local or not, kept or not, and has a write to come or not.
        #[test]
        fn redis_agrees_once_the_difference_is_written(all in prop::collection::vec(any::<[bool; 3]>(), 0..60)) {
            let (mut kept, mut local, mut pending) = (HashSet::new(), Vec::new(), HashSet::new());
            kept.insert("not an id".to_owned());
            for [is_local, is_kept, is_pending] in all {
                let record = record();
                let id = record.id;
                if is_kept {
                    kept.insert(id.to_string());
                }
                if is_pending {
                    pending.insert(id);
                }
                if is_local {
                    local.push(record);
                }
            }
            let mut told = kept.clone();
            let Difference { missing, foreign } = Difference::between(kept, &local, &pending);
            for record in &missing {
                prop_assert!(told.insert(record.id.to_string()), "it was there");
                prop_assert!(!pending.contains(&record.id));
            }
            for id in &foreign {
                prop_assert!(told.remove(id), "it was not there");
            }
            prop_assert!(!told.contains("not an id"));
            let wanted: HashSet<String> = local.iter().map(|record| record.id.to_string()).collect();
            for id in told.symmetric_difference(&wanted) {
                let id = ConnectionId::parse(id).expect("an id");
                prop_assert!(pending.contains(&id), "its own write is still to come");
            }
        }
    }
}
