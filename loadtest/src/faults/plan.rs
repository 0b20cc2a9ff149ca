//! A plan: what goes wrong in a run, and when. It is random, from a seed, or read from text.
//!
//! Text: words `redis=…`, `outage=…`, `lease=…`, and for each event `NAME@AT`, `NAME@AT+LASTS`,
//! either with `/VALUE`; times in seconds.

mod event;
mod kinds;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

pub(crate) use self::event::{Action, Backing, Event};
use self::event::{Kind, Value};
use self::kinds::KINDS;
pub(crate) use self::kinds::{FULL, LARGE, ROOMY, SMALL};
use crate::faults::backend::Topology;
use crate::shared::args::find;
use crate::shared::random::Random;

/// What goes wrong in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) redis: Backing,
    pub(crate) outage: Outage,
    pub(crate) lease: Duration,
    pub(crate) events: Vec<Event>,
}

/// What nodes do without Redis: `redis.on_outage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outage {
    Reject,
    Local,
    Buffer,
}

const BACKINGS: [(&str, Backing); 4] = [
    ("durable", Backing::Durable),
    ("forgetful", Backing::Forgetful),
    ("sentinel", Backing::Sentinel),
    ("cluster", Backing::Cluster),
];
const OUTAGES: [(&str, Outage); 3] =
    [("reject", Outage::Reject), ("local", Outage::Local), ("buffer", Outage::Buffer)];
/// How often each Redis is chosen, of ten times; single servers start faster, and more can go wrong
/// with them.
const WEIGHTS: [Backing; 10] = [
    Backing::Durable,
    Backing::Durable,
    Backing::Durable,
    Backing::Durable,
    Backing::Forgetful,
    Backing::Forgetful,
    Backing::Forgetful,
    Backing::Forgetful,
    Backing::Sentinel,
    Backing::Cluster,
];
const LEASE: Duration = Duration::from_secs(2);
const EVENTS_MIN: usize = 2;
const EVENTS_MAX: usize = 4;
/// The longest time from one event to the next, in milliseconds: so that they overlap or follow
/// each other.
const NEXT: usize = 3000;
/// Times are multiples of this, in milliseconds.
const STEP: usize = 100;
/// No plan takes longer.
const LONGEST: Duration = Duration::from_secs(60);
/// No plan has more events.
const EVENTS_LIMIT: usize = 32;
const LEASES: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30);

impl Plan {
    /// Makes a random plan; the same for the same seed and number of nodes.
    pub(crate) fn random(seed: u64, nodes: usize) -> Self {
        let mut random = Random::new(seed);
        // The first numbers of neighbouring seeds are alike.
        random.below(2);
        let redis = WEIGHTS.get(random.below(WEIGHTS.len())).copied().unwrap_or(Backing::Durable);
        let outage =
            OUTAGES.get(random.below(OUTAGES.len())).map_or(Outage::Reject, |(_, outage)| *outage);
        let fitting: Vec<&'static Kind> = KINDS.iter().filter(|each| each.fits(redis)).collect();
        let count = EVENTS_MIN + random.below(EVENTS_MAX - EVENTS_MIN + 1);
        let mut at = 0;
        let mut events = Vec::new();
        for _ in 0..count {
            let Some(kind) = fitting.get(random.below(fitting.len())) else { continue };
            at += steps(&mut random, 0, NEXT);
            let (least, most) = kind.lasts;
            let lasts = Duration::from_millis(steps(&mut random, least, most) as u64);
            let value = value(kind.value, &mut random, nodes);
            events.push(Event { kind, at: Duration::from_millis(at as u64), lasts, value });
        }
        Self { redis, outage, lease: LEASE, events }
    }

    /// Returns the first random plan from a seed on with this Redis, or with any, and its seed.
    pub(crate) fn random_with(redis: Option<Backing>, mut seed: u64, nodes: usize) -> (u64, Self) {
        loop {
            let plan = Self::random(seed, nodes);
            if redis.is_none_or(|redis| plan.redis == redis) {
                return (seed, plan);
            }
            seed = seed.wrapping_add(1);
        }
    }

    /// Returns the plan without one event.
    pub(crate) fn without(&self, number: usize) -> Self {
        let mut less = self.clone();
        less.events.remove(number);
        less
    }

    /// Returns the kind of Redis that the plan needs.
    pub(crate) fn topology(&self) -> Topology {
        match self.redis {
            Backing::Durable => Topology::Proxied,
            Backing::Forgetful => Topology::ProxiedForgetful,
            Backing::Sentinel => Topology::Sentinel,
            Backing::Cluster => Topology::Cluster(1),
        }
    }
}

impl Backing {
    pub(crate) fn name(self) -> &'static str {
        name_of(&BACKINGS, self)
    }

    pub(crate) fn named(name: &str) -> Result<Self> {
        named(&BACKINGS, name)
    }
}

impl Outage {
    pub(crate) fn name(self) -> &'static str {
        name_of(&OUTAGES, self)
    }
}

/// Chooses the value of an event.
fn value(of: Value, random: &mut Random, nodes: usize) -> i64 {
    let drawn = match of {
        Value::None => 0,
        Value::Node => random.below(nodes),
        Value::Age => steps(random, 200, 5000),
        Value::Step => return if random.below(2) == 0 { 60 } else { -60 },
    };
    i64::try_from(drawn).unwrap_or_default()
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let redis = self.redis.name();
        write!(
            f,
            "redis={redis} outage={} lease={}s",
            self.outage.name(),
            self.lease.as_secs_f64()
        )?;
        self.events.iter().try_for_each(|event| write!(f, " {event}"))
    }
}

impl FromStr for Plan {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut plan = Self {
            redis: Backing::Durable,
            outage: Outage::Reject,
            lease: LEASE,
            events: Vec::new(),
        };
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some(("redis", name)) => plan.redis = named(&BACKINGS, name)?,
                Some(("outage", name)) => plan.outage = named(&OUTAGES, name)?,
                Some(("lease", time)) => plan.lease = seconds(time)?,
                Some((name, _)) => bail!("a plan has no `{name}`"),
                None => plan.events.push(event(word).with_context(|| format!("in `{word}`"))?),
            }
        }
        ensure!(LEASES.contains(&plan.lease), "a lease is 1 to 30 seconds");
        ensure!(plan.events.len() <= EVENTS_LIMIT, "a plan has {EVENTS_LIMIT} events at most");
        for event in &plan.events {
            ensure!(event.kind.fits(plan.redis), "{} needs another Redis", event.kind.name);
        }
        Ok(plan)
    }
}

/// Reads an event.
fn event(word: &str) -> Result<Event> {
    let (word, value) =
        word.split_once('/').map_or((word, None), |(word, value)| (word, Some(value)));
    let (name, times) = word.split_once('@').context("an event is NAME@AT+LASTS/VALUE")?;
    let kind = find(KINDS, |kind| kind.name, ("", name))?;
    let (at, lasts) = times.split_once('+').unwrap_or((times, "0s"));
    let (at, lasts) = (seconds(at)?, seconds(lasts)?);
    ensure!(at + lasts <= LONGEST, "a plan takes {LONGEST:?} at most");
    let value = match (kind.value, value) {
        (Value::None, Some(_)) => bail!("{name} takes no value"),
        (Value::None, None) => 0,
        (Value::Node, value) => {
            i64::from(value.unwrap_or("0").parse::<u8>().context("no number of a node")?)
        }
        (Value::Age, value) => i64::try_from(seconds(value.unwrap_or("3s"))?.as_millis())?,
        (Value::Step, value) => {
            let text = value.unwrap_or("60s").trim_end_matches('s');
            i64::from(text.parse::<i16>().context("no number of seconds")?)
        }
    };
    Ok(Event { kind, at, lasts, value })
}

fn steps(random: &mut Random, least: usize, most: usize) -> usize {
    least + random.below((most - least) / STEP + 1) * STEP
}

fn seconds(text: &str) -> Result<Duration> {
    let count: f64 =
        text.trim_end_matches('s').parse().with_context(|| format!("`{text}` is no time"))?;
    ensure!((0.0..=LONGEST.as_secs_f64()).contains(&count), "`{text}` is not from 0 to 60 seconds");
    // Whole milliseconds, as in random plans.
    Ok(Duration::from_millis(Duration::from_secs_f64(count + 0.0005).as_millis().try_into()?))
}

fn named<T: Copy>(table: &[(&str, T)], name: &str) -> Result<T> {
    let names: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
    let found = table.iter().find(|(each, _)| *each == name);
    found
        .map(|(_, value)| *value)
        .with_context(|| format!("`{name}` is none of {}", names.join(", ")))
}

fn name_of<T: Copy + PartialEq>(table: &[(&'static str, T)], value: T) -> &'static str {
    table.iter().find(|(_, each)| *each == value).map_or("?", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_plan_is_read_from_its_own_text_and_drawn_again_from_its_seed() {
        for seed in 0..500 {
            let plan = Plan::random(seed, 3);
            assert_eq!(plan.to_string().parse::<Plan>().unwrap(), plan, "{plan}");
            assert_eq!(Plan::random(seed, 3), plan);
            assert!((EVENTS_MIN..=EVENTS_MAX).contains(&plan.events.len()));
        }
    }

    #[test]
    fn every_move_redis_and_setting_is_drawn() {
        let plans: Vec<Plan> = (0..500).map(|seed| Plan::random(seed, 3)).collect();
        let kinds: HashSet<&str> =
            plans.iter().flat_map(|plan| &plan.events).map(|event| event.kind.name).collect();
        assert_eq!(kinds.len(), KINDS.len());
        assert!(BACKINGS.iter().all(|(_, redis)| plans.iter().any(|plan| plan.redis == *redis)));
        assert!(OUTAGES.iter().all(|(_, outage)| plans.iter().any(|plan| plan.outage == *outage)));
    }

    #[test]
    fn what_is_no_plan_is_refused_with_what_there_is() {
        for (text, reason) in [
            ("redis=none", "`none` is none of durable"),
            ("kill_node", "NAME@AT"),
            ("kil_node@1s", "there is no `kil_node`; there are"),
            ("kill_node@1s/x", "number of a node"),
            ("redis_pause@1s/4", "takes no value"),
            ("redis_pause@99s", "not from 0 to 60"),
            ("redis_restart_older@1s", "needs another Redis"),
            ("speed=1", "has no `speed`"),
            ("lease=0s", "1 to 30"),
        ] {
            let err = format!("{:#}", text.parse::<Plan>().unwrap_err());
            assert!(err.contains(reason), "{text}: {err}");
        }
    }
}
