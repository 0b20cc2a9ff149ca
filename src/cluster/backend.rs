//! What a node shares with others, or keeps to itself: broker, registry, and the way to other
//! nodes.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::cluster::broker::memory::MemoryBroker;
use crate::cluster::broker::redis::health::Health;
use crate::cluster::broker::redis::{BrokerParts, RedisBroker};
use crate::cluster::nodes::Nodes;
use crate::cluster::peers::{OwnNode, PeerBounds, Peers};
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

/// See the [module documentation](self).
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) nodes: Nodes,
    /// What is shared; `None` for a node that is alone.
    pub(crate) shared: Option<Shared>,
    /// For how long this node may speak for its connections.
    pub(crate) tenure: Tenure,
    /// Cancelled when others have taken this node for dead.
    pub(crate) fenced: CancellationToken,
}

/// What a node has before it meets others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalParts<'n> {
    pub(crate) config: &'n Config,
    pub(crate) snapshots: &'n Snapshots,
    pub(crate) tag: NodeTag,
    pub(crate) hub: &'n Arc<Hub>,
    pub(crate) places: &'n Arc<Places>,
    pub(crate) lifecycle: &'n Lifecycle,
    pub(crate) telemetry: &'n Telemetry,
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
    /// The URL of Redis is not valid.
    pub(crate) fn start(local: LocalParts<'_>) -> Result<Self, StoreError> {
        let LocalParts { config, snapshots, tag, hub, places, lifecycle, telemetry } = local;
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
            let own = OwnNode { tag, hub: Arc::clone(hub), registry: registry.clone() };
            return Ok(Self {
                broker,
                registry,
                nodes: Nodes::Alone(own),
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
            Arc::new(RedisRegistry::start(&store, settings, tag, presence, tenure.clone()));
        let own = OwnNode { tag, hub: Arc::clone(hub), registry: Arc::clone(&registry) };
        let bounds =
            PeerBounds { lease: settings.lease, message_bytes: config.limits.message_bytes };
        let (called_in, counted) = (lifecycle.clone(), Arc::clone(metrics));
        let peers = Arc::new(Peers::new(store.clone(), own, bounds, called_in, counted));
        let parts = BrokerParts {
            store: store.clone(),
            settings: settings.clone(),
            terms,
            snapshots: snapshots.clone(),
            hub: Arc::clone(hub),
            peers: Arc::clone(&peers),
            health: Arc::clone(&health),
            tenure: tenure.clone(),
            telemetry: telemetry.clone(),
        };
        let broker = RedisBroker::start(parts, lifecycle);
        let nodes = Nodes::Many(Arc::clone(&peers));
        let shared = Some(Shared { store, settings: settings.clone(), peers, health });
        Ok(Self { broker: Arc::new(broker), registry, nodes, shared, tenure, fenced })
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
