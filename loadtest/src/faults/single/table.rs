//! The table of faults.
//!
//! To add one: a function in `acts`, and a row here.

use std::time::Duration;

use anyhow::Result;

use super::acts;
use crate::faults::backend::Topology;
use crate::faults::scene::Scene;

/// One fault.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// For people, in the report.
    pub(crate) about: &'static str,
    pub(crate) topology: Topology,
    /// How long a node that is not heard of lives.
    pub(crate) lease: Duration,
    pub(crate) loss: Loss,
    /// Whether a node is out of the world for a while, so that its clients miss all of that before they are closed.
    pub(crate) freezes: bool,
    pub(crate) act: fn(&mut Scene) -> Result<()>,
}

/// What may be lost of what was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    Nothing,
    /// What Redis accepted shortly before it died, and then forgot.
    BeforeIsOver,
    /// The same, and what a master accepted that has been replaced, until all have left it.
    BeforeIsHealed,
}

/// Longer than any fault with it: nobody is taken for dead.
const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_secs(2);

/// What `--short` runs: one of each kind, the quick ones.
pub(crate) const QUICK: [&str; 4] = ["none", "kill_node", "redis_restart", "kill_subscriptions"];

const BASE: Fault = Fault {
    name: "none",
    about: "nothing happens",
    topology: Topology::Durable,
    lease: LONG,
    loss: Loss::Nothing,
    freezes: false,
    act: acts::none,
};

/// All faults, in the order in which they are run.
pub(crate) const FAULTS: &[Fault] = &[
    BASE,
    Fault {
        name: "kill_node",
        about: "`kill -9` of a node; another takes its place",
        lease: SHORT,
        act: acts::kill_node,
        ..BASE
    },
    Fault {
        name: "stop_node",
        about: "SIGTERM to a node; another takes its place",
        lease: SHORT,
        act: acts::stop_node,
        ..BASE
    },
    Fault {
        name: "pause_node",
        about: "a node is frozen for three leases, and goes on",
        lease: SHORT,
        freezes: true,
        act: acts::pause_node,
        ..BASE
    },
    Fault {
        name: "kill_subscriptions",
        about: "Redis cuts all subscriptions, three times",
        act: acts::kill_subscriptions,
        ..BASE
    },
    Fault {
        name: "kill_commands",
        about: "Redis cuts all connections that carry commands, three times",
        act: acts::kill_commands,
        ..BASE
    },
    Fault {
        name: "redis_restart",
        about: "`kill -9` of Redis (`appendfsync always`), back after 0.5 s",
        act: acts::redis_restart,
        ..BASE
    },
    Fault {
        name: "redis_restart_empty",
        about: "`kill -9` of a Redis that keeps nothing, back after 0.5 s",
        topology: Topology::Forgetful,
        loss: Loss::BeforeIsOver,
        act: acts::redis_restart,
        ..BASE
    },
    Fault {
        name: "redis_restart_stale",
        about: "the same, back with a snapshot taken 0.5 s before, as a replica that lagged",
        topology: Topology::Forgetful,
        loss: Loss::BeforeIsOver,
        act: acts::redis_restart_stale,
        ..BASE
    },
    Fault {
        name: "redis_restart_overtaken",
        about: "the same, 0.1 s before: its count soon passes where it was",
        topology: Topology::Forgetful,
        loss: Loss::BeforeIsOver,
        act: acts::redis_restart_overtaken,
        ..BASE
    },
    Fault { name: "redis_pause", about: "Redis is frozen for 3 s", act: acts::redis_pause, ..BASE },
    Fault {
        name: "redis_full",
        about: "Redis has no memory left for 2 s, and refuses to write",
        act: acts::redis_full,
        ..BASE
    },
    Fault {
        name: "redis_cut_one_node",
        about: "one node's connections to Redis are cut and refused for 3 s",
        topology: Topology::Proxied,
        act: acts::redis_cut_one_node,
        ..BASE
    },
    Fault {
        name: "redis_cut_past_lease",
        about: "the same for three leases, so that the others take the node for dead",
        topology: Topology::Proxied,
        lease: SHORT,
        freezes: true,
        act: acts::redis_cut_past_lease,
        ..BASE
    },
    Fault {
        name: "redis_stall_one_way",
        about: "what Redis sends to one node is held for 4 s",
        topology: Topology::Proxied,
        act: acts::redis_stall_one_way,
        ..BASE
    },
    Fault {
        name: "redis_stall_other_way",
        about: "what one node sends to Redis is held for 4 s",
        topology: Topology::Proxied,
        act: acts::redis_stall_other_way,
        ..BASE
    },
    Fault {
        name: "sentinel_failover",
        about: "`SENTINEL FAILOVER`: a replica is promoted",
        topology: Topology::Sentinel,
        loss: Loss::BeforeIsHealed,
        act: acts::sentinel_failover,
        ..BASE
    },
    Fault {
        name: "sentinel_kill_master",
        about: "`kill -9` of the master; Sentinels promote a replica",
        topology: Topology::Sentinel,
        loss: Loss::BeforeIsHealed,
        act: acts::sentinel_kill_master,
        ..BASE
    },
    Fault {
        name: "cluster_move_slots",
        about: "every slot in use moves to another master",
        topology: Topology::Cluster(0),
        act: acts::cluster_move_slots,
        ..BASE
    },
    Fault {
        name: "cluster_kill_master",
        about: "`kill -9` of the busiest master; its replica takes over",
        topology: Topology::Cluster(1),
        loss: Loss::BeforeIsHealed,
        act: acts::cluster_kill_master,
        ..BASE
    },
];

/// Returns the fault of that name.
pub(crate) fn find(name: &str) -> Option<&'static Fault> {
    FAULTS.iter().find(|fault| fault.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_fault_has_a_name_of_its_own() {
        let names: HashSet<&str> = FAULTS.iter().map(|fault| fault.name).collect();
        assert_eq!(names.len(), FAULTS.len());
        assert!(QUICK.iter().all(|name| find(name).is_some()));
    }
}
