//! Executes the actions of a plan, and restarts nodes that end meanwhile.

use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::faults::backend::proxy::Mode;
use crate::faults::plan::Action;
use crate::faults::testbed::Testbed;
use crate::shared::redis::Redis;

/// Between two checks of the nodes.
pub(super) const LOOK: Duration = Duration::from_millis(20);
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
    /// As shells give it: 128 and the signal, if one ended it.
    pub(crate) code: i32,
    /// How often it was asked to end.
    pub(crate) asked: u32,
    /// It was killed on purpose.
    pub(crate) killed: bool,
}

/// An action that had an effect, and when.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) from: Duration,
    pub(crate) to: Duration,
    pub(crate) action: Action,
}

/// Executes actions, and notes what happened to nodes.
#[derive(Debug, Default)]
pub(crate) struct Executor {
    pub(crate) done: Vec<Done>,
    pub(crate) isolations: Vec<Isolation>,
    pub(crate) exits: Vec<Exit>,
    /// What was done to the present process of each node.
    asked: Vec<u32>,
    killed: Vec<bool>,
    is_redis_frozen: bool,
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
            let signal = || 128 + status.signal().unwrap_or_default();
            let code = status.code().unwrap_or_else(signal);
            self.exits.push(Exit { node: number, at: now, code, asked, killed });
            self.end_isolation(number, true, now);
            node.restart()?;
        }
        Ok(())
    }

    /// Executes one action, unless the process that it is for has ended; notes it if it had an
    /// effect.
    pub(crate) fn perform(&mut self, action: &Action, testbed: &mut Testbed) -> Result<()> {
        let from = testbed.clients.clock.now();
        if self.execute(action, testbed)? {
            self.done.push(Done { from, to: testbed.clients.clock.now(), action: action.clone() });
        }
        Ok(())
    }

    /// Returns whether the action had an effect.
    fn execute(&mut self, action: &Action, testbed: &mut Testbed) -> Result<bool> {
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
                    self.isolations.push(Isolation {
                        node: *number,
                        from: now,
                        to: None,
                        frozen: true,
                    });
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
            Action::FreezeRedis
            | Action::WakeRedis
            | Action::KillRedis
            | Action::Tell(_)
            | Action::Snapshot(_) => return self.affect(action, testbed.backend.single()?),
            Action::StartRedis => return start_redis(testbed, None),
            Action::StartRedisWith(name) => return start_redis(testbed, Some(name)),
            Action::Clock(seconds) => testbed.backend.single()?.set_clock(*seconds)?,
            Action::FailOver => {
                let fails_over =
                    |testbed: &mut Testbed| Ok(testbed.backend.sentinels()?.ask_to_fail_over());
                ensure!(self.wait(testbed, FAIL_OVER_LIMIT, fails_over)?, "no Sentinel fails over");
            }
            Action::KillMaster => return testbed.backend.kill_master(),
            Action::Revive => testbed.backend.revive()?,
            Action::MoveSlots => return Ok(testbed.backend.cluster()?.move_busy_slots()? > 0),
        }
        Ok(true)
    }

    /// Executes an action on a single Redis, unless that is killed.
    fn affect(&mut self, action: &Action, redis: &mut Redis) -> Result<bool> {
        if let Action::Snapshot(_) = action {
            ensure!(redis.is_running() && !self.is_redis_frozen, "Redis cannot make a snapshot");
        }
        if !redis.is_running() {
            return Ok(false);
        }
        match action {
            Action::Tell(words) => self.told.push(redis.tell(words)?),
            Action::Snapshot(name) => redis.snapshot(name)?,
            Action::FreezeRedis => redis.child()?.signal(Signal::STOP)?,
            Action::WakeRedis => redis.child()?.signal(Signal::CONT)?,
            _ => redis.kill()?,
        }
        if !matches!(action, Action::Tell(_)) {
            self.is_redis_frozen = *action == Action::FreezeRedis;
        }
        Ok(true)
    }

    /// Waits until `look` returns true, and restarts nodes that end meanwhile; returns false after
    /// `limit`.
    pub(crate) fn wait(
        &mut self,
        testbed: &mut Testbed,
        limit: Duration,
        mut look: impl FnMut(&mut Testbed) -> Result<bool>,
    ) -> Result<bool> {
        let until = testbed.clients.clock.now() + limit;
        loop {
            self.restart_ended(testbed)?;
            if look(testbed)? {
                return Ok(true);
            }
            if testbed.clients.clock.now() > until {
                return Ok(false);
            }
            testbed.sleep(LOOK)?;
        }
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
        self.isolations.push(Isolation {
            node: number,
            from: now,
            to: Some(now + FOUND_OUT),
            frozen: false,
        });
        Ok(())
    }

    /// Notes that a node is no longer frozen, or no longer cut off.
    fn end_isolation(&mut self, number: usize, frozen: bool, now: Duration) {
        let open = |each: &&mut Isolation| {
            each.node == number && each.frozen == frozen && each.to.is_none()
        };
        self.isolations.iter_mut().filter(open).for_each(|each| each.to = Some(now));
    }
}

/// Starts a Redis that was killed, with a snapshot or with what it has persisted; returns whether
/// it was killed.
fn start_redis(testbed: &mut Testbed, snapshot: Option<&String>) -> Result<bool> {
    let redis = testbed.backend.single()?;
    if redis.is_running() {
        return Ok(false);
    }
    redis.put_back(snapshot.map(String::as_str))?;
    redis.restart()?;
    Ok(true)
}
