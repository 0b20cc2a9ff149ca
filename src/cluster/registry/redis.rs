//! The registry of many nodes: a hash of records for each node, and a lease that says the node
//! lives.
//!
//! One write renews the lease for all connections of a node; nothing is refreshed for each. It also
//! says how the node is, so that a node that drains knows what the others can take. When it is
//! renewed no more, one survivor ends the dead node's connections in its name
//! ([`crate::cluster::registry::reaper`]); a node that was taken for dead must not go on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use redis::{Cmd, FromRedisValue as _};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::cluster::broker::redis::health::Health;
use crate::cluster::registry::memory::MemoryRegistry;
use crate::cluster::registry::tenure::{Lapsed, Tenure};
use crate::cluster::store::{ANSWER_TIMEOUT, Call, Store, StoreError};
use crate::config::{OnOutage, RedisSettings, Snapshots};
use crate::limits::places::Places;
use crate::model::broker::Channel;
use crate::model::id::{ConnectionId, NodeTag};
use crate::model::registry::{Lease, Record, Registry, Unavailable};
use crate::model::trouble::{RedisRefusal, Trouble};
use crate::ops::lifecycle::Lifecycle;
use crate::ops::metrics::Metrics;

mod reconcile;
mod renewal;

/// Writes in one pipeline: a connect storm costs one round trip for this many.
const BATCH: usize = 512;
/// Pause before removals, or a renewal, that failed are tried again.
const PAUSE: Duration = Duration::from_millis(200);

const AWAY: Unavailable = Unavailable(Trouble::Away);

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct RedisRegistry {
    store: Store,
    tag: String,
    local: Arc<MemoryRegistry>,
    writes: mpsc::Sender<Write>,
}

/// Where the lease is read off.
#[derive(Clone, Debug)]
pub(crate) struct Presence {
    pub(crate) name: String,
    pub(crate) snapshots: Snapshots,
    pub(crate) places: Arc<Places>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) metrics: Arc<Metrics>,
    /// Told whether the lease can be renewed.
    pub(crate) health: Arc<Health>,
}

/// A handshake that waits for its record.
type Waiting = oneshot::Sender<Result<(), Unavailable>>;

#[derive(Debug)]
enum Write {
    Insert(Arc<Record>, Waiting),
    /// And then, from a channel, the name of the connection's end.
    Remove(ConnectionId, Option<Channel>),
    /// Once all before it is written, compare all records.
    Reconcile,
    /// Once all before it is written, give up the lease.
    Leave(oneshot::Sender<()>),
}

/// The tasks' side.
#[derive(Clone)]
struct RegistryTask {
    store: Store,
    tag: String,
    presence: Presence,
    tenure: Tenure,
    lease: Duration,
    /// Whether clients are let in while Redis is away, and written down later.
    may_owe: bool,
    local: Arc<MemoryRegistry>,
    /// Cancelled, once, when the node has its lease and is among the nodes: before that nobody
    /// would miss it.
    known: CancellationToken,
    /// Cancelled when the lease is given up.
    left: CancellationToken,
}

impl RedisRegistry {
    /// Starts the registry's tasks, which keep the tenure.
    pub(crate) fn start(
        store: &Store,
        settings: &RedisSettings,
        tag: NodeTag,
        presence: Presence,
        tenure: Tenure,
    ) -> Self {
        let local = Arc::new(MemoryRegistry::default());
        // A connection is written once and removed once. After a reload there may be more; what has
        // no room here is compared later.
        let (writes, to_write) =
            mpsc::channel(2 * presence.snapshots.latest().limits.max_connections);
        let (store, tag, lifecycle) = (store.clone(), tag.to_string(), presence.lifecycle.clone());
        let task = RegistryTask {
            store: store.clone(),
            tag: tag.clone(),
            presence,
            tenure,
            lease: settings.lease,
            may_owe: settings.on_outage == OnOutage::Local,
            local: Arc::clone(&local),
            known: CancellationToken::new(),
            left: lifecycle.ending().child_token(),
        };
        lifecycle.spawn_until_end("writer of records", task.clone().write(to_write));
        lifecycle.spawn_vital(
            "renewal of the lease",
            task.left.clone(),
            task.renew(writes.clone()),
        );
        Self { store, tag, local, writes }
    }
}

impl Registry for RedisRegistry {
    fn insert(&self, record: Arc<Record>) -> BoxFuture<'_, Result<(), Unavailable>> {
        Box::pin(async move {
            let mut insertion = Insertion { registry: self, id: record.id, is_done: false };
            self.local.put(Arc::clone(&record));
            let (done, written) = oneshot::channel();
            let result = match self.writes.try_send(Write::Insert(record, done)) {
                Ok(()) => written.await.unwrap_or(Err(AWAY)),
                Err(_) => Err(AWAY),
            };
            insertion.is_done = result.is_ok();
            result
        })
    }

    fn end(&self, id: &ConnectionId) {
        self.local.end(id);
    }

    fn remove(&self, id: &ConnectionId, name: Option<Channel>) {
        self.local.remove(id, None);
        if self.writes.try_send(Write::Remove(*id, name)).is_err() {
            tracing::warn!("a record stays behind until all are compared");
        }
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let (done, left) = oneshot::channel();
            if self.writes.send(Write::Leave(done)).await.is_ok() && left.await.is_err() {
                tracing::debug!("the lease ends by itself");
            }
        })
    }

    fn others(&self) -> BoxFuture<'_, Result<Vec<Lease>, Unavailable>> {
        Box::pin(async move {
            self.read_others().await.map_err(|error| {
                tracing::debug!(%error, "reading the others' leases");
                Unavailable(Trouble::from(&error))
            })
        })
    }

    fn get(&self, id: &ConnectionId) -> Option<Arc<Record>> {
        self.local.get(id)
    }
}

/// An insertion under way. One that fails, or whose client goes away while it waits, is taken back.
struct Insertion<'a> {
    registry: &'a RedisRegistry,
    id: ConnectionId,
    is_done: bool,
}

impl Drop for Insertion<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            self.registry.remove(&self.id, None);
        }
    }
}

impl RedisRegistry {
    async fn read_others(&self) -> Result<Vec<Lease>, StoreError> {
        let nodes = self.store.nodes();
        let tags: Vec<String> = self.store.ask(&nodes, Cmd::smembers(&nodes)).await?;
        let leases = tags.iter().filter(|tag| **tag != self.tag).map(|tag| self.store.lease(tag));
        let calls: Vec<_> = leases.map(|name| Call::new(name.clone(), Cmd::get(name))).collect();
        let mut others = Vec::new();
        for outcome in self.store.run_all(None, &calls).await {
            let text = match outcome.result {
                // Somebody else's key: only that node is not known of.
                Err(error) if error.class() == Some(RedisRefusal::WrongType) => continue,
                result => Option::<String>::from_redis_value(result?)?,
            };
            // What another version says is not understood; that node counts as dead here, which
            // only slows a drain.
            others.extend(text.and_then(|text| Lease::from_json(&text)));
        }
        Ok(others)
    }
}

impl Presence {
    fn lease(&self, renewals: u64) -> Lease {
        let limits = self.snapshots.latest().limits;
        Lease {
            name: self.name.clone(),
            connections: self.places.taken(),
            max_connections: limits.max_connections,
            handshake_rate: limits.handshake_rate,
            phase: self.lifecycle.phase(),
            renewals: Some(renewals),
        }
    }
}

impl RegistryTask {
    /// Carries out writes, as many at a time as have come together. Insertions that fail are
    /// refused, or owed; removals stay.
    async fn write(self, mut writes: mpsc::Receiver<Write>) {
        let mut batch = Vec::new();
        let mut insertions = HashMap::new();
        let mut removals: Vec<ConnectionId> = Vec::new();
        let mut names: Vec<(Channel, ConnectionId)> = Vec::new();
        let (mut leaving, mut compare, mut is_away) = (None, false, false);
        loop {
            let is_done = insertions.is_empty() && removals.is_empty() && leaving.is_none();
            let wait = if is_done { Duration::MAX } else { PAUSE };
            if batch.is_empty()
                && tokio::time::timeout(wait, writes.recv_many(&mut batch, BATCH)).await == Ok(0)
            {
                return;
            }
            let mut waiting: Vec<Waiting> = Vec::new();
            for write in batch.drain(..) {
                match write {
                    Write::Insert(record, done) => {
                        insertions.insert(record.id, record);
                        waiting.push(done);
                    }
                    Write::Remove(id, name) => {
                        insertions.remove(&id);
                        removals.push(id);
                        names.extend(name.map(|channel| (channel, id)));
                    }
                    Write::Reconcile => compare = true,
                    Write::Leave(done) => leaving = Some(done),
                }
            }
            if self.may_owe && is_away {
                waiting.drain(..).for_each(|done| crate::shard::inbox::answer(done, Ok(())));
            }
            let result = self.write_batch(&insertions, &removals).await;
            is_away = result.is_err();
            if result.is_ok() {
                removals.clear();
                self.forget_names(std::mem::take(&mut names)).await;
                if let Some(done) = leaving.take() {
                    self.leave(done).await;
                    return std::future::pending().await;
                }
            }
            if !(is_away && self.may_owe) {
                insertions.clear();
            }
            let answer = if self.may_owe { Ok(()) } else { result.map_err(Unavailable) };
            waiting.into_iter().for_each(|done| crate::shard::inbox::answer(done, answer));
            if std::mem::take(&mut compare)
                && result.is_ok()
                && let Err(error) = self.reconcile(&mut writes, &mut batch).await
            {
                tracing::debug!(%error, "comparing records");
            }
        }
    }

    /// Nothing is written for a node that others may have taken for dead.
    async fn write_batch(
        &self,
        insertions: &HashMap<ConnectionId, Arc<Record>>,
        removals: &[ConnectionId],
    ) -> Result<(), Trouble> {
        if insertions.is_empty() && removals.is_empty() {
            return Ok(());
        }
        let known = tokio::time::timeout(ANSWER_TIMEOUT, self.known.cancelled()).await;
        known.map_err(|_| Trouble::Away)?;
        self.tenure.held().await.map_err(|lapsed| match lapsed {
            Lapsed::Unrenewed(trouble) => trouble,
            Lapsed::Fenced => Trouble::Away,
        })?;
        self.write_now(insertions, removals).await.map_err(|error| {
            tracing::debug!(%error, "writing records");
            Trouble::from(&error)
        })
    }

    async fn write_now(
        &self,
        insertions: &HashMap<ConnectionId, Arc<Record>>,
        removals: &[ConnectionId],
    ) -> Result<(), StoreError> {
        let key = self.store.records(&self.tag);
        let mut commands = Vec::new();
        for record in insertions.values() {
            commands.push(Cmd::hset(&key, record.id.as_str(), record.to_json()));
            if commands.len() == BATCH {
                self.store.run(&key, std::mem::take(&mut commands)).await?;
            }
        }
        for chunk in removals.chunks(BATCH) {
            let ids: Vec<&str> = chunk.iter().map(ConnectionId::as_str).collect();
            commands.push(Cmd::hdel(&key, ids));
        }
        self.store.run(&key, commands).await
    }

    /// Removes names of ends whose records have gone. A node that still has its tenure now had it
    /// when they went, so no reaper has read them, and nobody will use the names again. What stays
    /// is gone in a day.
    async fn forget_names(&self, names: Vec<(Channel, ConnectionId)>) {
        if !self.tenure.is_held(Instant::now()) {
            return;
        }
        let mut keys: HashMap<String, Vec<String>> = HashMap::new();
        for (channel, id) in &names {
            let name = self.store.channel(channel);
            let key = Store::end(&name, id);
            keys.entry(name).or_default().push(key);
        }
        let calls: Vec<_> =
            keys.into_iter().map(|(name, keys)| Call::new(name, Cmd::del(keys))).collect();
        for outcome in self.store.run_all(None, &calls).await {
            if let Err(error) = outcome.result {
                tracing::debug!(%error, "removing names");
            }
        }
    }
}
