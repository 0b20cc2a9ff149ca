//! `abuse`: what hostile clients cost the others.
//!
//! Each flood hits a node that also has innocent clients, and before that another node on the same
//! machine: both figures contain what it takes from the machine, so their difference is what it
//! takes from the node.
//!
//! Reading order: [`run`] (a flood from start to end) → `innocents` (who must not notice) →
//! `floods` (who attacks) → `outcome`.

pub(crate) mod args;
mod floods;
mod innocents;
mod outcome;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::args::AbuseArgs;
use self::floods::{FLOODS, Flood};
use self::innocents::{Innocents, Phase};
use self::outcome::Outcome;
use crate::shared::args::find;
use crate::shared::gateway;
use crate::shared::node::{Counters, Node};
use crate::shared::redis::Redis;
use crate::shared::wait::{Interrupt, Stop};
use crate::shared::workspace::Workspace;
use crate::shared::{process, progress};

/// A node's memory budget for all clients; small, so that a flood reaches it.
const BUDGET: &str = "134217728";
/// Redis's memory limit.
const REDIS_MEMORY: &str = "64mb";
/// Descriptors of the floods, the innocents and both nodes' ends.
const FILES: usize = 6_000;
/// A node recovers within this time after a flood.
const RECOVERY: Duration = Duration::from_secs(5);
/// Time for the flood to build up, which is not measured.
const RISE: Duration = Duration::from_millis(500);
const MEMORY_LOOK: Duration = Duration::from_millis(50);

/// A node that is flooded, with the Redis that it needs.
struct Site {
    node: Node,
    _redis: Option<Redis>,
    _workspace: Workspace,
}

/// Runs the floods that were asked for and prints a table; returns whether nobody was harmed.
pub(crate) fn abuse(args: &AbuseArgs) -> Result<bool> {
    process::reserve_files(FILES)?;
    let interrupt = Interrupt::on_signals().context("cannot listen for signals")?;
    let floods = chosen(&args.flood)?;
    let mut outcomes = Vec::new();
    for flood in floods {
        progress::say(format!("{}: {}", flood.name, flood.what));
        let outcome = run(flood, args, &interrupt)
            .with_context(|| format!("{} could not be run", flood.name))?;
        progress::say(format!("{}: {}", flood.name, outcome.verdict()));
        outcomes.push((flood.name, outcome));
    }
    outcome::print(&outcomes)?;
    Ok(outcomes.iter().all(|(_, outcome)| outcome.faults.is_empty()))
}

fn chosen(names: &[String]) -> Result<Vec<&'static Flood>> {
    for name in names {
        find(FLOODS, |flood| flood.name, ("flood ", name))?;
    }
    let is_chosen =
        |flood: &&Flood| names.is_empty() || names.iter().any(|name| name == flood.name);
    Ok(FLOODS.iter().filter(is_chosen).collect())
}

/// Runs one flood: at another node, then at the node of the innocents; then checks that the node
/// recovers.
fn run(flood: &Flood, args: &AbuseArgs, interrupt: &Interrupt) -> Result<Outcome> {
    let directory = tempfile::tempdir().context("no temporary directory")?;
    let start = |name| {
        let workspace = Workspace::new(&directory.path().join(name), args.seed, interrupt)?;
        site(args, flood, workspace)
    };
    let (mut victim, mut other) = (start("victim")?, start("other")?);
    victim.node.wait_ready()?;
    other.node.wait_ready()?;
    let innocents = Innocents::start(victim.node.port)?;
    flood_at(&other, flood, args.time(), (&innocents, Phase::FloodElsewhere), interrupt)?;
    let before = counters(&victim)?;
    let peak = flood_at(&victim, flood, args.time(), (&innocents, Phase::FloodHere), interrupt)?;
    let after = counters(&victim)?;
    let recovered = innocents.all_is_well(&victim.node, RECOVERY, interrupt);
    let lives = victim.node.child.status()?.is_none();
    let seen = innocents.end();
    Ok(Outcome::judge(
        flood,
        args.short,
        (&seen, lives, recovered),
        peak,
        &changes(&before, &after),
    ))
}

fn site(args: &AbuseArgs, flood: &Flood, mut workspace: Workspace) -> Result<Site> {
    let mut settings: BTreeMap<String, String> = [
        ("GATECAST_LIMITS_MEMORY_BUDGET", BUDGET),
        // All clients are at loopback, where addresses have no limits by default.
        ("GATECAST_LIMITS_HANDSHAKE_RATE_PER_ADDRESS", "50"),
        ("GATECAST_LIMITS_CONNECTIONS_PER_ADDRESS", "2000"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let memory = ["--maxmemory", REDIS_MEMORY, "--maxmemory-policy", "noeviction"];
    let redis = flood.needs_redis.then(|| Redis::start(&mut workspace, &memory)).transpose()?;
    if let Some(redis) = &redis {
        settings.insert("GATECAST_REDIS_URL".to_owned(), redis.url());
    }
    settings.extend(args.set.iter().cloned());
    let node = Node::start(&args.gatecast, "node", &settings, &mut workspace)?;
    Ok(Site { node, _redis: redis, _workspace: workspace })
}

/// Floods a node for a time; returns the highest resident set, in bytes.
fn flood_at(
    site: &Site,
    flood: &Flood,
    time: Duration,
    (innocents, phase): (&Innocents, Phase),
    interrupt: &Interrupt,
) -> Result<u64> {
    let (stop, mut peak) = (Stop::default(), 0);
    let target = gateway::target(site.node.port);
    std::thread::scope(|scope| {
        let attackers: Vec<_> = (0..flood.attackers)
            .map(|nth| {
                let (stop, target) = (stop.clone(), target.clone());
                scope.spawn(move || (flood.attack)(&target, nth, &stop))
            })
            .collect();
        let watched = interrupt.sleep(RISE).and_then(|()| {
            innocents.enter(phase);
            let process = site.node.child.process();
            let until = std::time::Instant::now() + time;
            while std::time::Instant::now() < until {
                peak = peak.max(process.rss().unwrap_or(0));
                interrupt.sleep(MEMORY_LOOK)?;
            }
            innocents.enter(Phase::Calm);
            Ok(())
        });
        stop.stop();
        for attacker in attackers {
            if attacker.join().is_err() {
                bail!("an attacker panicked");
            }
        }
        watched
    })?;
    Ok(peak)
}

fn counters(site: &Site) -> Result<Counters> {
    site.node.counters().context("the node does not answer on its admin port")
}

/// Returns the counters of what was refused, dropped, cut or closed meanwhile.
fn changes(before: &Counters, after: &Counters) -> Vec<(String, u64)> {
    const TOLD: [&str; 9] =
        ["reject", "refus", "drop", "cut", "closed", "slow", "lost", "limited", "held"];
    let is_told =
        |name: &&str| name.contains("_total") && TOLD.iter().any(|word| name.contains(word));
    let change = |name: &str| (name.to_owned(), after.of(name).saturating_sub(before.of(name)));
    after.names().filter(is_told).map(change).filter(|(_, count)| *count > 0).collect()
}
