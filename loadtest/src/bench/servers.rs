//! Starts the servers that are measured: Gatecast and its peers, alone or as nodes on one Redis.
//!
//! Rule: each runs as its authors recommend for speed, on loopback, on a port of its own, and ends
//! when it is dropped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::bench::dialect::{self, Dialect};
use crate::bench::sigv4::Key;
use crate::bench::works::{GATECAST, SOCKET_IO, SOCKET_IO_REDIS, UWEBSOCKETS, UWEBSOCKETS_JS, WS};
use crate::shared::child::Child;
use crate::shared::gateway;
use crate::shared::node::Node;
use crate::shared::process::Processes;
use crate::shared::redis::Redis;
use crate::shared::target::Target;
use crate::shared::wait::Interrupt;
use crate::shared::workspace::Workspace;

const JOIN_LIMIT: Duration = Duration::from_secs(15);
/// A node's own limit must not slow down the opening of connections.
const HANDSHAKE_RATE: &str = "1000000";

/// The programs that can be started.
#[derive(Debug)]
pub(crate) struct Programs {
    gatecast: PathBuf,
    /// The folder of the peers' scripts.
    peers: PathBuf,
    interrupt: Interrupt,
}

/// A server under test, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: &'static str,
    /// As the server itself gives it.
    pub(crate) version: String,
    pub(crate) targets: Vec<Target>,
    pub(crate) processes: Processes,
    pub(crate) dialect: Dialect,
    _nodes: Vec<Child>,
    _redis: Option<Redis>,
    _workspace: Workspace,
    _directory: TempDir,
}

/// What the processes of a service have in common while they are started.
struct Common<'a> {
    name: &'static str,
    workspace: Workspace,
    redis: Option<Redis>,
    /// Of gatecast's management API.
    key: Option<&'a Key>,
}

impl Programs {
    pub(crate) fn new(gatecast: &Path, peers: &Path) -> Self {
        let (gatecast, peers) = (gatecast.to_owned(), peers.to_owned());
        Self { gatecast, peers, interrupt: Interrupt::default() }
    }

    /// Installs what the peers need, unless it is installed.
    pub(crate) fn install_peers(&self) -> Result<()> {
        let script = self.peers.join("install");
        let status = Command::new(&script).stdin(Stdio::null()).stdout(Stdio::null()).status();
        let status = status.with_context(|| format!("cannot run {}", script.display()))?;
        ensure!(status.success(), "{} ended with {status}", script.display());
        Ok(())
    }

    /// Returns whether uWebSockets is the C++ library on this machine.
    pub(crate) fn has_native_uwebsockets(&self) -> bool {
        self.native_uwebsockets().exists()
    }

    /// Starts one process of the server with this name.
    pub(crate) fn start(&self, name: &'static str) -> Result<Service> {
        self.launch((name, 1), false, None)
    }

    /// Starts a gatecast whose management API requires signatures.
    pub(crate) fn start_with_key(&self, key: &Key) -> Result<Service> {
        self.launch((GATECAST, 1), false, Some(key))
    }

    /// Starts nodes on a Redis of their own.
    pub(crate) fn start_cluster(&self, name: &'static str, nodes: usize) -> Result<Service> {
        self.launch((name, nodes), true, None)
    }

    fn launch(
        &self,
        (name, n): (&'static str, usize),
        has_redis: bool,
        key: Option<&Key>,
    ) -> Result<Service> {
        let directory = tempfile::tempdir()?;
        let mut workspace = Workspace::new(directory.path(), 0, &self.interrupt)?;
        let redis = has_redis.then(|| Redis::start(&mut workspace, &[])).transpose()?;
        let mut common = Common { name, workspace, redis, key };
        let (mut nodes, mut targets, mut version) = (Vec::new(), Vec::new(), String::new());
        for number in 0..n {
            let (node, target, said) = if name == GATECAST {
                self.gatecast(&mut common, number)?
            } else {
                self.peer(&common).with_context(|| format!("cannot start {name}"))?
            };
            nodes.push(node);
            targets.push(target);
            version = said;
        }
        let Common { workspace, mut redis, .. } = common;
        if let Some(redis) = redis.as_ref().filter(|_| name == SOCKET_IO_REDIS) {
            // A node listens before it has subscribed, and would miss what is sent before that.
            self.interrupt.eventually("all nodes have subscribed", JOIN_LIMIT, || {
                redis
                    .ask::<usize>(&["PUBSUB", "NUMPAT"])
                    .ok()
                    .filter(|subscribed| *subscribed > 0)?;
                let clients: String = redis.ask(&["CLIENT", "LIST", "TYPE", "PUBSUB"]).ok()?;
                (clients.lines().filter(|line| !line.contains(" psub=0 ")).count() >= n)
                    .then_some(())
            })?;
        }
        let processes = nodes.iter().map(Child::process).collect();
        let store =
            redis.as_mut().map(|redis| redis.child().map(|child| child.process())).transpose()?;
        Ok(Service {
            name,
            version,
            targets,
            processes: Processes { nodes: processes, store },
            dialect: dialect_of(name).dialect(),
            _nodes: nodes,
            _redis: redis,
            _workspace: workspace,
            _directory: directory,
        })
    }

    fn gatecast(&self, common: &mut Common<'_>, number: usize) -> Result<(Child, Target, String)> {
        let mut settings = BTreeMap::from([(
            "GATECAST_LIMITS_HANDSHAKE_RATE".to_owned(),
            HANDSHAKE_RATE.to_owned(),
        )]);
        if let Some(redis) = &common.redis {
            settings.insert("GATECAST_REDIS_URL".to_owned(), redis.url());
        }
        if let Some(key) = common.key {
            settings.insert("GATECAST_ACCESS_KEY_ID".to_owned(), key.id.clone());
            settings.insert("GATECAST_SECRET_ACCESS_KEY".to_owned(), key.secret.clone());
        }
        let name = format!("node{number}");
        let mut node = Node::start(&self.gatecast, &name, &settings, &mut common.workspace)?;
        node.wait_ready()?;
        let target = gateway::target(node.port);
        Ok((node.child, target, self.gatecast.display().to_string()))
    }

    fn peer(&self, common: &Common<'_>) -> Result<(Child, Target, String)> {
        let (script, path) = match common.name {
            UWEBSOCKETS if self.has_native_uwebsockets() => (None, "/"),
            UWEBSOCKETS | UWEBSOCKETS_JS => (Some("uws.cjs"), "/"),
            WS => (Some("ws.cjs"), "/"),
            SOCKET_IO | SOCKET_IO_REDIS => {
                (Some("socketio.cjs"), "/socket.io/?EIO=4&transport=websocket")
            }
            name => bail!("there is no server {name}"),
        };
        let mut command = match script {
            Some(_) => Command::new("node"),
            None => Command::new(self.native_uwebsockets()),
        };
        command
            .args(script.map(|script| self.peers.join(script)))
            .args(common.redis.as_ref().map(Redis::url))
            .env("NODE_ENV", "production");
        let mut child = Child::start(&command, None)?;
        let version = child.word("version:")?.trim_start_matches("version:").replace('/', " on ");
        let port = child.word("port:")?.trim_start_matches("port:").parse()?;
        Ok((child, Target::local(port).with_path(path), version))
    }

    fn native_uwebsockets(&self) -> PathBuf {
        self.peers.join(".installed/uws")
    }
}

impl Service {
    pub(crate) fn has_redis(&self) -> bool {
        self.processes.store.is_some()
    }
}

fn dialect_of(name: &str) -> dialect::Name {
    match name {
        SOCKET_IO | SOCKET_IO_REDIS => dialect::Name::Socketio,
        _ => dialect::Name::Gatecast,
    }
}
