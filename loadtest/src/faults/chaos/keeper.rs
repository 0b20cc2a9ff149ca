//! Does the acts of a plan, and looks after the nodes meanwhile: whoever ends is noted and started again.

use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::faults::backend::Backend;
use crate::faults::backend::proxy::Mode;
use crate::faults::plan::Act;
use crate::faults::scene::Scene;
use crate::shared::progress;

/// A Sentinel that is busy with the last failover begins another within this time.
const FAIL_OVER_LIMIT: Duration = Duration::from_secs(8);

/// A node waits so long for an answer before it finds out that nobody is there.
const FOUND_OUT: Duration = Duration::from_secs(2);

/// When a node could not reach Redis, or do anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Apart {
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
    /// None where a signal ended it.
    pub(crate) code: Option<i32>,
    /// How often it was asked to end.
    pub(crate) asked: u32,
    /// It was killed on purpose.
    pub(crate) killed: bool,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    pub(crate) apart: Vec<Apart>,
    pub(crate) exits: Vec<Exit>,
    /// What the present process of each node was done to.
    asked: Vec<u32>,
    killed: Vec<bool>,
    /// Connections of commands that nobody waits for.
    told: Vec<TcpStream>,
}

impl Keeper {
    pub(crate) fn new(nodes: usize) -> Self {
        Self { asked: vec![0; nodes], killed: vec![false; nodes], ..Self::default() }
    }

    /// Notes which nodes have ended, and starts them again.
    ///
    /// # Errors
    /// A node cannot be started.
    pub(crate) fn tend(&mut self, scene: &mut Scene) -> Result<()> {
        let now = scene.clients.clock.now();
        for (number, node) in scene.nodes.iter_mut().enumerate() {
            let Some(status) = node.child.status()? else { continue };
            let asked = self.asked.get_mut(number).map(std::mem::take).unwrap_or_default();
            let killed = self.killed.get_mut(number).map(std::mem::take).unwrap_or_default();
            self.exits.push(Exit { node: number, at: now, code: status.code(), asked, killed });
            self.rejoin(number, true, now);
            node.restart()?;
        }
        Ok(())
    }

    /// Does one act. What it is to be done to may have ended already: then there is nothing to do.
    ///
    /// # Errors
    /// It cannot be done.
    pub(crate) fn perform(&mut self, act: &Act, scene: &mut Scene) -> Result<()> {
        let now = scene.clients.clock.now();
        match act {
            Act::KillNode(number) => {
                scene.forget(*number);
                *self.killed.get_mut(*number).context("no such node")? = true;
                drop(scene.node(*number)?.child.signal(Signal::KILL));
            }
            Act::StopNode(number) => {
                scene.forget(*number);
                *self.asked.get_mut(*number).context("no such node")? += 1;
                drop(scene.node(*number)?.child.signal(Signal::TERM));
            }
            Act::FreezeNode(number) => {
                scene.forget(*number);
                if scene.node(*number)?.child.signal(Signal::STOP).is_ok() {
                    self.apart.push(Apart { node: *number, from: now, to: None, frozen: true });
                }
            }
            Act::WakeNode(number) => {
                drop(scene.node(*number)?.child.signal(Signal::CONT));
                self.rejoin(*number, true, now);
            }
            Act::Link(number, mode) => self.link(scene, *number, *mode)?,
            Act::Links(mode) => (0..scene.nodes.len()).try_for_each(|each| self.link(scene, each, *mode))?,
            Act::Strand(number) => self.strand(scene, *number)?,
            Act::FreezeRedis => signal_redis(scene, Signal::STOP)?,
            Act::WakeRedis => signal_redis(scene, Signal::CONT)?,
            Act::KillRedis => {
                let redis = scene.backend.single()?;
                if redis.is_running() {
                    redis.kill()?;
                }
            }
            Act::StartRedis => start_redis(scene, None)?,
            Act::StartRedisWith(name) => start_redis(scene, Some(name))?,
            Act::Snapshot(name) => scene.backend.single()?.snapshot(name)?,
            Act::Tell(words) => self.told.push(scene.backend.single()?.tell(words)?),
            Act::Clock(seconds) => scene.backend.single()?.set_clock(*seconds)?,
            Act::FailOver => {
                let Scene { interrupt, backend, .. } = scene;
                let sentinels = backend.sentinels()?;
                interrupt.eventually("a Sentinel fails over", FAIL_OVER_LIMIT, || {
                    sentinels.ask_to_fail_over().then_some(())
                })?;
            }
            Act::KillMaster => match &mut scene.backend {
                Backend::Sentinels(sentinels) => drop(sentinels.kill_master()?),
                Backend::Cluster(cluster) => drop(cluster.kill_busiest_master()?),
                Backend::Single(..) => {}
            },
            Act::Revive => match &mut scene.backend {
                Backend::Sentinels(sentinels) => sentinels.revive()?,
                Backend::Cluster(cluster) => cluster.revive()?,
                Backend::Single(..) => {}
            },
            Act::MoveSlots => drop(scene.backend.cluster()?.move_busy_slots()?),
        }
        Ok(())
    }

    /// Ends whatever may still be going on, so that the nodes can come to themselves.
    pub(crate) fn relent(&mut self, scene: &mut Scene) {
        let now = scene.clients.clock.now();
        for number in 0..scene.nodes.len() {
            if let Some(node) = scene.nodes.get_mut(number) {
                // One that has ended is started by `tend`.
                drop(node.child.signal(Signal::CONT));
            }
            self.rejoin(number, true, now);
        }
    }

    fn link(&mut self, scene: &Scene, number: usize, mode: Mode) -> Result<()> {
        let now = scene.clients.clock.now();
        scene.backend.proxy(number)?.set(mode);
        self.rejoin(number, false, now);
        if !matches!(mode, Mode::Pass | Mode::Slow) {
            self.apart.push(Apart { node: number, from: now, to: None, frozen: false });
        }
        Ok(())
    }

    fn strand(&mut self, scene: &Scene, number: usize) -> Result<()> {
        let now = scene.clients.clock.now();
        scene.backend.proxy(number)?.strand();
        self.apart.push(Apart { node: number, from: now, to: Some(now + FOUND_OUT), frozen: false });
        Ok(())
    }

    /// Notes that a node is no longer frozen, or, where that is not asked for, no longer cut off.
    fn rejoin(&mut self, number: usize, frozen: bool, now: Duration) {
        let open = |each: &&mut Apart| each.node == number && each.frozen == frozen && each.to.is_none();
        self.apart.iter_mut().filter(open).for_each(|each| each.to = Some(now));
    }
}

/// Signals a Redis, unless it is killed.
fn signal_redis(scene: &mut Scene, signal: Signal) -> Result<()> {
    drop(scene.backend.single()?.child().and_then(|redis| redis.signal(signal)));
    Ok(())
}

/// Starts a Redis that was killed with what it kept itself, or with a snapshot.
fn start_redis(scene: &mut Scene, snapshot: Option<&String>) -> Result<()> {
    let redis = scene.backend.single()?;
    if redis.is_running() {
        return Ok(());
    }
    if let Err(err) = redis.put_back(snapshot.map(String::as_str)) {
        progress::say(format!("{err:#}"));
    }
    redis.restart()
}
