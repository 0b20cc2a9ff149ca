//! What a node shares with others, or keeps to itself: broker, registry, and the way to other
//! nodes.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::cluster::broker::memory::MemoryBroker;
use crate::cluster::broker::redis::RedisBroker;
use crate::cluster::broker::redis::health::Health;
use crate::cluster::peers::Peers;
use crate::cluster::registry::memory::MemoryRegistry;
use crate::cluster::registry::redis::{Presence, RedisRegistry};
use crate::cluster::registry::tenure::Tenure;
use crate::cluster::store::{Store, StoreError};
use crate::config::{Config, OnOutage, RedisSettings, Snapshots};
use crate::limits::places::Places;
use crate::model::broker::Broker;
use crate::model::id::NodeTag;
use crate::model::registry::Registry;
use crate::model::trouble::Trouble;
use crate::ops::lifecycle::Lifecycle;
use crate::ops::telemetry::Telemetry;
use crate::shard::hub::Hub;

/// Leases for which a node that has been up counts as ready while Redis is away.
const GRACE_LEASES: u32 = 3;

/// See the head of this file.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) registry: Arc<dyn Registry>,
    /// What is shared; `None` for a node that is alone.
    pub(crate) shared: Option<Shared>,
    /// For how long this node may speak for its connections.
    pub(crate) tenure: Tenure,
    /// Cancelled when others have taken this node for dead.
    pub(crate) fenced: CancellationToken,
}

/// The parts that only many nodes have.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) settings: RedisSettings,
    pub(crate) peers: Arc<Peers>,
    pub(crate) health: Arc<Health>,
}

impl Backend {
    /// Starts what the configuration asks for.
    ///
    /// # Errors
    /// The URL of Redis is none.
    pub(crate) fn start(
        (config, snapshots): (&Config, &Snapshots),
        tag: NodeTag,
        (hub, places): (&Arc<Hub>, &Arc<Places>),
        (lifecycle, telemetry): (&Lifecycle, &Telemetry),
    ) -> Result<Self, StoreError> {
        let (fenced, metrics) = (CancellationToken::new(), &telemetry.metrics);
        let terms = config.terms();
        let Some(settings) = &config.redis else {
            let broker = Arc::new(MemoryBroker::new(
                Arc::clone(hub),
                telemetry.clone(),
                terms,
                snapshots.clone(),
            ));
            let registry = Arc::new(MemoryRegistry::default());
            return Ok(Self {
                broker,
                registry,
                shared: None,
                tenure: Tenure::unlimited(),
                fenced,
            });
        };
        let store = Store::new(settings, config.limits.message_bytes, Arc::clone(metrics))?;
        // Who serves its own members all the same is to be sent clients all the same.
        let grace =
            (settings.on_outage != OnOutage::Local).then_some(settings.lease * GRACE_LEASES);
        let health = Arc::new(Health::new(grace, settings.heartbeat, Arc::clone(metrics)));
        let presence = Presence {
            name: config.node_name.clone(),
            snapshots: snapshots.clone(),
            places: Arc::clone(places),
            lifecycle: lifecycle.clone(),
            metrics: Arc::clone(metrics),
            health: Arc::clone(&health),
        };
        let tenure = Tenure::new(settings.lease, fenced.clone());
        let registry: Arc<dyn Registry> =
            Arc::new(RedisRegistry::start((&store, settings), tag, presence, tenure.clone()));
        let peers = Peers::new(
            (store.clone(), settings.lease, config.limits.message_bytes),
            tag,
            Arc::clone(hub),
            Arc::clone(&registry),
            (lifecycle.clone(), Arc::clone(metrics)),
        );
        let peers = Arc::new(peers);
        let broker = RedisBroker::start(
            (store.clone(), settings.clone(), terms, snapshots.clone()),
            Arc::clone(hub),
            Arc::clone(&peers),
            Arc::clone(&health),
            (lifecycle, tenure.clone(), telemetry.clone()),
        );
        let shared = Some(Shared { store, settings: settings.clone(), peers, health });
        Ok(Self { broker: Arc::new(broker), registry, shared, tenure, fenced })
    }

    /// Returns whether new clients are welcome.
    pub(crate) fn is_ready(&self) -> bool {
        self.broker.has_begun()
            && self.shared.as_ref().is_none_or(|shared| shared.health.is_ready())
    }

    /// Returns what is wrong with Redis, as far as it is known.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.shared.as_ref().and_then(|shared| shared.health.trouble())
    }

    /// Returns what carries the messages.
    pub(crate) fn name(&self) -> &'static str {
        if self.shared.is_some() { "redis" } else { "memory" }
    }
}
