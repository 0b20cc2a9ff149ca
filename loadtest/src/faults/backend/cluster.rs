//! A Redis Cluster: three masters, with or without replicas.

use anyhow::{Context, Result, ensure};

use crate::shared::redis::{self, FORM_LIMIT, Redis, addresses, ask, is_master};
use crate::shared::wait::Interrupt;
use crate::shared::workspace::Workspace;

const MASTERS: usize = 3;
const SLOTS: usize = 16_384;
/// Keys moved at a time.
const BATCH: usize = 100;

/// A running Cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// The masters first.
    servers: Vec<Redis>,
    interrupt: Interrupt,
}

impl Cluster {
    /// Starts all servers and joins them.
    pub(crate) fn start(replicas: usize, workspace: &mut Workspace) -> Result<Self> {
        let mut servers = Vec::new();
        let mut buses = Vec::new();
        for _ in 0..MASTERS * (1 + replicas) {
            let bus = workspace.ports.allocate()?.to_string();
            let args = [
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                "1000",
                "--appendonly",
                "yes",
                "--repl-diskless-sync-delay",
                "0",
            ];
            servers.push(Redis::start(workspace, &args)?);
            buses.push(bus);
        }
        let this = Self { servers, interrupt: workspace.interrupt.clone() };
        this.join(&buses)?;
        Ok(this)
    }

    pub(crate) fn url(&self) -> String {
        format!(
            "redis+cluster://{}",
            addresses(self.servers.iter().take(MASTERS).map(|server| server.port))
        )
    }

    /// Moves every slot in which a master has keys or subscriptions to the next master, while in
    /// use; returns their number. Nothing is moved while a server misses another.
    pub(crate) fn move_busy_slots(&self) -> Result<usize> {
        if !self.running().all(is_whole) {
            return Ok(0);
        }
        let masters: Vec<&Redis> = self.masters().collect();
        let mut plan = Vec::new();
        for (from, to) in masters.iter().zip(masters.iter().cycle().skip(1)) {
            plan.extend(busy_slots(from)?.into_iter().map(|slot| (slot, from.port, to.port)));
        }
        for (slot, from, to) in &plan {
            self.move_slot(*slot, *from, *to).with_context(|| format!("moving slot {slot}"))?;
        }
        Ok(plan.len())
    }

    /// Kills the master that has most keys; returns its port.
    pub(crate) fn kill_busiest_master(&mut self) -> Result<u16> {
        let keys = |server: &Redis| server.ask::<u64>(&["DBSIZE"]).unwrap_or_default();
        let busiest =
            self.servers.iter_mut().filter(|server| server.is_running() && is_master(server.port));
        let busiest = busiest.max_by_key(|server| keys(server)).context("no master")?;
        busiest.kill()?;
        Ok(busiest.port)
    }

    /// Restarts the servers that were killed; they become replicas.
    pub(crate) fn revive(&mut self) -> Result<()> {
        redis::revive(&mut self.servers)
    }

    /// Waits until all slots are served without the server at `dead`.
    pub(crate) fn wait_whole_without(&self, dead: u16) -> Result<()> {
        self.interrupt.eventually("a replica has taken over", FORM_LIMIT, || {
            self.running().all(|server| is_whole(server) && !serves(server, dead)).then_some(())
        })
    }

    fn running(&self) -> impl Iterator<Item = &Redis> {
        self.servers.iter().filter(|server| server.is_running())
    }

    /// Returns the present masters.
    fn masters(&self) -> impl Iterator<Item = &Redis> {
        self.running().filter(|server| is_master(server.port))
    }

    fn join(&self, buses: &[String]) -> Result<()> {
        let first = self.servers.first().context("no server")?;
        // As `redis-cli --cluster create`, and before they meet: masters of the same epoch contend
        // for slots that move.
        for (number, server) in self.servers.iter().take(MASTERS).enumerate() {
            server.ask::<String>(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()])?;
        }
        for (server, bus) in self.servers.iter().zip(buses).skip(1) {
            let port = server.port.to_string();
            // A server that has no time does not answer; to meet again does no harm.
            self.interrupt.eventually("CLUSTER MEET", FORM_LIMIT, || {
                first.ask::<String>(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]).ok()
            })?;
        }
        for (number, server) in self.servers.iter().take(MASTERS).enumerate() {
            let (from, to) = (SLOTS * number / MASTERS, SLOTS * (number + 1) / MASTERS - 1);
            server.ask::<String>(&[
                "CLUSTER",
                "ADDSLOTSRANGE",
                &from.to_string(),
                &to.to_string(),
            ])?;
        }
        let known = |server: &Redis| {
            let nodes = server.ask::<String>(&["CLUSTER", "NODES"]).unwrap_or_default();
            nodes.lines().filter(|line| !line.contains("handshake")).count()
        };
        self.interrupt.eventually("the servers know each other", FORM_LIMIT, || {
            self.servers.iter().all(|server| known(server) == self.servers.len()).then_some(())
        })?;
        for (number, replica) in self.servers.iter().enumerate().skip(MASTERS) {
            let master = self.servers.get(number % MASTERS).context("no master")?;
            let name: String = master.ask(&["CLUSTER", "MYID"])?;
            replica.ask::<String>(&["CLUSTER", "REPLICATE", &name])?;
        }
        self.interrupt.eventually("the Cluster is whole", FORM_LIMIT, || {
            let replicas = self.servers.iter().skip(MASTERS);
            (self.servers.iter().all(is_whole) && replicas.into_iter().all(is_in_step))
                .then_some(())
        })
    }

    /// Moves one slot as `redis-cli --cluster reshard` does: marks it, moves its keys, tells all
    /// masters.
    fn move_slot(&self, slot: u16, from: u16, to: u16) -> Result<()> {
        let (slot, port) = (slot.to_string(), to.to_string());
        let source: String = ask(from, &["CLUSTER", "MYID"])?;
        let target: String = ask(to, &["CLUSTER", "MYID"])?;
        ask::<String>(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source])?;
        ask::<String>(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target])?;
        loop {
            let keys: Vec<String> =
                ask(from, &["CLUSTER", "GETKEYSINSLOT", &slot, &BATCH.to_string()])?;
            if keys.is_empty() {
                break;
            }
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            // `NOKEY`: all have expired meanwhile.
            let done: String = ask(from, &words)?;
            ensure!(done == "OK" || done == "NOKEY", "MIGRATE answered {done}");
        }
        ask::<String>(to, &["CLUSTER", "SETSLOT", &slot, "NODE", &target])?;
        ask::<String>(from, &["CLUSTER", "SETSLOT", &slot, "NODE", &target])?;
        for other in self.masters().filter(|other| ![from, to].contains(&other.port)) {
            other.ask::<String>(&["CLUSTER", "SETSLOT", &slot, "NODE", &target])?;
        }
        Ok(())
    }
}

/// Returns the slots of a server that have keys or subscriptions.
fn busy_slots(server: &Redis) -> Result<Vec<u16>> {
    let mut names: Vec<String> = server.ask(&["PUBSUB", "SHARDCHANNELS"])?;
    names.extend(server.ask::<Vec<String>>(&["KEYS", "*"])?);
    let slots: Result<Vec<u16>> =
        names.iter().map(|name| server.ask(&["CLUSTER", "KEYSLOT", name])).collect();
    let mut slots = slots?;
    slots.sort_unstable();
    slots.dedup();
    Ok(slots)
}

fn is_whole(server: &Redis) -> bool {
    let info: String = server.ask(&["CLUSTER", "INFO"]).unwrap_or_default();
    info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384")
}

fn is_in_step(replica: &Redis) -> bool {
    replica
        .ask::<String>(&["INFO", "replication"])
        .is_ok_and(|info| info.contains("master_link_status:up"))
}

/// Returns whether the one at `port` has slots, according to a server.
fn serves(server: &Redis, port: u16) -> bool {
    let nodes: String = server.ask(&["CLUSTER", "NODES"]).unwrap_or_default();
    nodes.lines().any(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        words.get(1).is_some_and(|address| address.starts_with(&format!("127.0.0.1:{port}@")))
            && words.len() > 8
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn start(replicas: usize, seed: u64) -> ((tempfile::TempDir, Workspace), Cluster) {
        let directory = tempfile::tempdir().unwrap();
        let mut workspace = Workspace::new(directory.path(), seed, &Interrupt::default()).unwrap();
        let cluster = Cluster::start(replicas, &mut workspace).unwrap();
        ((directory, workspace), cluster)
    }

    fn keys(cluster: &Cluster) -> Vec<HashSet<String>> {
        let masters = cluster.servers.iter().take(MASTERS);
        masters.map(|server| server.ask(&["KEYS", "*"]).unwrap()).collect()
    }

    #[test]
    fn slots_with_keys_move_to_the_next_master_and_take_the_keys_along() {
        let (_kept, cluster) = start(0, 2);
        for name in ["a", "b", "c", "d", "e", "f"] {
            // One of the masters has the slot.
            let set = cluster
                .servers
                .iter()
                .filter(|each| each.ask::<String>(&["SET", name, "1"]).is_ok());
            assert_eq!(set.count(), 1);
        }
        let before = keys(&cluster);
        assert_eq!(cluster.move_busy_slots().unwrap(), 6);
        let after = keys(&cluster);
        for (from, keys) in before.iter().enumerate() {
            assert!(keys.is_subset(&after[(from + 1) % MASTERS]));
        }
        assert!(cluster.servers.iter().all(is_whole));
    }

    #[test]
    fn a_replica_takes_over_from_a_master_that_dies() {
        let (_kept, mut cluster) = start(1, 3);
        let dead = cluster.kill_busiest_master().unwrap();
        cluster.wait_whole_without(dead).unwrap();
        assert_eq!(cluster.servers.iter().filter(|server| server.is_running()).count(), 5);
    }
}
