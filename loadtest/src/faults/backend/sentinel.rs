//! One master, two replicas and three Sentinels.

use std::collections::HashMap;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::shared::child::Child;
use crate::shared::redis::{self, FORM_LIMIT, Redis, addresses, ask, is_master};
use crate::shared::wait::Interrupt;
use crate::shared::workspace::Workspace;

const NAME: &str = "mymaster";
const REPLICAS: usize = 2;
const SENTINELS: usize = 3;

/// Running Sentinels and their servers.
#[derive(Debug)]
pub(crate) struct Sentinels {
    servers: Vec<Redis>,
    watchers: Vec<(u16, Child)>,
    interrupt: Interrupt,
}

impl Sentinels {
    /// Starts all, and waits until every Sentinel knows all others.
    pub(crate) fn start(workspace: &mut Workspace) -> Result<Self> {
        let master = Redis::start(workspace, &[])?;
        let of = format!("127.0.0.1 {}", master.port);
        let port = master.port;
        let mut servers = vec![master];
        for _ in 0..REPLICAS {
            let args = ["--replicaof", &of, "--repl-diskless-sync-delay", "0"];
            servers.push(Redis::start(workspace, &args)?);
        }
        let watchers = (0..SENTINELS).map(|_| watch(port, workspace)).collect::<Result<_>>()?;
        let this = Self { servers, watchers, interrupt: workspace.interrupt.clone() };
        this.interrupt.eventually(
            "the Sentinels know each other and the replicas",
            FORM_LIMIT,
            || this.watchers.iter().all(|(port, _)| knows_all(*port)).then_some(()),
        )?;
        Ok(this)
    }

    pub(crate) fn url(&self) -> String {
        let ports = addresses(self.watchers.iter().map(|(port, _)| *port));
        format!("redis+sentinel://{ports}/{NAME}")
    }

    /// Asks a Sentinel to promote a replica, and waits until the old master is a replica: until
    /// then, both accept writes.
    pub(crate) fn fail_over(&mut self) -> Result<()> {
        let before = self.master()?;
        let watcher = self.watcher()?;
        ask::<String>(watcher, &["SENTINEL", "FAILOVER", NAME])?;
        self.wait_for_another(before)?;
        self.interrupt.eventually("the old master has become a replica", FORM_LIMIT, || {
            (!is_master(before)).then_some(())
        })
    }

    /// Asks a Sentinel to promote a replica; returns whether it will.
    pub(crate) fn ask_to_fail_over(&self) -> bool {
        self.watcher()
            .and_then(|watcher| ask::<String>(watcher, &["SENTINEL", "FAILOVER", NAME]))
            .is_ok()
    }

    /// Returns whether there is exactly one master: after a failover the old one accepts writes
    /// until it is told to follow.
    pub(crate) fn is_settled(&self) -> bool {
        let masters =
            self.servers.iter().filter(|server| server.is_running() && is_master(server.port));
        masters.count() == 1
    }

    /// Returns whether the master that the Sentinels name runs.
    pub(crate) fn has_master(&self) -> bool {
        let named = self.master().ok();
        self.servers.iter().any(|server| Some(server.port) == named && server.is_running())
    }

    /// Restarts the servers that were killed; Sentinels make them replicas.
    pub(crate) fn revive(&mut self) -> Result<()> {
        redis::revive(&mut self.servers)
    }

    /// Kills the master, without telling the Sentinels; returns its port.
    pub(crate) fn kill_master(&mut self) -> Result<u16> {
        let master = self.master()?;
        self.servers
            .iter_mut()
            .find(|server| server.port == master)
            .context("no master")?
            .kill()?;
        Ok(master)
    }

    /// Waits until a server other than `before` is the master, according to the Sentinels and
    /// itself.
    pub(crate) fn wait_for_another(&self, before: u16) -> Result<()> {
        self.interrupt.eventually("another master", FORM_LIMIT, || {
            let master = self.master().ok().filter(|master| *master != before)?;
            is_master(master).then_some(())
        })
    }

    fn master(&self) -> Result<u16> {
        let (_, port): (String, String) =
            ask(self.watcher()?, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME])?;
        Ok(port.parse()?)
    }

    fn watcher(&self) -> Result<u16> {
        self.watchers.first().map(|(port, _)| *port).context("no Sentinel")
    }
}

fn watch(master: u16, workspace: &mut Workspace) -> Result<(u16, Child)> {
    let port = workspace.ports.allocate()?;
    let directory = workspace.directory.join(format!("sentinel-{port}"));
    fs::create_dir_all(&directory)?;
    let (file, log) = (directory.join("sentinel.conf"), directory.join("sentinel.log"));
    let text = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor {NAME} 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds {NAME} 1000\nsentinel failover-timeout {NAME} 5000\n",
        directory.display()
    );
    fs::write(&file, text)?;
    let mut command = Command::new("redis-server");
    command.arg(file).arg("--sentinel").arg("--logfile").arg(&log);
    Ok((port, Child::start(&command, Some(&log))?))
}

fn knows_all(port: u16) -> bool {
    let Ok(state) = ask::<HashMap<String, String>>(port, &["SENTINEL", "MASTER", NAME]) else {
        return false;
    };
    let count = |name: &str| state.get(name).and_then(|count| count.parse::<usize>().ok());
    let replicas: Result<Vec<HashMap<String, String>>> = ask(port, &["SENTINEL", "REPLICAS", NAME]);
    let in_step = replicas.is_ok_and(|replicas| {
        replicas.len() == REPLICAS
            && replicas
                .iter()
                .all(|each| each.get("master-link-status").is_some_and(|link| link == "ok"))
    });
    in_step
        && count("num-other-sentinels") == Some(SENTINELS - 1)
        && count("num-slaves") == Some(REPLICAS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_takes_over_when_asked_and_when_the_master_dies() {
        let directory = tempfile::tempdir().unwrap();
        let mut workspace = Workspace::new(directory.path(), 1, &Interrupt::default()).unwrap();
        let mut sentinels = Sentinels::start(&mut workspace).unwrap();
        let first = sentinels.master().unwrap();
        sentinels.fail_over().unwrap();
        let second = sentinels.kill_master().unwrap();
        sentinels.wait_for_another(second).unwrap();
        assert_ne!(first, second);
    }
}
