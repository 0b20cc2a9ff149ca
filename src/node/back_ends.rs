//! The back ends that a configuration names.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use tokio::time::Instant;

use super::error::StartError;
use crate::cluster::store::Store;
use crate::config::{
    AccessLogSettings, Config, FunctionSettings, HttpSettings, LambdaAuth, LambdaSettings,
    StreamSettings,
};
use crate::edge::callback::{Environment, Wishes};
use crate::integrations::client::HttpClient;
use crate::integrations::credentials::{Chain, Keeper};
use crate::integrations::dispatcher::{BackEnd, Dispatcher};
use crate::integrations::functions::{self, Functions};
use crate::integrations::http::HttpTarget;
use crate::integrations::lambda::Lambda;
use crate::integrations::queue::Bounds;
use crate::integrations::stream::StreamTarget;
use crate::integrations::target::Function;
use crate::model::call::{Scene, TargetName};
use crate::model::listing;
use crate::ops::access::AccessLog;
use crate::ops::lifecycle::Lifecycle;
use crate::ops::metrics::Metrics;
use crate::ops::telemetry::Telemetry;

/// What back ends are told as the API's id.
const API_ID: &str = "gatecast";

/// Most appends that wait for one stream.
const WAITING: usize = 65_536;

/// Most bytes that wait for one back end.
const WAITING_BYTES: usize = 64 << 20;

/// Appends to a stream under way at a time.
const STREAM_IN_FLIGHT: usize = 256;

/// Longest time for an append, waiting included.
const STREAM_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls of one function that wait for a process.
const FUNCTION_WAITING: usize = 8_192;

/// Longest time for a call: what Amazon gives an integration.
const CALL_TIMEOUT: Duration = Duration::from_secs(29);

/// What a node's routes may call.
#[derive(Debug)]
pub(super) struct BackEnds {
    pub(super) dispatcher: Arc<Dispatcher>,
    functions: Arc<Functions>,
}

/// The functions of a node with what waits for them.
#[derive(Debug)]
struct Shown {
    dispatcher: Arc<Dispatcher>,
    functions: Arc<Functions>,
}

impl listing::Functions for Shown {
    fn list(&self) -> Vec<listing::Function> {
        let named = |name: &str| TargetName(format!("functions.{name}").into());
        self.functions.list(|name| self.dispatcher.waiting(&named(name)))
    }
}

/// What every back end is told or needs, whatever it is.
pub(super) struct Common<'c> {
    pub(super) config: &'c Config,
    pub(super) environment: Option<&'c Environment>,
    /// Where clients connect.
    pub(super) public: SocketAddr,
}

/// Returns what functions ask of the way back.
pub(super) fn wishes(config: &Config) -> Vec<Wishes> {
    config.functions.iter().map(wish).collect()
}

fn wish(settings: &FunctionSettings) -> Wishes {
    let hosts = settings.hosts.iter().map(|(host, address)| (host.clone(), address.to_string()));
    Wishes { domain: settings.callback_domain.clone(), hosts: hosts.collect() }
}

/// Functions with the same have the same credentials.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    profile: Option<String>,
    region: String,
}

impl Source {
    fn of(settings: &LambdaSettings) -> Self {
        Self { profile: settings.profile.clone(), region: settings.region.clone() }
    }
}

impl BackEnds {
    /// Returns what lists the functions.
    pub(super) fn shown(&self) -> Arc<dyn listing::Functions> {
        let (dispatcher, functions) = (Arc::clone(&self.dispatcher), Arc::clone(&self.functions));
        Arc::new(Shown { dispatcher, functions })
    }

    /// Waits for calls under way until then, and ends the functions' processes.
    pub(super) async fn shut_down(&self, deadline: Instant) {
        if tokio::time::timeout_at(deadline, self.dispatcher.settled()).await.is_err() {
            tracing::warn!("calls of back ends had not ended at the end of this node");
        }
        self.functions.shut_down(deadline.saturating_duration_since(Instant::now())).await;
    }
}

impl Common<'_> {
    /// Starts functions, and makes ready to call every back end. Nothing is called yet.
    ///
    /// # Errors
    /// A function's folder is not there, or an endpoint has no address.
    pub(super) fn start(
        &self,
        store: Option<&Store>,
        lifecycle: &Lifecycle,
        telemetry: &Telemetry,
    ) -> io::Result<BackEnds> {
        let Config { functions, targets, lambdas, streams, .. } = self.config;
        let started = Functions::start(
            functions.clone(),
            self.of_functions(),
            lifecycle,
            &telemetry.metrics.functions,
        )?;
        let needs_roots = targets.iter().any(|target| target.url.scheme_str() == Some("https"))
            || lambdas.iter().any(|it| it.auth == LambdaAuth::SigV4)
            || lambdas.iter().any(|it| it.endpoint.scheme_str() == Some("https"));
        let roots = Arc::new(if needs_roots { system_roots() } else { RootCertStore::empty() });
        let mut back_ends: Vec<_> = targets.iter().map(|it| self.http(it, &roots)).collect();
        let keepers = self.keepers(&roots, lifecycle, &telemetry.metrics);
        for lambda in lambdas {
            back_ends.push(self.lambda(lambda, &keepers, &roots).map_err(io::Error::other)?);
        }
        back_ends.extend(functions.iter().filter_map(|it| self.function(it, &started)));
        let streams = store.into_iter().flat_map(|store| streams.iter().map(move |it| (store, it)));
        back_ends.extend(streams.map(|(store, it)| self.stream(it, store)));
        let dispatcher = Arc::new(Dispatcher::start(back_ends, lifecycle, telemetry));
        Ok(BackEnds { dispatcher, functions: Arc::new(started) })
    }

    /// Starts the access log, if there is to be one.
    ///
    /// # Errors
    /// Its file cannot be opened.
    pub(super) fn access_log(&self) -> Result<Arc<AccessLog>, StartError> {
        let Some(AccessLogSettings { format, file }) = &self.config.access_log else {
            return Ok(Arc::default());
        };
        let log = AccessLog::start(format.clone(), file.as_deref(), self.scene(None));
        log.map(Arc::new).map_err(StartError::AccessLog)
    }

    /// Returns what functions of one kind of code are told, which may name its own way back.
    fn scene(&self, own: Option<&str>) -> Scene {
        let domain_name = match (self.environment, &self.config.callback.domain_name) {
            (Some(environment), _) => environment.domain(own).to_owned(),
            (None, Some(domain)) => domain.clone(),
            (None, None) => self.public.to_string(),
        };
        Scene { stage: self.config.stage.clone(), domain_name, api_id: API_ID.to_owned() }
    }

    fn of_functions(&self) -> functions::Common {
        let variables = |settings: &FunctionSettings| {
            let Wishes { domain, hosts } = wish(settings);
            let variables = self.environment.map(|it| it.variables(domain.as_deref(), &hosts));
            let variables = variables.unwrap_or_default().into_iter();
            (
                settings.name.clone(),
                variables.map(|(name, value)| (name.to_owned(), value)).collect(),
            )
        };
        functions::Common {
            region: self.config.callback.region.clone(),
            watches: self.config.watches,
            path: self.config.search_path.clone(),
            environment_of: self.config.functions.iter().map(variables).collect(),
        }
    }

    fn http(&self, settings: &HttpSettings, roots: &Arc<RootCertStore>) -> BackEnd {
        let message_bytes = self.config.limits.message_bytes;
        let target = HttpTarget::new(settings.clone(), self.scene(None), message_bytes, roots);
        BackEnd {
            name: TargetName(format!("targets.{}", settings.name).into()),
            target: Arc::new(target),
            bounds: Bounds {
                in_flight: settings.max_in_flight,
                calls: settings.max_waiting,
                bytes: WAITING_BYTES,
            },
            timeout: settings.timeout,
        }
    }

    /// Starts to keep the credentials that functions elsewhere are called with.
    fn keepers(
        &self,
        roots: &Arc<RootCertStore>,
        lifecycle: &Lifecycle,
        metrics: &Metrics,
    ) -> BTreeMap<Source, Arc<Keeper>> {
        let mut keepers = BTreeMap::new();
        let signed = self.config.lambdas.iter().filter(|it| it.auth == LambdaAuth::SigV4);
        for settings in signed {
            keepers.entry(Source::of(settings)).or_insert_with(|| {
                let chain = Chain {
                    variables: self.config.aws.clone(),
                    profile: settings.profile.clone(),
                    region: settings.region.clone(),
                    client: HttpClient::new(roots),
                };
                let keeper = Arc::new(Keeper::new(chain, metrics.backends.credentials.clone()));
                lifecycle.spawn_until_end("credentials of AWS", Arc::clone(&keeper).run());
                keeper
            });
        }
        keepers
    }

    fn lambda(
        &self,
        settings: &LambdaSettings,
        keepers: &BTreeMap<Source, Arc<Keeper>>,
        roots: &Arc<RootCertStore>,
    ) -> Result<BackEnd, http::Error> {
        let keeper = keepers.get(&Source::of(settings)).cloned();
        let keeper = keeper.filter(|_| settings.auth == LambdaAuth::SigV4);
        Ok(BackEnd {
            name: TargetName(format!("lambdas.{}", settings.name).into()),
            target: Arc::new(Function {
                name: settings.function.clone(),
                provider: "aws",
                invoke: Arc::new(Lambda::new(settings, keeper, roots)?),
                scene: self.scene(None),
                message_bytes: self.config.limits.message_bytes,
            }),
            bounds: Bounds {
                in_flight: settings.max_in_flight,
                calls: settings.max_waiting,
                bytes: WAITING_BYTES,
            },
            timeout: settings.timeout,
        })
    }

    fn function(&self, settings: &FunctionSettings, functions: &Functions) -> Option<BackEnd> {
        let target = Function {
            name: settings.name.clone(),
            provider: "gatecast",
            invoke: functions.get(&settings.name)?,
            scene: self.scene(settings.callback_domain.as_deref()),
            message_bytes: self.config.limits.message_bytes,
        };
        Some(BackEnd {
            name: TargetName(format!("functions.{}", settings.name).into()),
            target: Arc::new(target),
            bounds: Bounds {
                in_flight: settings.max_processes * settings.concurrency,
                calls: FUNCTION_WAITING,
                bytes: WAITING_BYTES,
            },
            timeout: CALL_TIMEOUT,
        })
    }

    fn stream(&self, settings: &StreamSettings, store: &Store) -> BackEnd {
        BackEnd {
            name: TargetName(format!("streams.{}", settings.name).into()),
            target: Arc::new(StreamTarget {
                store: store.clone(),
                key: store.work(&settings.name),
                max_entries: settings.max_entries,
                scene: self.scene(None),
            }),
            bounds: Bounds { in_flight: STREAM_IN_FLIGHT, calls: WAITING, bytes: WAITING_BYTES },
            timeout: STREAM_TIMEOUT,
        }
    }
}

/// Returns what the system trusts; what of it cannot be read is told.
fn system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "the system's certificates");
    }
    let mut roots = RootCertStore::empty();
    let (_, ignored) = roots.add_parsable_certificates(found.certs);
    if ignored > 0 {
        tracing::debug!(ignored, "certificates of the system that cannot be read");
    }
    roots
}
