//! Events of a plan, and the actions of which each is made.

use std::fmt;
use std::time::Duration;

use crate::faults::backend::proxy::Mode;

/// One event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) kind: &'static Kind,
    /// From the start of the plan.
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    /// See [`Value`].
    pub(crate) value: i64,
}

/// The Redis of the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backing {
    /// One server, which persists everything.
    Durable,
    /// One server, which persists nothing; snapshots may be restored.
    Forgetful,
    Sentinel,
    Cluster,
}

/// A kind of event.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// A description.
    pub(crate) about: &'static str,
    pub(super) on: &'static [Backing],
    /// The shortest and the longest duration of a random event, in milliseconds.
    pub(crate) lasts: (usize, usize),
    pub(crate) value: Value,
    /// The actions and their times from the start of the plan.
    pub(crate) actions: fn(&Event) -> Vec<(Duration, Action)>,
}

/// The meaning of an event's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    None,
    /// The number of a node.
    Node,
    /// The age of a snapshot in milliseconds.
    Age,
    /// Seconds by which a clock is stepped.
    Step,
}

/// What can be done to nodes and Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    KillNode(usize),
    /// SIGTERM.
    StopNode(usize),
    FreezeNode(usize),
    WakeNode(usize),
    /// The link of one node to Redis.
    Link(usize, Mode),
    /// The links of all nodes.
    Links(Mode),
    /// Makes one node's connections to Redis half open.
    Strand(usize),
    FreezeRedis,
    WakeRedis,
    KillRedis,
    /// With what it has persisted.
    StartRedis,
    /// With a snapshot of that name.
    StartRedisWith(String),
    Snapshot(String),
    /// A command whose answer is not awaited.
    Tell(&'static [&'static str]),
    Clock(i64),
    FailOver,
    KillMaster,
    Revive,
    MoveSlots,
}

impl Kind {
    pub(crate) fn fits(&self, redis: Backing) -> bool {
        self.on.contains(&redis)
    }
}

impl Event {
    pub(crate) fn end(&self) -> Duration {
        self.at + self.lasts
    }

    pub(super) fn node(&self) -> usize {
        usize::try_from(self.value).unwrap_or_default()
    }

    pub(super) fn age(&self) -> Duration {
        Duration::from_millis(self.value.unsigned_abs())
    }

    /// Names a snapshot of this event.
    pub(super) fn snapshot(&self, which: &str) -> String {
        format!("{which}-{}-{}.rdb", self.kind.name, self.at.as_millis())
    }

    pub(super) fn link(&self, mode: Mode) -> Vec<(Duration, Action)> {
        vec![
            (self.at, Action::Link(self.node(), mode)),
            (self.end(), Action::Link(self.node(), Mode::Pass)),
        ]
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}s", self.kind.name, self.at.as_secs_f64())?;
        if !self.lasts.is_zero() {
            write!(f, "+{}s", self.lasts.as_secs_f64())?;
        }
        match self.kind.value {
            Value::None => Ok(()),
            Value::Age => {
                write!(f, "/{}s", Duration::from_millis(self.value.unsigned_abs()).as_secs_f64())
            }
            Value::Step => write!(f, "/{}s", self.value),
            Value::Node => write!(f, "/{}", self.value),
        }
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        (self.kind.name, self.at, self.lasts, self.value)
            == (other.kind.name, other.at, other.lasts, other.value)
    }
}

impl Eq for Event {}
