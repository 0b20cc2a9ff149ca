//! The servers that take part, started once for all rounds, and their order.
//!
//! Rule: a server that cannot be started is noted once, and the others are measured without it.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::scale::Scale;
use crate::bench::args::CompareArgs;
use crate::bench::report::Report;
use crate::bench::servers::{Programs, Service};
use crate::bench::sigv4::Key;
use crate::bench::works::{
    FLOOR, GATECAST, SERVERS, SOCKET_IO, SOCKET_IO_REDIS, UWEBSOCKETS, UWEBSOCKETS_JS, WS,
};

const NODES: usize = 3;

/// The servers that take part.
#[derive(Debug)]
pub(super) struct Participants {
    pub(super) scale: Scale,
    programs: Programs,
    /// Single servers, and nodes on one Redis.
    services: Vec<Service>,
    round: usize,
}

impl Participants {
    /// Starts all servers.
    pub(super) fn open(args: &CompareArgs, scale: Scale, report: &mut Report) -> Result<Self> {
        let programs = Programs::new(&args.servers.gatecast, &args.servers.peers);
        let mut this = Self { scale, programs, services: Vec::new(), round: 1 };
        let gatecast = this.programs.start(GATECAST)?;
        this.services.push(gatecast);
        let peers = !args.without_peers;
        if peers {
            match this.programs.install_peers() {
                Ok(()) => this.admit_peers(args, report),
                Err(err) => report.note(format!("the peers cannot be installed here: {err:#}")),
            }
        }
        let redis = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
        if redis.is_ok_and(|status| status.success()) {
            this.admit(&[(GATECAST, 1), (GATECAST, NODES)], report);
            if this.find(SOCKET_IO, false).is_some() {
                this.admit(&[(SOCKET_IO_REDIS, NODES)], report);
            }
        } else {
            report.note(
                "redis-server is not installed here: nothing is known of several nodes".to_owned(),
            );
        }
        for service in &this.services {
            report.set(format!(
                "{} ({} nodes): {}",
                service.name,
                service.targets.len(),
                service.version
            ));
        }
        Ok(this)
    }

    pub(super) fn begin_round(&mut self, number: usize) {
        self.round = number;
    }

    /// Returns all servers in the order of this round.
    pub(super) fn order(&self) -> [&'static str; SERVERS.len()] {
        let mut order = SERVERS;
        order.rotate_left(self.round % SERVERS.len());
        order
    }

    /// Returns a server that runs, alone or as several nodes.
    pub(super) fn find(&self, name: &str, has_redis: bool) -> Option<&Service> {
        // If there are several, the one with most nodes.
        let services = self.services.iter().filter(|service| service.name == name);
        services
            .filter(|service| service.has_redis() == has_redis)
            .max_by_key(|service| service.targets.len())
    }

    /// Returns the single node that has a Redis.
    pub(super) fn find_one_with_redis(&self, name: &str) -> Option<&Service> {
        let mut services = self.services.iter().filter(|service| service.name == name);
        services.find(|service| service.has_redis() && service.targets.len() == 1)
    }

    /// Starts another process of a server that takes part; nothing for the floor and servers that
    /// could not be started.
    pub(super) fn start_fresh(&mut self, name: &'static str) -> Result<Option<Service>> {
        if name == FLOOR || self.find(name, false).is_none() {
            return Ok(None);
        }
        self.programs.start(name).map(Some).with_context(|| format!("another {name}"))
    }

    fn admit_peers(&mut self, args: &CompareArgs, report: &mut Report) {
        self.admit(&[(UWEBSOCKETS, 0)], report);
        if self.find(UWEBSOCKETS, false).is_some() && !self.programs.has_native_uwebsockets() {
            report.note(
                "uWebSockets is uWebSockets.js: the C++ library cannot be compiled here".to_owned(),
            );
        } else if args.uwebsockets_js && self.programs.has_native_uwebsockets() {
            self.admit(&[(UWEBSOCKETS_JS, 0)], report);
        }
        self.admit(&[(WS, 0), (SOCKET_IO, 0)], report);
    }

    /// Starts a gatecast whose management API wants signatures.
    pub(super) fn start_with_key(&mut self, key: &Key) -> Result<Service> {
        self.programs.start_with_key(key).context("a gatecast with a key")
    }

    /// Starts servers; 0 nodes is one without Redis.
    fn admit(&mut self, servers: &[(&'static str, usize)], report: &mut Report) {
        for (name, nodes) in servers {
            let started = match nodes {
                0 => self.programs.start(name),
                nodes => self.programs.start_cluster(name, *nodes),
            };
            match started {
                Ok(service) => self.services.push(service),
                Err(err) => report.note(format!("{name} cannot be started here: {err:#}")),
            }
        }
    }
}
