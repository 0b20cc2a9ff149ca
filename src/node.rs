//! Puts a node together and runs it.
//!
//! Start: bind, then the shards, then ready. How it ends is in `node/end.rs`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cluster::backend::{Backend, LocalParts};
use crate::cluster::registry::ends::{Carriers, Ends};
use crate::cluster::registry::reaper::Reaper;
use crate::config::{Config, Snapshot, Snapshots, Sources};
use crate::edge::admission::Admission;
use crate::edge::callback::Environment;
use crate::edge::http::admin::{self, Admin};
use crate::edge::http::connect::{self, Connect};
use crate::edge::http::listing::Lister;
use crate::edge::http::manage::{self, Manage};
use crate::edge::http::proxies::Proxies;
use crate::edge::http::{self, BoundsSource, First, Guard, Listener, Port, Routes, Server};
use crate::limits::budget::Kind;
use crate::limits::places::Places;
use crate::limits::rate::Rate;
use crate::model::call::Backends;
use crate::model::id::NodeTag;
use crate::model::phase::Phase;
use crate::ops::access::AccessLog;
use crate::ops::lifecycle::Lifecycle;
use crate::ops::metrics::{Metrics, as_i64};
use crate::ops::telemetry::Telemetry;
use crate::ops::vitals::{Pulse, Vitals};
use crate::shard::Parts;
use crate::shard::hub::Hub;
use crate::shard::pressure;

mod back_ends;
mod callback;
pub(crate) mod descriptors;
mod end;
mod error;
mod reload;
mod shards;

use self::reload::{Reloader, warn_of_no_address_limits};

use self::back_ends::{BackEnds, Common};
use self::callback::Opened;

pub(crate) use self::error::{StartError, bind};

/// Between two looks whether this node can greet the others.
const GREETING_PAUSE: Duration = Duration::from_millis(20);

/// A running node.
#[derive(Debug)]
pub(crate) struct Node {
    /// Where clients connect.
    pub(crate) public: SocketAddr,
    /// Where operators connect.
    pub(crate) admin: SocketAddr,
    /// What functions are started with, if there is a way back for them.
    pub(crate) environment: Option<Arc<Environment>>,
    lifecycle: Lifecycle,
    snapshots: Snapshots,
    /// Puts new snapshots in their place; with what they are made with.
    reloads: (watch::Sender<Arc<Snapshot>>, NodeTag),
    back_ends: BackEnds,
    places: Arc<Places>,
    ends: Arc<Ends>,
    hub: Arc<Hub>,
    backend: Backend,
    metrics: Arc<Metrics>,
    access: Arc<AccessLog>,
    vitals: Arc<Vitals>,
    shards: Vec<JoinHandle<()>>,
}

/// What the end of a node has cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Losses {
    /// Connections that were cut.
    pub(crate) connections: usize,
    /// Messages that waited for those, or for others that were cut meanwhile.
    pub(crate) messages: u64,
    /// Whether others have taken the node for dead, so that all it has done since counts for
    /// nothing.
    pub(crate) is_fenced: bool,
}

impl Node {
    /// Starts a node.
    ///
    /// # Errors
    /// Nothing runs then.
    pub(crate) fn start(config: &Config) -> Result<Self, StartError> {
        warn_of_no_address_limits(config);
        let (public_listener, admin_listener) = (bind(config.listen)?, bind(config.admin_listen)?);
        let callback = Opened::new(config, &back_ends::wishes(config))?;
        let (public, admin) = (public_listener.local_addr()?, admin_listener.local_addr()?);
        let (tag, lifecycle) = (NodeTag::random(), Lifecycle::new());
        let environment = callback.as_ref().map(Opened::environment);
        let common = Common { config, environment: environment.as_deref(), public };
        let telemetry = Self::telemetry(&common, &lifecycle)?;
        let metrics = Arc::clone(&telemetry.metrics);
        let (event_loops, hub) = shards::open(config, &metrics)?;
        public_listener.bound_kernel(hub.budget().limit())?;
        admin_listener.bound_kernel(hub.budget().limit())?;
        let places = Arc::new(Places::default());
        let (publish, snapshots) = Snapshots::begin(Snapshot::new(config, tag, &metrics));
        let backend = Backend::start(LocalParts {
            config,
            snapshots: &snapshots,
            tag,
            hub: &hub,
            places: &places,
            lifecycle: &lifecycle,
            telemetry: &telemetry,
        })?;
        let store = backend.shared.as_ref().map(|shared| &shared.store);
        let back_ends = common.start(store, &lifecycle, &telemetry)?;
        let backends: Arc<dyn Backends> = back_ends.dispatcher.clone();
        let ends = Self::ends(&backend, &backends, &snapshots, &telemetry);
        lifecycle.spawn_until_end("ends of connections", Arc::clone(&ends).run());
        let parts = Parts {
            hub: Arc::clone(&hub),
            broker: Arc::clone(&backend.broker),
            backends,
            telemetry,
            names: Arc::default(),
        };
        let shards = shards::start(event_loops, &parts, &snapshots, &lifecycle)?;
        let vitals = shards::watch(&hub, &lifecycle);
        let node = Self {
            public,
            admin,
            environment,
            lifecycle,
            snapshots,
            reloads: (publish, tag),
            back_ends,
            backend,
            places,
            ends,
            hub,
            metrics,
            access: Arc::clone(&parts.telemetry.access),
            vitals,
            shards,
        };
        let manage = node.serve(config, &parts, tag, [public_listener, admin_listener]);
        node.open_callback(callback, &manage, config)?;
        let watch = pressure::watch(Arc::clone(&node.hub), Arc::clone(&node.metrics));
        node.lifecycle.spawn_until_end("watch over memory", watch);
        node.lifecycle.enter(Phase::Ready);
        Ok(node)
    }

    fn telemetry(common: &Common<'_>, lifecycle: &Lifecycle) -> Result<Telemetry, StartError> {
        let config = common.config;
        let (settings, name) = (&config.tracing, &config.node_name);
        let mut telemetry = Telemetry::start(Metrics::new()?, settings, name, lifecycle)?;
        telemetry.access = common.access_log()?;
        telemetry.metrics.connections_limit.set(as_i64(config.limits.max_connections));
        Ok(telemetry)
    }

    fn open_callback(
        &self,
        callback: Option<Opened>,
        manage: &Manage,
        config: &Config,
    ) -> Result<(), StartError> {
        let Some(callback) = callback else { return Ok(()) };
        let (port, routes) = callback.port(manage, &self.lifecycle, config)?;
        self.open("callback port", port, self.server(), routes);
        Ok(())
    }

    fn ends(
        backend: &Backend,
        backends: &Arc<dyn Backends>,
        snapshots: &Snapshots,
        telemetry: &Telemetry,
    ) -> Arc<Ends> {
        let carriers = Carriers {
            broker: Arc::clone(&backend.broker),
            registry: Arc::clone(&backend.registry),
            backends: Arc::clone(backends),
        };
        Arc::new(Ends::new(snapshots.clone(), carriers, telemetry, backend.fenced.clone()))
    }

    /// Starts to answer on both ports.
    fn serve(
        &self,
        config: &Config,
        parts: &Parts,
        tag: NodeTag,
        [public, admin]: [Listener; 2],
    ) -> Arc<Manage> {
        self.hub.show(self.back_ends.shown());
        let stage: Arc<str> = config.stage.as_str().into();
        let nodes = self.backend.nodes.clone();
        let manage = Arc::new(Manage {
            stage: Arc::clone(&stage),
            must_sign: false,
            functions: Opened::keys(self.environment.as_ref()),
            snapshots: self.snapshots.clone(),
            hub: Arc::clone(&parts.hub),
            broker: Arc::clone(&parts.broker),
            lister: Lister::new(nodes.clone(), Arc::clone(&parts.broker)),
            nodes,
            telemetry: parts.telemetry.clone(),
        });
        let connect = Arc::new(Connect {
            stage: Arc::clone(&stage),
            admission: self.admission(parts, tag),
            telemetry: parts.telemetry.clone(),
            hub: Arc::clone(&parts.hub),
            proxies: Proxies::default(),
        });
        let memory = parts.hub.budget().gauge(Kind::Http, 0);
        let routes = http::counted_routes(manage::routes(Arc::clone(&manage)), memory);
        let public_routes = http::beside(
            manage::is_path,
            Arc::clone(&routes),
            http::routes(connect::routes(Arc::clone(&connect))),
        );
        let pages = admin::pages(&self.pages(config, stage));
        let admin_routes = http::beside(manage::is_path, routes, pages);
        let guard = config.proxies.protocol.then(|| Guard {
            snapshots: self.snapshots.clone(),
            metrics: Arc::clone(&self.metrics),
        });
        let first = guard.map_or(First::Handshake(connect), First::ProxyHeader);
        let (accepting, ending) = (self.lifecycle.accepting(), self.lifecycle.ending());
        let public = self.port(public, "public", first, accepting);
        let admin = self.port(admin, "admin", First::Request, ending);
        self.open("public port", public, self.server(), public_routes);
        self.open("admin port", admin, self.server(), admin_routes);
        manage
    }

    fn admission(&self, parts: &Parts, tag: NodeTag) -> Arc<Admission> {
        let admission = Arc::new(Admission {
            snapshots: self.snapshots.clone(),
            rate: Rate::default(),
            addresses: Arc::default(),
            tag,
            broker: Arc::clone(&parts.broker),
            registry: Arc::clone(&self.backend.registry),
            metrics: Arc::clone(&self.metrics),
            places: Arc::clone(&self.places),
            budget: Arc::clone(parts.hub.budget()),
            ends: Arc::clone(&self.ends),
            backends: Arc::clone(&parts.backends),
            lifecycle: self.lifecycle.clone(),
        });
        self.look_after_others(tag);
        admission
    }

    /// Accepts connections at a port for as long as it is not told to stop.
    fn open(&self, name: &str, port: Port, server: Server, routes: Routes) {
        let stop = port.stop.clone();
        self.vitals.watch(port.pulse.part(name));
        self.lifecycle.spawn_vital(name, stop, server.serve(port, routes));
    }

    /// The pages of the admin port.
    fn pages(&self, config: &Config, stage: Arc<str>) -> Admin {
        Admin {
            node: config.node_name.as_str().into(),
            stage,
            shards: self.shards.len(),
            backend: self.backend.clone(),
            started: Instant::now(),
            lifecycle: self.lifecycle.clone(),
            places: Arc::clone(&self.places),
            metrics: Arc::clone(&self.metrics),
            vitals: Arc::clone(&self.vitals),
            snapshots: self.snapshots.clone(),
        }
    }

    /// Starts to end the connections of nodes that die.
    fn look_after_others(&self, tag: NodeTag) {
        let Some(shared) = &self.backend.shared else { return };
        let reaper = Reaper {
            store: shared.store.clone(),
            tag,
            lease: shared.settings.lease,
            tenure: self.backend.tenure.clone(),
            metrics: Arc::clone(&self.metrics),
            peers: Arc::clone(&shared.peers),
            ends: Arc::clone(&self.ends),
        };
        self.lifecycle.spawn_until_end("reaper", reaper.run());
        let (ending, peers, health) =
            (self.lifecycle.ending(), Arc::clone(&shared.peers), Arc::clone(&shared.health));
        self.lifecycle.spawn(async move {
            let greet = async {
                // What is answered has to arrive.
                while !health.has_been_up() {
                    tokio::time::sleep(GREETING_PAUSE).await;
                }
                peers.greet().await;
            };
            ending.run_until_cancelled(greet).await;
        });
    }

    /// Reads the configuration again at each of these signals, until the node ends.
    pub(crate) fn reload_at(&self, hang_ups: Signal, sources: Sources, config: Config) {
        let (snapshots, tag) = self.reloads.clone();
        let reloader = Reloader {
            hang_ups,
            sources,
            config: Arc::new(config),
            snapshots,
            tag,
            hub: Arc::clone(&self.hub),
            lifecycle: self.lifecycle.clone(),
            metrics: Arc::clone(&self.metrics),
            stuck: None,
        };
        self.lifecycle.spawn_until_end("reload", reloader.run());
    }

    /// Waits until others have taken this node for dead; for ever, as a rule. *Cancel safe.*
    pub(crate) async fn fenced(&self) {
        self.backend.fenced.cancelled().await;
    }

    /// Waits until the node has lost a part that it needs; for ever, as a rule. *Cancel safe.*
    pub(crate) async fn failed(&self) {
        self.lifecycle.failed().await;
    }

    /// What serves a port. Each has its own bound on connections: strangers on the public one must
    /// not keep probes out of the other.
    fn server(&self) -> Server {
        let metrics = &self.metrics;
        let (errors, refusals) = (metrics.accept_errors.clone(), Arc::clone(&metrics.refusals));
        let bounds = BoundsSource::Latest(self.snapshots.clone());
        let memory = self.hub.budget().gauge(Kind::Http, 0);
        Server::new(self.lifecycle.clone(), errors, metrics.http.clone(), refusals, bounds)
            .counting(memory)
    }

    fn port(&self, listener: Listener, name: &str, first: First, stop: CancellationToken) -> Port {
        let accepted = self.metrics.accepted.with_label_values(&[name]);
        Port { listener, accepted, first, stop, pulse: Pulse::default() }
    }
}
