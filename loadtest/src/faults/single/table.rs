//! The table of faults.
//!
//! To add one: a function in `actions`, and a row here.

use std::time::Duration;

use anyhow::Result;

use super::actions;
use crate::faults::backend::Topology;
use crate::faults::testbed::Testbed;

/// One fault.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// A description for the report.
    pub(crate) about: &'static str,
    pub(crate) topology: Topology,
    /// The lease of a node.
    pub(crate) lease: Duration,
    pub(crate) loss: Loss,
    /// Whether a node is cut off or frozen, so that its clients miss everything from then until
    /// they are closed.
    pub(crate) freezes: bool,
    pub(crate) action: fn(&mut Testbed) -> Result<()>,
}

/// What may be lost of what was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    Nothing,
    /// What Redis accepted shortly before it died, and did not persist.
    BeforeIsOver,
    /// The same, and what a replaced master accepted until all nodes have left it.
    BeforeIsHealed,
}

/// Longer than any fault with it: no node is taken for dead.
const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_secs(2);

/// What `--short` runs: a quick fault of each kind.
pub(crate) const QUICK: [&str; 4] = ["none", "kill_node", "redis_restart", "kill_subscriptions"];

const BASE: Fault = Fault {
    name: "none",
    about: "nothing happens",
    topology: Topology::Durable,
    lease: LONG,
    loss: Loss::Nothing,
    freezes: false,
    action: actions::none,
};

/// All faults, in the order in which they are run.
pub(crate) const FAULTS: &[Fault] = &[
    BASE,
    Fault {
        name: "kill_node",
        about: "`kill -9` of a node; another takes its place",
        lease: SHORT,
        action: actions::kill_node,
        ..BASE
    },
    Fault {
        name: "stop_node",
        about: "SIGTERM to a node; another takes its place",
        lease: SHORT,
        action: actions::stop_node,
        ..BASE
    },
    Fault {
        name: "pause_node",
        about: "a node is frozen for three leases, and goes on",
        lease: SHORT,
        freezes: true,
        action: actions::pause_node,
        ..BASE
    },
    Fault {
        name: "kill_subscriptions",
        about: "Redis cuts all subscriptions, three times",
        action: actions::kill_subscriptions,
        ..BASE
    },
    Fault {
        name: "kill_commands",
        about: "Redis cuts all connections that carry commands, three times",
        action: actions::kill_commands,
        ..BASE
    },
    Fault {
        name: "redis_restart",
        about: "`kill -9` of Redis (`appendfsync always`), back after 0.5 s",
        action: actions::redis_restart,
        ..BASE
    },
    Fault {
        name: "redis_restart_empty",
        about: "`kill -9` of a Redis that keeps nothing, back after 0.5 s",
        topology: Topology::Forgetful,
        loss: Loss::BeforeIsOver,
        action: actions::redis_restart,
        ..BASE
    },
    Fault {
        name: "redis_restart_stale",
        about: "the same, back with a snapshot taken 0.5 s before, as a replica that lagged",
        topology: Topology::Forgetful,
        loss: Loss::BeforeIsOver,
        action: actions::redis_restart_stale,
        ..BASE
    },
    Fault {
        name: "redis_restart_overtaken",
        about: "the same, 0.1 s before: its count soon passes where it was",
        topology: Topology::Forgetful,
        loss: Loss::BeforeIsOver,
        action: actions::redis_restart_overtaken,
        ..BASE
    },
    Fault {
        name: "redis_pause",
        about: "Redis is frozen for 3 s",
        action: actions::redis_pause,
        ..BASE
    },
    Fault {
        name: "redis_full",
        about: "Redis has no memory left for 2 s, and refuses to write",
        action: actions::redis_full,
        ..BASE
    },
    Fault {
        name: "redis_cut_one_node",
        about: "one node's connections to Redis are cut and refused for 3 s",
        topology: Topology::Proxied,
        action: actions::redis_cut_one_node,
        ..BASE
    },
    Fault {
        name: "redis_cut_past_lease",
        about: "the same for three leases, so that the others take the node for dead",
        topology: Topology::Proxied,
        lease: SHORT,
        freezes: true,
        action: actions::redis_cut_past_lease,
        ..BASE
    },
    Fault {
        name: "redis_stall_one_way",
        about: "what Redis sends to one node is held for 4 s",
        topology: Topology::Proxied,
        action: actions::redis_stall_one_way,
        ..BASE
    },
    Fault {
        name: "redis_stall_other_way",
        about: "what one node sends to Redis is held for 4 s",
        topology: Topology::Proxied,
        action: actions::redis_stall_other_way,
        ..BASE
    },
    Fault {
        name: "sentinel_failover",
        about: "`SENTINEL FAILOVER`: a replica is promoted",
        topology: Topology::Sentinel,
        loss: Loss::BeforeIsHealed,
        action: actions::sentinel_failover,
        ..BASE
    },
    Fault {
        name: "sentinel_kill_master",
        about: "`kill -9` of the master; Sentinels promote a replica",
        topology: Topology::Sentinel,
        loss: Loss::BeforeIsHealed,
        action: actions::sentinel_kill_master,
        ..BASE
    },
    Fault {
        name: "cluster_move_slots",
        about: "every slot in use moves to another master",
        topology: Topology::Cluster(0),
        action: actions::cluster_move_slots,
        ..BASE
    },
    Fault {
        name: "cluster_kill_master",
        about: "`kill -9` of the busiest master; its replica takes over",
        topology: Topology::Cluster(1),
        loss: Loss::BeforeIsHealed,
        action: actions::cluster_kill_master,
        ..BASE
    },
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_fault_has_a_name_of_its_own() {
        let names: HashSet<&str> = FAULTS.iter().map(|fault| fault.name).collect();
        assert_eq!(names.len(), FAULTS.len());
        assert!(QUICK.iter().all(|name| names.contains(name)));
    }
}
