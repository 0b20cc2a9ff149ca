//! The table of the kinds of events, and the actions of each.
//!
//! To add one: a row here, and an action if the existing ones are not enough.

use std::time::Duration;

use super::event::{Action, Backing, Event, Kind, Value};
use crate::faults::backend::proxy::Mode;

const SINGLE: &[Backing] = &[Backing::Durable, Backing::Forgetful];
const FORGETFUL: &[Backing] = &[Backing::Forgetful];
const ALL: &[Backing] =
    &[Backing::Durable, Backing::Forgetful, Backing::Sentinel, Backing::Cluster];
/// How long Redis is down between two histories.
const BETWEEN: Duration = Duration::from_millis(300);

/// All kinds of events.
pub(crate) const KINDS: &[Kind] = &[
    of_node(
        "kill_node",
        "`kill -9` of a node; it is started again at once, as every node that ends",
        ALL,
        (0, 0),
        |event| vec![(event.at, Action::KillNode(event.node()))],
    ),
    of_node("stop_node", "SIGTERM to a node", ALL, (0, 0), |event| {
        vec![(event.at, Action::StopNode(event.node()))]
    }),
    of_node("stop_node_twice", "SIGTERM to a node, and again", ALL, (100, 1500), |event| {
        vec![
            (event.at, Action::StopNode(event.node())),
            (event.end(), Action::StopNode(event.node())),
        ]
    }),
    of_node("pause_node", "SIGSTOP to a node, then SIGCONT", ALL, (500, 5000), |event| {
        vec![
            (event.at, Action::FreezeNode(event.node())),
            (event.end(), Action::WakeNode(event.node())),
        ]
    }),
    kind("kill_subscriptions", "Redis cuts all subscriptions", SINGLE, (0, 0), |event| {
        vec![(event.at, Action::Tell(&["CLIENT", "KILL", "TYPE", "pubsub"]))]
    }),
    kind(
        "kill_commands",
        "Redis cuts all connections that carry commands",
        SINGLE,
        (0, 0),
        |event| vec![(event.at, Action::Tell(&["CLIENT", "KILL", "TYPE", "normal"]))],
    ),
    kind(
        "small_buffers",
        "Redis ends subscriptions that have more than 2 kB waiting",
        SINGLE,
        (500, 2000),
        |event| vec![(event.at, Action::Tell(SMALL)), (event.end(), Action::Tell(LARGE))],
    ),
    kind(
        "redis_restart",
        "`kill -9` of Redis, which comes back with what it keeps: all, or nothing",
        SINGLE,
        (200, 4000),
        |event| vec![(event.at, Action::KillRedis), (event.end(), Action::StartRedis)],
    ),
    Kind {
        value: Value::Age,
        ..kind(
            "redis_restart_older",
            "the same, back with a snapshot that is older than its end by the value",
            FORGETFUL,
            (200, 1000),
            |event| {
                let (at, age) = (event.at.max(event.age()), event.age());
                let name = event.snapshot("older");
                vec![
                    (at.saturating_sub(age), Action::Snapshot(name.clone())),
                    (at, Action::KillRedis),
                    (at + event.lasts, Action::StartRedisWith(name)),
                ]
            },
        )
    },
    Kind {
        value: Value::Age,
        ..kind(
            "redis_histories",
            "Redis comes back with a snapshot that is older by the value, and then with that of its first end",
            FORGETFUL,
            (500, 2500),
            |event| {
                let (at, age) = (event.at.max(event.age()), event.age());
                let (first, older) = (event.snapshot("first"), event.snapshot("older"));
                vec![
                    (at.saturating_sub(age), Action::Snapshot(older.clone())),
                    (at, Action::Snapshot(first.clone())),
                    (at, Action::KillRedis),
                    (at + BETWEEN, Action::StartRedisWith(older)),
                    (at + BETWEEN + event.lasts, Action::KillRedis),
                    (at + BETWEEN * 2 + event.lasts, Action::StartRedisWith(first)),
                ]
            },
        )
    },
    kind("redis_pause", "Redis is frozen", SINGLE, (300, 4000), |event| {
        vec![(event.at, Action::FreezeRedis), (event.end(), Action::WakeRedis)]
    }),
    kind(
        "redis_pause_flush",
        "the same, and somebody's FLUSHALL is what it does when it wakes",
        SINGLE,
        (300, 2500),
        |event| {
            vec![
                (event.at, Action::FreezeRedis),
                (event.at, Action::Tell(&["FLUSHALL"])),
                (event.end(), Action::WakeRedis),
            ]
        },
    ),
    kind("redis_full", "Redis has no memory left", SINGLE, (300, 2500), |event| {
        vec![(event.at, Action::Tell(FULL)), (event.end(), Action::Tell(ROOMY))]
    }),
    kind("redis_slow", "every answer of Redis takes 0.7 s", SINGLE, (1000, 4000), |event| {
        vec![(event.at, Action::Links(Mode::Slow)), (event.end(), Action::Links(Mode::Pass))]
    }),
    Kind {
        value: Value::Step,
        ..kind(
            "redis_clock",
            "Redis's wall clock is stepped by the value, and back",
            SINGLE,
            (1000, 4000),
            |event| vec![(event.at, Action::Clock(event.value)), (event.end(), Action::Clock(0))],
        )
    },
    of_node(
        "redis_cut",
        "a node's connections to Redis are cut and refused",
        SINGLE,
        (200, 6000),
        |event| event.link(Mode::Cut),
    ),
    kind("redis_cut_all", "the same for all nodes at once", SINGLE, (200, 5000), |event| {
        vec![(event.at, Action::Links(Mode::Cut)), (event.end(), Action::Links(Mode::Pass))]
    }),
    of_node(
        "redis_stall_one_way",
        "what Redis sends to a node is held",
        SINGLE,
        (200, 5000),
        |event| event.link(Mode::HoldAnswers),
    ),
    of_node(
        "redis_stall_other_way",
        "what a node sends to Redis is held",
        SINGLE,
        (200, 5000),
        |event| event.link(Mode::HoldCommands),
    ),
    of_node(
        "redis_tear",
        "a node's connections to Redis end in the middle of an answer",
        SINGLE,
        (200, 1000),
        |event| event.link(Mode::Tear),
    ),
    of_node(
        "redis_strand",
        "a node's connections to Redis are half open: what is sent is lost, either way; new ones work",
        SINGLE,
        (0, 0),
        |event| vec![(event.at, Action::Strand(event.node()))],
    ),
    kind("sentinel_failover", "`SENTINEL FAILOVER`", &[Backing::Sentinel], (0, 0), |event| {
        vec![(event.at, Action::FailOver)]
    }),
    kind(
        "kill_master",
        "`kill -9` of the master, of a Cluster the busiest; it comes back as a replica",
        &[Backing::Sentinel, Backing::Cluster],
        (3000, 6000),
        |event| vec![(event.at, Action::KillMaster), (event.end(), Action::Revive)],
    ),
    kind(
        "cluster_move_slots",
        "every slot in use moves to another master",
        &[Backing::Cluster],
        (0, 0),
        |event| vec![(event.at, Action::MoveSlots)],
    ),
];

/// No memory is left.
pub(crate) const FULL: &[&str] = &["CONFIG", "SET", "maxmemory", "1"];
pub(crate) const ROOMY: &[&str] = &["CONFIG", "SET", "maxmemory", "0"];
/// What waits for a subscription may be this long.
pub(crate) const SMALL: &[&str] =
    &["CONFIG", "SET", "client-output-buffer-limit", "pubsub 2kb 0 0"];
pub(crate) const LARGE: &[&str] =
    &["CONFIG", "SET", "client-output-buffer-limit", "pubsub 32mb 8mb 60"];

/// Makes a kind from its name and description, the Redis that it needs, its shortest and longest
/// duration in milliseconds, and its actions.
const fn kind(
    name: &'static str,
    about: &'static str,
    on: &'static [Backing],
    lasts: (usize, usize),
    actions: fn(&Event) -> Vec<(Duration, Action)>,
) -> Kind {
    Kind { name, about, on, lasts, value: Value::None, actions }
}

/// Makes a kind that happens to one node.
const fn of_node(
    name: &'static str,
    about: &'static str,
    on: &'static [Backing],
    lasts: (usize, usize),
    actions: fn(&Event) -> Vec<(Duration, Action)>,
) -> Kind {
    Kind { value: Value::Node, ..kind(name, about, on, lasts, actions) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::faults::plan::Plan;

    #[test]
    fn each_has_a_name_of_its_own_and_a_redis_it_fits() {
        let names: HashSet<&str> = KINDS.iter().map(|each| each.name).collect();
        assert_eq!(names.len(), KINDS.len());
        assert!(KINDS.iter().all(|each| !each.on.is_empty() && !each.about.is_empty()));
    }

    #[test]
    fn what_is_begun_is_ended() {
        for seed in 0..200 {
            for event in Plan::random(seed, 3).events {
                let actions = (event.kind.actions)(&event);
                let count = |wanted: fn(&Action) -> bool| {
                    actions.iter().filter(|(_, action)| wanted(action)).count()
                };
                assert_eq!(
                    count(|action| *action == Action::FreezeRedis),
                    count(|action| *action == Action::WakeRedis)
                );
                let starts = count(|action| {
                    matches!(action, Action::StartRedis | Action::StartRedisWith(_))
                });
                assert_eq!(count(|action| *action == Action::KillRedis), starts);
                assert!(actions.is_sorted_by_key(|(at, _)| *at), "{event}");
            }
        }
    }
}
