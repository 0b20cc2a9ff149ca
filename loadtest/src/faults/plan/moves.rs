//! The table of what can go wrong in a plan, and the acts that each is made of.
//!
//! To add one: a row here; and an act, if none of those there are will do.

use std::time::Duration;

use super::event::{Act, Backing, Move, Value};
use crate::faults::backend::proxy::Mode;

const SINGLE: &[Backing] = &[Backing::Durable, Backing::Forgetful];
const FORGETFUL: &[Backing] = &[Backing::Forgetful];
const ALL: &[Backing] = &[Backing::Durable, Backing::Forgetful, Backing::Sentinel, Backing::Cluster];
/// Redis is away so long between two histories.
const BETWEEN: Duration = Duration::from_millis(300);

/// See the head of this file.
pub(crate) const MOVES: &[Move] = &[
    Move {
        name: "kill_node",
        about: "`kill -9` of a node; it is started again at once, as every node that ends",
        on: ALL,
        lasts: (0, 0),
        value: Value::Node,
        acts: |event| vec![(event.at, Act::KillNode(event.node()))],
    },
    Move {
        name: "stop_node",
        about: "SIGTERM to a node",
        on: ALL,
        lasts: (0, 0),
        value: Value::Node,
        acts: |event| vec![(event.at, Act::StopNode(event.node()))],
    },
    Move {
        name: "stop_node_twice",
        about: "SIGTERM to a node, and again",
        on: ALL,
        lasts: (100, 1500),
        value: Value::Node,
        acts: |event| {
            vec![(event.at, Act::StopNode(event.node())), (event.end(), Act::StopNode(event.node()))]
        },
    },
    Move {
        name: "pause_node",
        about: "SIGSTOP to a node, then SIGCONT",
        on: ALL,
        lasts: (500, 5000),
        value: Value::Node,
        acts: |event| {
            vec![(event.at, Act::FreezeNode(event.node())), (event.end(), Act::WakeNode(event.node()))]
        },
    },
    Move {
        name: "kill_subscriptions",
        about: "Redis cuts all subscriptions",
        on: SINGLE,
        lasts: (0, 0),
        value: Value::None,
        acts: |event| vec![(event.at, Act::Tell(&["CLIENT", "KILL", "TYPE", "pubsub"]))],
    },
    Move {
        name: "kill_commands",
        about: "Redis cuts all connections that carry commands",
        on: SINGLE,
        lasts: (0, 0),
        value: Value::None,
        acts: |event| vec![(event.at, Act::Tell(&["CLIENT", "KILL", "TYPE", "normal"]))],
    },
    Move {
        name: "small_buffers",
        about: "Redis ends subscriptions that have more than 2 kB waiting",
        on: SINGLE,
        lasts: (500, 2000),
        value: Value::None,
        acts: |event| vec![(event.at, Act::Tell(SMALL)), (event.end(), Act::Tell(LARGE))],
    },
    Move {
        name: "redis_restart",
        about: "`kill -9` of Redis, which comes back with what it keeps: all, or nothing",
        on: SINGLE,
        lasts: (200, 4000),
        value: Value::None,
        acts: |event| vec![(event.at, Act::KillRedis), (event.end(), Act::StartRedis)],
    },
    Move {
        name: "redis_restart_older",
        about: "the same, back with a snapshot that is older than its end by the value",
        on: FORGETFUL,
        lasts: (200, 1000),
        value: Value::Age,
        acts: |event| {
            let (at, age) = (event.at.max(event.age()), event.age());
            let name = event.snapshot("older");
            vec![
                (at.saturating_sub(age), Act::Snapshot(name.clone())),
                (at, Act::KillRedis),
                (at + event.lasts, Act::StartRedisWith(name)),
            ]
        },
    },
    Move {
        name: "redis_histories",
        about: "Redis comes back with a snapshot that is older by the value, and then with that of its first end",
        on: FORGETFUL,
        lasts: (500, 2500),
        value: Value::Age,
        acts: |event| {
            let (at, age) = (event.at.max(event.age()), event.age());
            let (first, older) = (event.snapshot("first"), event.snapshot("older"));
            vec![
                (at.saturating_sub(age), Act::Snapshot(older.clone())),
                (at, Act::Snapshot(first.clone())),
                (at, Act::KillRedis),
                (at + BETWEEN, Act::StartRedisWith(older)),
                (at + BETWEEN + event.lasts, Act::KillRedis),
                (at + BETWEEN * 2 + event.lasts, Act::StartRedisWith(first)),
            ]
        },
    },
    Move {
        name: "redis_pause",
        about: "Redis is frozen",
        on: SINGLE,
        lasts: (300, 4000),
        value: Value::None,
        acts: |event| vec![(event.at, Act::FreezeRedis), (event.end(), Act::WakeRedis)],
    },
    Move {
        name: "redis_pause_flush",
        about: "the same, and somebody's FLUSHALL is what it does when it wakes",
        on: SINGLE,
        lasts: (300, 2500),
        value: Value::None,
        acts: |event| {
            vec![
                (event.at, Act::FreezeRedis),
                (event.at, Act::Tell(&["FLUSHALL"])),
                (event.end(), Act::WakeRedis),
            ]
        },
    },
    Move {
        name: "redis_full",
        about: "Redis has no memory left",
        on: SINGLE,
        lasts: (300, 2500),
        value: Value::None,
        acts: |event| {
            vec![
                (event.at, Act::Tell(&["CONFIG", "SET", "maxmemory", "1"])),
                (event.end(), Act::Tell(&["CONFIG", "SET", "maxmemory", "0"])),
            ]
        },
    },
    Move {
        name: "redis_slow",
        about: "every answer of Redis takes 0.7 s",
        on: SINGLE,
        lasts: (1000, 4000),
        value: Value::None,
        acts: |event| vec![(event.at, Act::Links(Mode::Slow)), (event.end(), Act::Links(Mode::Pass))],
    },
    Move {
        name: "redis_clock",
        about: "Redis's wall clock is stepped by the value, and back",
        on: SINGLE,
        lasts: (1000, 4000),
        value: Value::Step,
        acts: |event| vec![(event.at, Act::Clock(event.value)), (event.end(), Act::Clock(0))],
    },
    Move {
        name: "redis_cut",
        about: "a node's connections to Redis are cut and refused",
        on: SINGLE,
        lasts: (200, 6000),
        value: Value::Node,
        acts: |event| event.link(Mode::Cut),
    },
    Move {
        name: "redis_cut_all",
        about: "the same for all nodes at once",
        on: SINGLE,
        lasts: (200, 5000),
        value: Value::None,
        acts: |event| vec![(event.at, Act::Links(Mode::Cut)), (event.end(), Act::Links(Mode::Pass))],
    },
    Move {
        name: "redis_stall_one_way",
        about: "what Redis sends to a node is held",
        on: SINGLE,
        lasts: (200, 5000),
        value: Value::Node,
        acts: |event| event.link(Mode::HoldAnswers),
    },
    Move {
        name: "redis_stall_other_way",
        about: "what a node sends to Redis is held",
        on: SINGLE,
        lasts: (200, 5000),
        value: Value::Node,
        acts: |event| event.link(Mode::HoldCommands),
    },
    Move {
        name: "redis_tear",
        about: "a node's connections to Redis end in the middle of an answer",
        on: SINGLE,
        lasts: (200, 1000),
        value: Value::Node,
        acts: |event| event.link(Mode::Tear),
    },
    Move {
        name: "redis_strand",
        about: "a node's connections to Redis are half open: what is sent is lost, either way; new ones work",
        on: SINGLE,
        lasts: (0, 0),
        value: Value::Node,
        acts: |event| vec![(event.at, Act::Strand(event.node()))],
    },
    Move {
        name: "sentinel_failover",
        about: "`SENTINEL FAILOVER`",
        on: &[Backing::Sentinel],
        lasts: (0, 0),
        value: Value::None,
        acts: |event| vec![(event.at, Act::FailOver)],
    },
    Move {
        name: "kill_master",
        about: "`kill -9` of the master, of a Cluster the busiest; it comes back as a replica",
        on: &[Backing::Sentinel, Backing::Cluster],
        lasts: (3000, 6000),
        value: Value::None,
        acts: |event| vec![(event.at, Act::KillMaster), (event.end(), Act::Revive)],
    },
    Move {
        name: "cluster_move_slots",
        about: "every slot in use moves to another master",
        on: &[Backing::Cluster],
        lasts: (0, 0),
        value: Value::None,
        acts: |event| vec![(event.at, Act::MoveSlots)],
    },
];

const SMALL: &[&str] = &["CONFIG", "SET", "client-output-buffer-limit", "pubsub 2kb 0 0"];
const LARGE: &[&str] = &["CONFIG", "SET", "client-output-buffer-limit", "pubsub 32mb 8mb 60"];

/// Returns the row of that name.
pub(crate) fn find(name: &str) -> Option<&'static Move> {
    MOVES.iter().find(|each| each.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::faults::plan::Plan;

    #[test]
    fn each_has_a_name_of_its_own_and_a_redis_it_fits() {
        let names: HashSet<&str> = MOVES.iter().map(|each| each.name).collect();
        assert_eq!(names.len(), MOVES.len());
        assert!(MOVES.iter().all(|each| !each.on.is_empty() && !each.about.is_empty()));
    }

    #[test]
    fn what_is_begun_is_ended() {
        for seed in 0..200 {
            for event in Plan::draw(seed, 3).events {
                let acts = (event.what.acts)(&event);
                let count = |wanted: fn(&Act) -> bool| acts.iter().filter(|(_, act)| wanted(act)).count();
                assert_eq!(count(|act| *act == Act::FreezeRedis), count(|act| *act == Act::WakeRedis));
                let starts = count(|act| matches!(act, Act::StartRedis | Act::StartRedisWith(_)));
                assert_eq!(count(|act| *act == Act::KillRedis), starts);
                assert!(acts.is_sorted_by_key(|(at, _)| *at), "{event}");
            }
        }
    }
}
