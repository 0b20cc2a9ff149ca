//! The servers that are measured, started by this program: Gatecast and its peers, alone or as nodes on one Redis.
//!
//! Rule: each as its authors recommend it for speed, on loopback, on a port of its own, and gone when it is dropped.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::bench::dialect::{self, Dialect};
use crate::bench::sigv4::Key;
use crate::bench::works::{GATECAST, SOCKET_IO, SOCKET_IO_REDIS, UWEBSOCKETS, UWEBSOCKETS_JS, WS};
use crate::shared::child::Server;
use crate::shared::node::Node;
use crate::shared::ports::Ports;
use crate::shared::process::{Process, Processes};
use crate::shared::redis::Redis;
use crate::shared::target::Target;
use crate::shared::wait::Interrupt;

const JOIN_LIMIT: Duration = Duration::from_secs(15);
/// What is measured is how fast connections open, not how fast a node lets them.
const HANDSHAKE_RATE: &str = "1000000";

/// What can be started.
#[derive(Debug)]
pub(crate) struct Programs {
    gatecast: PathBuf,
    /// The folder of the peers' scripts.
    peers: PathBuf,
    interrupt: Interrupt,
}

/// A server under test, which ends with this.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: &'static str,
    /// What it says of itself.
    pub(crate) version: String,
    pub(crate) targets: Vec<Target>,
    pub(crate) processes: Processes,
    pub(crate) dialect: Dialect,
    _nodes: Vec<Running>,
    _redis: Option<Redis>,
    _site: Site,
}

/// What a service has for itself.
#[derive(Debug)]
struct Site {
    /// Logs, and what Redis writes.
    directory: TempDir,
    ports: Ports,
}

#[derive(Debug)]
enum Running {
    Gatecast(Node),
    Peer(Server),
}

/// What the processes of a service have in common while they are started.
struct Ground<'a> {
    name: &'static str,
    site: &'a mut Site,
    redis: Option<&'a Redis>,
    /// Of gatecast's management API.
    key: Option<&'a Key>,
}

impl Site {
    fn new() -> Result<Self> {
        Ok(Self { directory: tempfile::tempdir()?, ports: Ports::new(0) })
    }
}

impl Programs {
    pub(crate) fn new(gatecast: &Path, peers: &Path) -> Self {
        let (gatecast, peers) = (gatecast.to_owned(), peers.to_owned());
        Self { gatecast, peers, interrupt: Interrupt::default() }
    }

    /// Installs what the peers need, unless it is there.
    ///
    /// # Errors
    /// It cannot be had.
    pub(crate) fn install_peers(&self) -> Result<()> {
        let script = self.peers.join("install");
        let status = Command::new(&script).stdin(Stdio::null()).stdout(Stdio::null()).status();
        let status = status.with_context(|| format!("cannot run {}", script.display()))?;
        ensure!(status.success(), "{} ended with {status}", script.display());
        Ok(())
    }

    /// Returns whether uWebSockets is the C++ library here.
    pub(crate) fn has_native_uwebsockets(&self) -> bool {
        self.native_uwebsockets().exists()
    }

    /// Starts one process of the server with this name.
    ///
    /// # Errors
    /// It is not installed, or does not say where it listens.
    pub(crate) fn start(&self, name: &'static str) -> Result<Service> {
        self.launch((name, 1), None, Site::new()?, None)
    }

    /// Starts a gatecast whose management API wants signatures.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(crate) fn start_with_key(&self, key: &Key) -> Result<Service> {
        self.launch((GATECAST, 1), None, Site::new()?, Some(key))
    }

    /// Starts nodes that meet in a Redis of their own.
    ///
    /// # Errors
    /// As [`Self::start`]; Redis is missing, or the nodes do not come to it.
    pub(crate) fn start_cluster(&self, name: &'static str, nodes: usize) -> Result<Service> {
        let mut site = Site::new()?;
        let redis = Redis::start(site.ports.draw()?, site.directory.path(), &[], &self.interrupt)?;
        self.launch((name, nodes), Some(redis), site, None)
    }

    fn launch(
        &self,
        (name, n): (&'static str, usize),
        redis: Option<Redis>,
        mut site: Site,
        key: Option<&Key>,
    ) -> Result<Service> {
        let mut ground = Ground { name, site: &mut site, redis: redis.as_ref(), key };
        let (mut nodes, mut targets, mut version) = (Vec::new(), Vec::new(), String::new());
        for number in 0..n {
            let (node, target, said) = if name == GATECAST {
                self.gatecast(&mut ground, number)?
            } else {
                self.peer(&ground).with_context(|| format!("cannot start {name}"))?
            };
            nodes.push(node);
            targets.push(target);
            version = said;
        }
        if let Some(redis) = redis.as_ref().filter(|_| name == SOCKET_IO_REDIS) {
            // A node listens before it has subscribed; what is sent before that, it would miss.
            self.interrupt.eventually("all nodes have subscribed", JOIN_LIMIT, || {
                redis.ask::<usize>(&["PUBSUB", "NUMPAT"]).ok().filter(|subscribed| *subscribed > 0)?;
                let clients: String = redis.ask(&["CLIENT", "LIST", "TYPE", "PUBSUB"]).ok()?;
                (clients.lines().filter(|line| !line.contains(" psub=0 ")).count() >= n).then_some(())
            })?;
        }
        let processes = nodes.iter().map(Running::process).collect::<Result<_>>()?;
        let store = redis.as_ref().map(Redis::process).transpose()?;
        Ok(Service {
            name,
            version,
            targets,
            processes: Processes { nodes: processes, store },
            dialect: dialect_of(name).dialect(),
            _nodes: nodes,
            _redis: redis,
            _site: site,
        })
    }

    fn gatecast(&self, ground: &mut Ground<'_>, number: usize) -> Result<(Running, Target, String)> {
        let mut environment = BTreeMap::from([
            ("GATECAST_LIMITS_HANDSHAKE_RATE".to_owned(), HANDSHAKE_RATE.to_owned()),
            ("GATECAST_NODE_NAME".to_owned(), format!("node{number}")),
        ]);
        if let Some(redis) = ground.redis {
            environment.insert("GATECAST_REDIS_URL".to_owned(), url(redis));
        }
        if let Some(key) = ground.key {
            environment.insert("GATECAST_ACCESS_KEY_ID".to_owned(), key.id.clone());
            environment.insert("GATECAST_SECRET_ACCESS_KEY".to_owned(), key.secret.clone());
        }
        let Site { directory, ports } = &mut *ground.site;
        let log = directory.path().join(format!("node{number}.log"));
        let ports = (ports.draw()?, ports.draw()?);
        let mut node = Node::new(&self.gatecast, ports, environment, log);
        node.start()?;
        node.wait_ready(&self.interrupt)?;
        let target = Target::local(node.port).with_path("/beta");
        Ok((Running::Gatecast(node), target, self.gatecast.display().to_string()))
    }

    fn peer(&self, ground: &Ground<'_>) -> Result<(Running, Target, String)> {
        let (script, path) = match ground.name {
            UWEBSOCKETS if self.has_native_uwebsockets() => (None, "/"),
            UWEBSOCKETS | UWEBSOCKETS_JS => (Some("uws.cjs"), "/"),
            WS => (Some("ws.cjs"), "/"),
            SOCKET_IO | SOCKET_IO_REDIS => (Some("socketio.cjs"), "/socket.io/?EIO=4&transport=websocket"),
            name => bail!("there is no server {name}"),
        };
        let program = if script.is_some() { PathBuf::from("node") } else { self.native_uwebsockets() };
        let mut args: Vec<OsString> =
            script.map(|script| self.peers.join(script).into()).into_iter().collect();
        args.extend(ground.redis.map(|redis| url(redis).into()));
        let mut server = Server::start(&program, args, &[("NODE_ENV", "production")])?;
        let version = server.word("version:")?.trim_start_matches("version:").replace('/', " on ");
        let port = server.word("port:")?.trim_start_matches("port:").parse()?;
        Ok((Running::Peer(server), Target::local(port).with_path(path), version))
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

impl Running {
    fn process(&self) -> Result<Process> {
        match self {
            Self::Gatecast(node) => node.process(),
            Self::Peer(server) => Ok(server.process()),
        }
    }
}

fn dialect_of(name: &str) -> dialect::Name {
    match name {
        SOCKET_IO | SOCKET_IO_REDIS => dialect::Name::Socketio,
        _ => dialect::Name::Gatecast,
    }
}

fn url(redis: &Redis) -> String {
    format!("redis://127.0.0.1:{}", redis.port)
}
