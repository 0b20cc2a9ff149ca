//! Everything that runs in one round: Redis, nodes, balancer, clients.
//!
//! Rule: all of it ends with this value: processes are killed by their own ids.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::backend::{Backend, Topology};
use super::balancer::Balancer;
use super::clients::{Clients, Endpoints};
use super::setup::Setup;
use crate::shared::gateway;
use crate::shared::http;
use crate::shared::node::{Counters, Node};
use crate::shared::wait::Interrupt;
use crate::shared::workspace::Workspace;

/// What one round needs.
#[derive(Clone, Debug)]
pub(crate) struct Requirements {
    pub(crate) topology: Topology,
    pub(crate) lease: Duration,
    /// Whether Redis has a clock that can be stepped.
    pub(crate) clock: bool,
    /// Further routes, in the form of a configuration.
    pub(crate) routes: Option<&'static str>,
}

/// All that runs in a round. Clients end first, then the servers.
#[derive(Debug)]
pub(crate) struct Testbed {
    pub(crate) clients: Clients,
    pub(crate) nodes: Vec<Node>,
    _balancer: Option<Balancer>,
    _workspace: Workspace,
    pub(crate) backend: Backend,
    pub(crate) interrupt: Interrupt,
    pub(crate) lease: Duration,
    /// When the fault was over and repair began.
    pub(crate) over: Option<Duration>,
    /// Connections of nodes that were killed, stopped or frozen, which may end.
    pub(crate) expected_closes: u64,
    /// Broken promises that an action has noticed.
    pub(crate) broken: Vec<String>,
    /// The counters of nodes that have ended.
    ended: Counters,
}

/// How long the harness waits for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// Probes that wait longer are in doubt; the next port may be better.
const PROBE_LIMIT: Duration = Duration::from_millis(400);
/// Between two heartbeats of a node.
const HEARTBEAT: &str = "200ms";
/// More heartbeats than may have been under way before.
const HEARTBEATS: u64 = 4;

impl Testbed {
    /// Starts everything, in `directory`.
    pub(crate) fn start(
        setup: &Setup,
        requirements: &Requirements,
        directory: &Path,
    ) -> Result<Self> {
        let mut workspace = Workspace::new(directory, setup.size.seed, &setup.interrupt)?;
        let backend = requirements
            .topology
            .start(&mut workspace, setup.nodes, requirements.clock)
            .context("starting Redis")?;
        let routes = directory.join("gatecast.toml");
        std::fs::write(&routes, requirements.routes.unwrap_or_default())?;
        let mut nodes = Vec::new();
        for number in 0..setup.nodes {
            let mut settings = settings(setup, requirements.lease, backend.url(number));
            if requirements.routes.is_some() {
                settings.insert("GATECAST_CONFIG".to_owned(), routes.display().to_string());
            }
            let name = format!("node{number}");
            nodes.push(Node::start(&setup.program, &name, &settings, &mut workspace)?);
        }
        for node in &mut nodes {
            node.wait_ready()?;
        }
        let addresses: Vec<(u16, u16)> =
            nodes.iter().map(|node| (node.port, node.admin_port)).collect();
        let balancer = match setup.haproxy {
            true => Some(Balancer::start(&addresses, &mut workspace)?),
            false => None,
        };
        let endpoints = Endpoints {
            balancer: balancer.as_ref().map(|balancer| balancer.port),
            nodes: addresses.iter().map(|(port, _)| *port).collect(),
        };
        Ok(Self {
            clients: Clients::start(&setup.size, &endpoints)?,
            nodes,
            _balancer: balancer,
            _workspace: workspace,
            backend,
            interrupt: setup.interrupt.clone(),
            lease: requirements.lease,
            over: None,
            expected_closes: 0,
            broken: Vec::new(),
            ended: Counters::default(),
        })
    }

    /// Notes that the fault is over, or has happened if it has no end.
    pub(crate) fn over(&mut self) {
        self.over = Some(self.clients.clock.now());
    }

    /// Lets traffic go on.
    pub(crate) fn sleep(&self, time: Duration) -> Result<()> {
        self.interrupt.sleep(time)
    }

    /// Waits until all subscribers receive fresh messages, and posts some.
    pub(crate) fn wait_fresh(&mut self, since: Duration, limit: Duration) -> Result<()> {
        let Self { clients, interrupt, .. } = self;
        interrupt.eventually("all subscribers get fresh messages", limit, || {
            clients.probe(PROBE_LIMIT);
            clients.is_fresh(since).then_some(())
        })
    }

    /// Returns whether messages go through Redis for all nodes, and each has received some
    /// heartbeats since the least number of them that it was seen to have counted.
    pub(crate) fn has_heartbeats(&self, least: &mut Vec<u64>) -> bool {
        least.resize(self.nodes.len(), u64::MAX);
        let has_some = |(node, least): (&Node, &mut u64)| {
            let Some(counters) = node.counters() else { return false };
            let count = counters.of("gatecast_redis_round_trip_seconds_count");
            // A new process begins at 0.
            *least = count.min(*least);
            counters.of("gatecast_redis_up") == 1 && count >= *least + HEARTBEATS
        };
        // Each is looked at, whatever the others have.
        self.nodes.iter().zip(least).map(has_some).filter(|has| *has).count() == self.nodes.len()
    }

    /// Returns the number of the node with most connections.
    pub(crate) fn fullest(&self) -> usize {
        let connections =
            |node: &Node| node.counters().map(|counters| counters.sum("gatecast_connections"));
        let counts = self.nodes.iter().map(connections).enumerate();
        counts.max_by_key(|(_, count)| *count).map_or(0, |(number, _)| number)
    }

    /// Returns a node.
    pub(crate) fn node(&mut self, number: usize) -> Result<&mut Node> {
        self.nodes.get_mut(number).context("no such node")
    }

    /// Returns a node that is about to be harmed, and notes its connections, which may end, and its
    /// counters.
    pub(crate) fn expect_closes(&mut self, number: usize) -> Result<&mut Node> {
        let node = self.nodes.get_mut(number).context("this fault needs more nodes")?;
        let counters = node.counters().context("a node does not answer")?;
        self.expected_closes += counters.sum("gatecast_connections");
        self.ended.add(&counters);
        Ok(node)
    }

    /// Keeps the counters of a node that may end soon, if it still answers.
    pub(crate) fn keep_counters(&mut self, number: usize) {
        if let Some(counters) = self.nodes.get(number).and_then(Node::counters) {
            self.ended.add(&counters);
        }
    }

    /// Restarts a node that has ended, and waits until it is ready.
    pub(crate) fn restart(&mut self, number: usize) -> Result<()> {
        let node = self.node(number)?;
        node.restart()?;
        node.wait_ready()
    }

    /// Waits until a node has ended; any other exit code is a broken promise.
    pub(crate) fn wait_exit(&mut self, number: usize, code: i32, limit: Duration) -> Result<()> {
        let node = self.nodes.get_mut(number).context("no such node")?;
        let ended = self
            .interrupt
            .eventually("the node ends", limit, || node.child.status().ok().flatten());
        match ended {
            Ok(status) if status.code() == Some(code) => {}
            Ok(status) => self.broken.push(format!("the node ended with {status}, not {code}")),
            Err(err) => {
                self.broken.push(format!("the node did not end with {code}: {err}"));
                node.child.kill()?;
            }
        }
        Ok(())
    }

    /// Waits until the other nodes answer 410 for the connections of a dead one.
    pub(crate) fn wait_gone(
        &mut self,
        number: usize,
        ids: &[String],
        limit: Duration,
    ) -> Result<()> {
        let others: Vec<u16> = self.nodes.iter().map(|node| node.port).collect();
        let others = others.into_iter().enumerate().filter(|(each, _)| *each != number);
        for (id, (_, port)) in ids.iter().zip(others.collect::<Vec<_>>().into_iter().cycle()) {
            let path = gateway::connection_path(id);
            let mut last = None;
            let gone = self.interrupt.eventually("410", limit, || {
                last = http::get(port, &path, ANSWER_LIMIT).ok().map(|answer| answer.status);
                (last == Some(410)).then_some(())
            });
            if gone.is_err() {
                self.interrupt.check()?;
                self.broken.push(format!(
                    "a connection of the dead node is answered {last:?} after {limit:?}, not 410"
                ));
                break;
            }
        }
        Ok(())
    }

    /// Returns the counters of all nodes, including those that have ended.
    pub(crate) fn counters(&self) -> Counters {
        let mut sum = self.ended.clone();
        for counters in self.nodes.iter().filter_map(Node::counters) {
            sum.add(&counters);
        }
        sum
    }
}

fn settings(setup: &Setup, lease: Duration, url: String) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([
        ("GATECAST_REDIS_URL".to_owned(), url),
        ("GATECAST_REDIS_LEASE".to_owned(), format!("{}ms", lease.as_millis())),
        ("GATECAST_REDIS_HEARTBEAT".to_owned(), HEARTBEAT.to_owned()),
        // Also exercises what crosses from shard to shard, on any number of cores.
        ("GATECAST_SHARDS".to_owned(), "2".to_owned()),
        // The balancer has time to notice, and connections are closed one by one.
        ("GATECAST_DRAIN_NOTICE".to_owned(), "600ms".to_owned()),
        ("GATECAST_DRAIN_WINDOW".to_owned(), "2s".to_owned()),
        ("GATECAST_DRAIN_MIN_RATE".to_owned(), "5".to_owned()),
    ]);
    all.extend(setup.environment.clone());
    all
}
