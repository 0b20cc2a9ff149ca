//! Keeps each node's `pod-deletion-cost` at its number of connections, so that fewer pods means:
//! without the emptiest.
//!
//! One pod does it for all, because the nodes, which strangers talk to, are to have no rights. A
//! round lists the pods, asks each node, and writes what has changed materially. Nothing is
//! remembered but which faults were logged: whatever fails is tried again in the next round, and a
//! pod that does not answer keeps the cost that it has.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, header};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::Full;
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;

use self::api::{Api, ApiClient};
use self::exchange::{exchange, within};
use self::fault::{CostError, fault};
use self::pod::Pod;
use crate::edge::http::{self, Bounds, BoundsSource, First, Listener, Port, Server, admin};
use crate::node::{StartError, bind};
use crate::ops::lifecycle::Lifecycle;
use crate::ops::metrics::deletion_cost::{self, CostMetrics};
use crate::ops::metrics::{CostFault, as_i64};
use crate::ops::vitals::Pulse;

mod api;
mod cost;
mod exchange;
mod fault;
mod pod;

/// Nodes that are asked at a time.
const ASKED_AT_A_TIME: usize = 16;

/// For a node's answer; probes give it as long.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest page of a node's metrics, which has some dozen KiB, and more with many routes.
const PAGE_BYTES: usize = 1 << 20;

/// Most costs that are written in a round, the largest differences first. With a round in 30 s less
/// than one write a second, however many pods there are.
const WRITES_PER_ROUND: usize = 20;

/// For the admin port.
const HTTP_BOUNDS: Bounds =
    Bounds { places: 32, head: Duration::from_secs(10), keep_alive: Duration::from_secs(75) };

/// What the command line says.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Between two rounds' beginnings.
    pub(crate) interval: Duration,
    /// Which pods are nodes.
    pub(crate) selector: String,
    /// Where they are; by default that of the service account.
    pub(crate) namespace: Option<String>,
    /// The folder with `token`, `ca.crt` and `namespace`.
    pub(crate) service_account: PathBuf,
    /// Host of the API server.
    pub(crate) host: String,
    /// Port of the API server.
    pub(crate) port: u16,
    /// Address for metrics and health.
    pub(crate) admin_listen: SocketAddr,
}

/// Keeps costs for as long as it runs.
#[derive(Debug)]
pub(crate) struct CostController {
    /// Where operators connect.
    pub(crate) admin: SocketAddr,
    api: Api,
    interval: Duration,
    selector: String,
    metrics: CostMetrics,
    /// Of the last round; they are logged.
    known: Faults,
}

/// Why nothing is kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CostControllerError {
    /// A file of the service account is not there, or not what it should be.
    #[error(
        "{0}\nThis command runs in a pod whose service account may list and patch pods, with its token mounted: see \
         k8s/components/deletion-cost."
    )]
    Surroundings(String),
    /// The admin port cannot be served.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// The faults of a round, by kind and verb.
type Faults = BTreeMap<(CostFault, &'static str), Seen>;

/// Those of one kind.
#[derive(Debug)]
struct Seen {
    count: u64,
    /// What the first of them said.
    message: String,
}

/// A cost that is to be written.
struct Write<'p> {
    pod: &'p str,
    cost: i32,
    difference: u32,
}

impl CostController {
    /// Reads what Kubernetes mounts, and serves the admin port.
    ///
    /// # Errors
    /// Nothing runs then.
    pub(crate) fn start(settings: Settings) -> Result<Self, CostControllerError> {
        let Settings { interval, selector, namespace, service_account, host, port, admin_listen } =
            settings;
        let namespace = match namespace {
            Some(namespace) => namespace,
            None => own_namespace(&service_account)?,
        };
        let api = Api { host, port, namespace, service_account };
        api.open().map_err(|fault| CostControllerError::Surroundings(fault.message))?;
        let metrics = CostMetrics::new().map_err(StartError::from)?;
        let listener = bind(admin_listen)?;
        let admin = listener.local_addr().map_err(StartError::from)?;
        serve(listener, &metrics);
        Ok(Self { admin, api, interval, selector, metrics, known: BTreeMap::new() })
    }

    /// Does a round at once, and one after each interval.
    pub(crate) async fn run(mut self) -> Infallible {
        let mut turns = tokio::time::interval(self.interval);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            let mut faults = Faults::new();
            let result = self.round(&mut faults).await;
            self.metrics.count_round(result.is_ok());
            if let Err(fault) = result {
                note(&mut faults, fault);
            }
            self.report(faults);
        }
    }

    /// Returns an error where the round could not be carried through.
    async fn round(&self, faults: &mut Faults) -> Result<(), CostError> {
        let session = self.api.open()?;
        let pods = session.list(&self.selector).await?;
        let nodes = pods.iter().filter_map(|pod| Some((pod, pod.admin()?)));
        let questions = nodes.map(|(pod, admin)| async move { (pod, connections(admin).await) });
        let answers: Vec<_> =
            stream::iter(questions).buffer_unordered(ASKED_AT_A_TIME).collect().await;
        let mut counts = Vec::with_capacity(answers.len());
        for (pod, answer) in answers {
            match answer {
                Ok(connections) => counts.push((pod, connections)),
                Err(why) => {
                    let words = format!(
                        "{} does not say how many connections it has: {}",
                        pod.name(),
                        why.message
                    );
                    note(faults, fault(CostFault::Unanswered, words));
                }
            }
        }
        let heard = as_i64(counts.len());
        if self.metrics.pods.get() != heard {
            tracing::info!(
                pods = heard,
                listed = pods.len(),
                "pods that say how many connections they have"
            );
        }
        self.metrics.pods.set(heard);
        let mut writes = plan(&counts);
        if let Some(later) = writes.len().checked_sub(WRITES_PER_ROUND + 1) {
            let words = format!("{} costs are written in the next round", later + 1);
            note(faults, fault(CostFault::Deferred, words));
            writes.truncate(WRITES_PER_ROUND);
        }
        self.write(&session, &writes, faults).await
    }

    /// Writes costs one by one. A fault of one pod's is noted; any other is that of the server,
    /// which is then left alone.
    async fn write(
        &self,
        session: &ApiClient<'_>,
        writes: &[Write<'_>],
        faults: &mut Faults,
    ) -> Result<(), CostError> {
        for Write { pod, cost, .. } in writes {
            match session.set_cost(pod, *cost).await {
                Ok(()) => {
                    self.metrics.patches.inc();
                    tracing::info!(pod, cost, "deletion cost");
                }
                Err(fault) => {
                    let fault = CostError { message: format!("{pod}: {}", fault.message), ..fault };
                    if !matches!(fault.kind, CostFault::NotFound | CostFault::Conflict) {
                        return Err(fault);
                    }
                    note(faults, fault);
                }
            }
        }
        Ok(())
    }

    /// Counts a round's faults, and logs what the round before did not have, and what has passed.
    fn report(&mut self, faults: Faults) {
        for (key @ (kind, _), Seen { count, message }) in &faults {
            self.metrics.count_fault(*kind, *count);
            if !self.known.contains_key(key) {
                tracing::warn!(count, "{message}; tried again in {:?}", self.interval);
            }
        }
        for (_, Seen { message, .. }) in
            self.known.iter().filter(|(key, _)| !faults.contains_key(key))
        {
            tracing::info!("has passed: {message}");
        }
        self.known = faults;
    }
}

fn note(faults: &mut Faults, CostError { kind, verb, message }: CostError) {
    faults.entry((kind, verb)).or_insert(Seen { count: 0, message }).count += 1;
}

fn own_namespace(service_account: &Path) -> Result<String, CostControllerError> {
    let path = service_account.join("namespace");
    let wrong = |reason: &dyn std::fmt::Display| {
        CostControllerError::Surroundings(format!("{}: {reason}", path.display()))
    };
    let namespace = std::fs::read_to_string(&path).map_err(|error| wrong(&error))?;
    let namespace = namespace.trim();
    if namespace.is_empty() { Err(wrong(&"is empty")) } else { Ok(namespace.to_owned()) }
}

fn serve(listener: Listener, metrics: &CostMetrics) {
    let lifecycle = Lifecycle::new();
    let port = Port {
        listener,
        accepted: metrics.accepted.clone(),
        first: First::Request,
        stop: lifecycle.ending(),
        pulse: Pulse::default(),
    };
    let shown = metrics.clone();
    let routes = http::routes(admin::process_routes(move || shown.render(), Vec::new));
    let server = Server::new(
        lifecycle.clone(),
        metrics.accept_errors.clone(),
        metrics.http.clone(),
        Arc::default(),
        BoundsSource::Fixed(HTTP_BOUNDS),
    );
    lifecycle.spawn_vital("admin port", lifecycle.ending(), server.serve(port, routes));
}

/// Asks a node how many connections it has.
async fn connections(admin: SocketAddr) -> Result<u64, CostError> {
    let unreadable = |reason: &str| fault(CostFault::Unanswered, format!("{admin}: {reason}"));
    within(NODE_TIMEOUT, async {
        let stream =
            TcpStream::connect(admin).await.map_err(|error| unreadable(&error.to_string()))?;
        let request = Request::get("/metrics")
            .header(header::HOST, admin.to_string())
            .header(header::CONNECTION, "close")
            .body(Full::<Bytes>::default())
            .map_err(|error| unreadable(&error.to_string()))?;
        let (status, page) = exchange(stream, request, PAGE_BYTES).await?;
        let page = str::from_utf8(&page).ok().filter(|_| status.is_success());
        let connections = page.and_then(deletion_cost::connections);
        connections.ok_or_else(|| unreadable(&format!("{status}, and no number of connections")))
    })
    .await
}

/// Returns what is to be written, the largest differences first.
fn plan<'p>(counts: &[(&'p Pod, u64)]) -> Vec<Write<'p>> {
    let changed = counts.iter().filter_map(|(pod, connections)| {
        let cost = cost::of(*connections);
        let stored = pod.cost().and_then(|stored| stored.parse().ok()).unwrap_or(0);
        cost::is_worth_a_write(pod.cost(), cost).then(|| Write {
            pod: pod.name(),
            cost,
            difference: cost.abs_diff(stored),
        })
    });
    let mut writes: Vec<_> = changed.collect();
    writes.sort_by(|one, other| other.difference.cmp(&one.difference).then(one.pod.cmp(other.pod)));
    writes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_largest_differences_are_written_first_and_the_small_not_at_all() {
        let pod = |name: &str, cost: &str| -> Pod {
            serde_json::from_value(
                json!({"metadata": {"name": name, "annotations": {pod::ANNOTATION: cost}}}),
            )
            .expect("a pod")
        };
        let pods =
            [pod("a", "100"), pod("b", "100"), pod("c", "x"), pod("d", "100"), pod("e", "0")];
        let counts: Vec<_> = pods.iter().zip([105, 50, 7, 5_000, 0]).collect();
        let planned: Vec<_> =
            plan(&counts).into_iter().map(|write| (write.pod, write.cost)).collect();
        assert_eq!(planned, [("d", 5_000), ("b", 50), ("c", 7)]);
    }
}
