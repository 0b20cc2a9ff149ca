//! One event of a plan, and what each kind of event is made of.

use std::fmt;
use std::time::Duration;

use crate::faults::backend::proxy::Mode;

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) what: &'static Move,
    /// From the start of the plan.
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    /// See [`Value`].
    pub(crate) value: i64,
}

/// Which Redis the nodes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backing {
    /// One server that keeps everything.
    Durable,
    /// One that keeps nothing but what is put back.
    Forgetful,
    Sentinel,
    Cluster,
}

/// One kind of event.
#[derive(Debug)]
pub(crate) struct Move {
    pub(crate) name: &'static str,
    /// For people.
    pub(crate) about: &'static str,
    pub(super) on: &'static [Backing],
    /// How long it lasts when it is drawn, from and to, in milliseconds.
    pub(crate) lasts: (usize, usize),
    pub(crate) value: Value,
    /// What is done, and when; times count from the start of the plan.
    pub(crate) acts: fn(&Event) -> Vec<(Duration, Act)>,
}

/// What the value of an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    None,
    /// The number of a node.
    Node,
    /// Milliseconds by which a snapshot is older.
    Age,
    /// Seconds by which a clock is stepped.
    Step,
}

/// The parts of which events are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    KillNode(usize),
    /// SIGTERM.
    StopNode(usize),
    FreezeNode(usize),
    WakeNode(usize),
    /// One node's way to Redis.
    Link(usize, Mode),
    /// All nodes' ways.
    Links(Mode),
    /// Loses one node's connections to Redis without ending them.
    Strand(usize),
    FreezeRedis,
    WakeRedis,
    KillRedis,
    /// With what it kept itself.
    StartRedis,
    /// With a snapshot of that name.
    StartRedisWith(String),
    Snapshot(String),
    /// A command that is sent whether or not Redis answers.
    Tell(&'static [&'static str]),
    Clock(i64),
    FailOver,
    KillMaster,
    Revive,
    MoveSlots,
}

impl Move {
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

    /// Names a snapshot that is this event's own.
    pub(super) fn snapshot(&self, which: &str) -> String {
        format!("{which}-{}-{}.rdb", self.what.name, self.at.as_millis())
    }

    pub(super) fn link(&self, mode: Mode) -> Vec<(Duration, Act)> {
        vec![(self.at, Act::Link(self.node(), mode)), (self.end(), Act::Link(self.node(), Mode::Pass))]
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}s", self.what.name, self.at.as_secs_f64())?;
        if !self.lasts.is_zero() {
            write!(f, "+{}s", self.lasts.as_secs_f64())?;
        }
        match self.what.value {
            Value::None => Ok(()),
            Value::Age => write!(f, "/{}s", Duration::from_millis(self.value.unsigned_abs()).as_secs_f64()),
            Value::Step => write!(f, "/{}s", self.value),
            Value::Node => write!(f, "/{}", self.value),
        }
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        (self.what.name, self.at, self.lasts, self.value)
            == (other.what.name, other.at, other.lasts, other.value)
    }
}

impl Eq for Event {}
