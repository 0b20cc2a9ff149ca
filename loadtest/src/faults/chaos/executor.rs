//! Executes the actions of a plan, and restarts nodes that end meanwhile.

use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::faults::backend::proxy::Mode;
use crate::faults::plan::Action;
use crate::faults::testbed::Testbed;
use crate::shared::progress;

/// A Sentinel that is busy with the last failover begins another within this time.
const FAIL_OVER_LIMIT: Duration = Duration::from_secs(8);

/// How long a node waits for an answer before it treats a connection as dead.
const FOUND_OUT: Duration = Duration::from_secs(2);

/// The time in which a node could not reach Redis, or was frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Isolation {
    pub(crate) node: usize,
    pub(crate) from: Duration,
    /// None while it lasts.
    pub(crate) to: Option<Duration>,
    /// The whole node was frozen.
    pub(crate) frozen: bool,
}

/// The end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) node: usize,
    pub(crate) at: Duration,
    /// None if a signal ended it.
    pub(crate) code: Option<i32>,
    /// How often it was asked to end.
    pub(crate) asked: u32,
    /// It was killed on purpose.
    pub(crate) killed: bool,
}

/// Executes actions, and notes what happened to nodes.
#[derive(Debug, Default)]
pub(crate) struct Executor {
    pub(crate) isolations: Vec<Isolation>,
    pub(crate) exits: Vec<Exit>,
    /// What was done to the present process of each node.
    asked: Vec<u32>,
    killed: Vec<bool>,
    /// Connections of commands whose answers are not awaited.
    told: Vec<TcpStream>,
}

impl Executor {
    pub(crate) fn new(nodes: usize) -> Self {
        Self { asked: vec![0; nodes], killed: vec![false; nodes], ..Self::default() }
    }

    /// Notes which nodes have ended, and restarts them.
    pub(crate) fn restart_ended(&mut self, testbed: &mut Testbed) -> Result<()> {
        let now = testbed.clients.clock.now();
        for (number, node) in testbed.nodes.iter_mut().enumerate() {
            let Some(status) = node.child.status()? else { continue };
            let asked = self.asked.get_mut(number).map(std::mem::take).unwrap_or_default();
            let killed = self.killed.get_mut(number).map(std::mem::take).unwrap_or_default();
            self.exits.push(Exit { node: number, at: now, code: status.code(), asked, killed });
            self.end_isolation(number, true, now);
            node.restart()?;
        }
        Ok(())
    }

    /// Executes one action, unless the process that it is for has ended.
    pub(crate) fn perform(&mut self, action: &Action, testbed: &mut Testbed) -> Result<()> {
        let now = testbed.clients.clock.now();
        match action {
            Action::KillNode(number) => {
                testbed.keep_counters(*number);
                *self.killed.get_mut(*number).context("no such node")? = true;
                drop(testbed.node(*number)?.child.signal(Signal::KILL));
            }
            Action::StopNode(number) => {
                testbed.keep_counters(*number);
                *self.asked.get_mut(*number).context("no such node")? += 1;
                drop(testbed.node(*number)?.child.signal(Signal::TERM));
            }
            Action::FreezeNode(number) => {
                testbed.keep_counters(*number);
                if testbed.node(*number)?.child.signal(Signal::STOP).is_ok() {
                    self.isolations.push(Isolation { node: *number, from: now, to: None, frozen: true });
                }
            }
            Action::WakeNode(number) => {
                drop(testbed.node(*number)?.child.signal(Signal::CONT));
                self.end_isolation(*number, true, now);
            }
            Action::Link(number, mode) => self.link(testbed, *number, *mode)?,
            Action::Links(mode) => {
                for number in 0..testbed.nodes.len() {
                    self.link(testbed, number, *mode)?;
                }
            }
            Action::Strand(number) => self.strand(testbed, *number)?,
            Action::FreezeRedis => signal_redis(testbed, Signal::STOP)?,
            Action::WakeRedis => signal_redis(testbed, Signal::CONT)?,
            Action::KillRedis => {
                let redis = testbed.backend.single()?;
                if redis.is_running() {
                    redis.kill()?;
                }
            }
            Action::StartRedis => start_redis(testbed, None)?,
            Action::StartRedisWith(name) => start_redis(testbed, Some(name))?,
            Action::Snapshot(name) => testbed.backend.single()?.snapshot(name)?,
            Action::Tell(words) => self.told.push(testbed.backend.single()?.tell(words)?),
            Action::Clock(seconds) => testbed.backend.single()?.set_clock(*seconds)?,
            Action::FailOver => {
                let Testbed { interrupt, backend, .. } = testbed;
                let sentinels = backend.sentinels()?;
                interrupt.eventually("a Sentinel fails over", FAIL_OVER_LIMIT, || {
                    sentinels.ask_to_fail_over().then_some(())
                })?;
            }
            Action::KillMaster => testbed.backend.kill_master()?,
            Action::Revive => testbed.backend.revive()?,
            Action::MoveSlots => drop(testbed.backend.cluster()?.move_busy_slots()?),
        }
        Ok(())
    }

    /// Ends all actions that still go on, so that the nodes can recover.
    pub(crate) fn end_all(&mut self, testbed: &mut Testbed) {
        let now = testbed.clients.clock.now();
        for number in 0..testbed.nodes.len() {
            if let Some(node) = testbed.nodes.get_mut(number) {
                // One that has ended is restarted by `restart_ended`.
                drop(node.child.signal(Signal::CONT));
            }
            self.end_isolation(number, true, now);
        }
    }

    fn link(&mut self, testbed: &Testbed, number: usize, mode: Mode) -> Result<()> {
        let now = testbed.clients.clock.now();
        testbed.backend.proxy(number)?.set(mode);
        self.end_isolation(number, false, now);
        if !matches!(mode, Mode::Pass | Mode::Slow) {
            self.isolations.push(Isolation { node: number, from: now, to: None, frozen: false });
        }
        Ok(())
    }

    fn strand(&mut self, testbed: &Testbed, number: usize) -> Result<()> {
        let now = testbed.clients.clock.now();
        testbed.backend.proxy(number)?.strand();
        self.isolations.push(Isolation { node: number, from: now, to: Some(now + FOUND_OUT), frozen: false });
        Ok(())
    }

    /// Notes that a node is no longer frozen, or no longer cut off.
    fn end_isolation(&mut self, number: usize, frozen: bool, now: Duration) {
        let open = |each: &&mut Isolation| each.node == number && each.frozen == frozen && each.to.is_none();
        self.isolations.iter_mut().filter(open).for_each(|each| each.to = Some(now));
    }
}

/// Signals a Redis, unless it is killed.
fn signal_redis(testbed: &mut Testbed, signal: Signal) -> Result<()> {
    drop(testbed.backend.single()?.child().and_then(|redis| redis.signal(signal)));
    Ok(())
}

/// Starts a Redis that was killed, with a snapshot or with what it has persisted.
fn start_redis(testbed: &mut Testbed, snapshot: Option<&String>) -> Result<()> {
    let redis = testbed.backend.single()?;
    if redis.is_running() {
        return Ok(());
    }
    if let Err(err) = redis.put_back(snapshot.map(String::as_str)) {
        progress::say(format!("{err:#}"));
    }
    redis.restart()
}
