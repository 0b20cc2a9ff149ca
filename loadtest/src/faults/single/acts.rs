//! What each fault does: one function each, named as in the table.
//!
//! Rule: a fault calls [`Scene::over`] when it is over, or at once where it has no end; time to repair counts from there.

use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;

use crate::faults::backend::proxy::Mode;
use crate::faults::scene::Scene;

/// The node whose proxy it is.
const PROXIED: usize = 0;
/// A node that drains, or finds itself dead, ends in this time.
const EXIT_LIMIT: Duration = Duration::from_secs(15);
/// Beyond two leases, in which it is found, a dead node's connections are ended in this time.
const REAPED: Duration = Duration::from_secs(3);
const EXIT_FENCED: i32 = 75;

/// Nothing happens.
pub(super) fn none(scene: &mut Scene) -> Result<()> {
    scene.hold(Duration::from_secs(1))?;
    scene.over();
    Ok(())
}

/// A node is killed; another takes its place. Its connections must be gone for all others once it is found dead.
pub(super) fn kill_node(scene: &mut Scene) -> Result<()> {
    let (began, doomed_before, victim) = (scene.clients.clock.now(), scene.doomed, scene.fullest());
    scene.doom(victim)?.child.kill()?;
    scene.over();
    let doomed = scene.doomed - doomed_before;
    scene.interrupt.eventually("the clients notice", EXIT_LIMIT, || {
        (scene.clients.ended_since(began).len() as u64 >= doomed).then_some(())
    })?;
    let ids = scene.clients.ended_since(began);
    scene.wait_gone(victim, &ids, scene.lease * 2 + REAPED)?;
    scene.restart(victim)
}

/// A node is asked to end; it hands its clients over and ends well.
pub(super) fn stop_node(scene: &mut Scene) -> Result<()> {
    let victim = scene.fullest();
    scene.doom(victim)?.child.signal(Signal::TERM)?;
    scene.wait_exit(victim, 0, EXIT_LIMIT)?;
    scene.over();
    scene.restart(victim)
}

/// A node is frozen past its lease: it must find itself dead, close its sockets, and end.
pub(super) fn pause_node(scene: &mut Scene) -> Result<()> {
    let victim = scene.fullest();
    scene.doom(victim)?.child.signal(Signal::STOP)?;
    scene.hold(scene.lease * 3)?;
    scene.nodes.get_mut(victim).map_or(Ok(()), |node| node.child.signal(Signal::CONT))?;
    scene.over();
    scene.wait_exit(victim, EXIT_FENCED, EXIT_LIMIT)?;
    scene.restart(victim)
}

/// Redis is killed and comes back; what it keeps depends on how it was started.
pub(super) fn redis_restart(scene: &mut Scene) -> Result<()> {
    scene.backend.single()?.kill()?;
    scene.hold(Duration::from_millis(500))?;
    scene.backend.single()?.restart()?;
    scene.over();
    Ok(())
}

/// Redis is killed and comes back as it was half a second before, as a replica does that lagged behind.
pub(super) fn redis_restart_stale(scene: &mut Scene) -> Result<()> {
    restart_from_snapshot(scene, Duration::from_millis(500))
}

/// The same, but so little behind that its count has passed where it was before every node looks.
pub(super) fn redis_restart_overtaken(scene: &mut Scene) -> Result<()> {
    restart_from_snapshot(scene, Duration::from_millis(100))
}

/// Redis is frozen for longer than a node waits for an answer.
pub(super) fn redis_pause(scene: &mut Scene) -> Result<()> {
    scene.backend.single()?.child()?.signal(Signal::STOP)?;
    scene.hold(Duration::from_secs(3))?;
    scene.backend.single()?.child()?.signal(Signal::CONT)?;
    scene.over();
    Ok(())
}

/// Redis has no memory left: it refuses what writes, and does the rest.
pub(super) fn redis_full(scene: &mut Scene) -> Result<()> {
    scene.backend.single()?.ask::<String>(&["CONFIG", "SET", "maxmemory", "1"])?;
    scene.hold(Duration::from_secs(2))?;
    scene.backend.single()?.ask::<String>(&["CONFIG", "SET", "maxmemory", "0"])?;
    scene.over();
    Ok(())
}

/// One node has no connection to Redis; the others have.
pub(super) fn redis_cut_one_node(scene: &mut Scene) -> Result<()> {
    through_proxy(scene, Mode::Cut, Duration::from_secs(3))
}

/// One node has no connection to Redis for so long that the others take it for dead: it must find out, and end.
pub(super) fn redis_cut_past_lease(scene: &mut Scene) -> Result<()> {
    scene.doom(PROXIED)?;
    through_proxy(scene, Mode::Cut, scene.lease * 3)?;
    scene.wait_exit(PROXIED, EXIT_FENCED, EXIT_LIMIT)?;
    scene.restart(PROXIED)
}

/// One node hears nothing of Redis, which hears the node.
pub(super) fn redis_stall_one_way(scene: &mut Scene) -> Result<()> {
    through_proxy(scene, Mode::HoldAnswers, Duration::from_secs(4))
}

/// Redis hears nothing of one node, which hears Redis.
pub(super) fn redis_stall_other_way(scene: &mut Scene) -> Result<()> {
    through_proxy(scene, Mode::HoldCommands, Duration::from_secs(4))
}

/// All connections for commands are cut, three times.
pub(super) fn kill_commands(scene: &mut Scene) -> Result<()> {
    for _ in 0..3 {
        scene.backend.single()?.ask::<u64>(&["CLIENT", "KILL", "TYPE", "normal"])?;
        scene.over();
        scene.hold(Duration::from_millis(200))?;
    }
    Ok(())
}

/// All subscriptions are cut, three times.
pub(super) fn kill_subscriptions(scene: &mut Scene) -> Result<()> {
    let nodes = scene.nodes.len();
    for _ in 0..3 {
        let redis = scene.backend.single()?;
        let killed: usize = redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"])?;
        ensure!(killed >= nodes, "only {killed} subscriptions were there to be cut");
        scene.over();
        scene.hold(Duration::from_millis(200))?;
        let Scene { interrupt, backend, .. } = scene;
        let redis = backend.single()?;
        interrupt.eventually("the nodes subscribe again", EXIT_LIMIT, || {
            let list: String = redis.ask(&["CLIENT", "LIST", "TYPE", "pubsub"]).ok()?;
            (list.lines().count() >= nodes).then_some(())
        })?;
    }
    Ok(())
}

/// A replica is promoted in good order.
pub(super) fn sentinel_failover(scene: &mut Scene) -> Result<()> {
    scene.backend.sentinels()?.fail_over()?;
    scene.over();
    Ok(())
}

/// The master dies, and the Sentinels promote a replica.
pub(super) fn sentinel_kill_master(scene: &mut Scene) -> Result<()> {
    let dead = scene.backend.sentinels()?.kill_master()?;
    scene.over();
    scene.backend.sentinels()?.wait_for_another(dead)
}

/// Slots that carry channels and keys move to other masters.
pub(super) fn cluster_move_slots(scene: &mut Scene) -> Result<()> {
    let moved = scene.backend.cluster()?.move_busy_slots()?;
    ensure!(moved > 0, "no slot had anything to move");
    scene.over();
    Ok(())
}

/// A master dies, and its replica takes over.
pub(super) fn cluster_kill_master(scene: &mut Scene) -> Result<()> {
    let dead = scene.backend.cluster()?.kill_busiest_master()?;
    scene.over();
    scene.backend.cluster()?.wait_whole_without(dead)
}

fn restart_from_snapshot(scene: &mut Scene, age: Duration) -> Result<()> {
    scene.backend.single()?.ask::<String>(&["SAVE"])?;
    scene.hold(age)?;
    redis_restart(scene)
}

fn through_proxy(scene: &mut Scene, mode: Mode, time: Duration) -> Result<()> {
    scene.backend.proxy(PROXIED)?.set(mode);
    scene.hold(time)?;
    scene.backend.proxy(PROXIED)?.set(Mode::Pass);
    scene.over();
    Ok(())
}
