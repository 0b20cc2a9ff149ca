//! The actions of the faults, one function each, named as in the table.
//!
//! Rule: an action calls [`Testbed::over`] when the fault is over, or at once if it has no end; the
//! repair counts from then.

use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;

use crate::faults::backend::proxy::Mode;
use crate::faults::testbed::Testbed;

/// The node whose link to Redis fails.
const PROXIED: usize = 0;
/// A node that drains, or has lost its lease, ends within this time.
const EXIT_LIMIT: Duration = Duration::from_secs(15);
/// A dead node is noticed within two leases; its connections are ended within this time after that.
const REAPED: Duration = Duration::from_secs(3);
const EXIT_FENCED: i32 = 75;

/// Nothing happens.
pub(super) fn none(testbed: &mut Testbed) -> Result<()> {
    testbed.sleep(Duration::from_secs(1))?;
    testbed.over();
    Ok(())
}

/// A node is killed and restarted; its connections must be gone for all others once it is noticed.
pub(super) fn kill_node(testbed: &mut Testbed) -> Result<()> {
    let (began, expected_before, victim) =
        (testbed.clients.clock.now(), testbed.expected_closes, testbed.fullest());
    testbed.expect_closes(victim)?.child.kill()?;
    testbed.over();
    let expected_closes = testbed.expected_closes - expected_before;
    testbed.interrupt.eventually("the clients notice", EXIT_LIMIT, || {
        (testbed.clients.ended_since(began).len() as u64 >= expected_closes).then_some(())
    })?;
    let ids = testbed.clients.ended_since(began);
    testbed.wait_gone(victim, &ids, testbed.lease * 2 + REAPED)?;
    testbed.restart(victim)
}

/// A node is asked to end; it drains and exits with 0.
pub(super) fn stop_node(testbed: &mut Testbed) -> Result<()> {
    let victim = testbed.fullest();
    testbed.expect_closes(victim)?.child.signal(Signal::TERM)?;
    testbed.wait_exit(victim, 0, EXIT_LIMIT)?;
    testbed.over();
    testbed.restart(victim)
}

/// A node is frozen past its lease: it must notice, close its sockets, and end.
pub(super) fn pause_node(testbed: &mut Testbed) -> Result<()> {
    let victim = testbed.fullest();
    testbed.expect_closes(victim)?.child.signal(Signal::STOP)?;
    testbed.sleep(testbed.lease * 3)?;
    testbed.nodes.get_mut(victim).map_or(Ok(()), |node| node.child.signal(Signal::CONT))?;
    testbed.over();
    testbed.wait_exit(victim, EXIT_FENCED, EXIT_LIMIT)?;
    testbed.restart(victim)
}

/// Redis is killed and restarted; what it has persisted depends on how it was started.
pub(super) fn redis_restart(testbed: &mut Testbed) -> Result<()> {
    testbed.backend.single()?.kill()?;
    testbed.sleep(Duration::from_millis(500))?;
    testbed.backend.single()?.restart()?;
    testbed.over();
    Ok(())
}

/// Redis is killed and restarted with its state of half a second before, as after a failover to a
/// replica that lagged.
pub(super) fn redis_restart_stale(testbed: &mut Testbed) -> Result<()> {
    restart_from_snapshot(testbed, Duration::from_millis(500))
}

/// The same with a younger state: offsets pass the old ones before every node has looked.
pub(super) fn redis_restart_overtaken(testbed: &mut Testbed) -> Result<()> {
    restart_from_snapshot(testbed, Duration::from_millis(100))
}

/// Redis is frozen for longer than a node waits for an answer.
pub(super) fn redis_pause(testbed: &mut Testbed) -> Result<()> {
    testbed.backend.single()?.child()?.signal(Signal::STOP)?;
    testbed.sleep(Duration::from_secs(3))?;
    testbed.backend.single()?.child()?.signal(Signal::CONT)?;
    testbed.over();
    Ok(())
}

/// Redis has no memory left: it refuses writes, and executes everything else.
pub(super) fn redis_full(testbed: &mut Testbed) -> Result<()> {
    testbed.backend.single()?.ask::<String>(&["CONFIG", "SET", "maxmemory", "1"])?;
    testbed.sleep(Duration::from_secs(2))?;
    testbed.backend.single()?.ask::<String>(&["CONFIG", "SET", "maxmemory", "0"])?;
    testbed.over();
    Ok(())
}

/// One node cannot reach Redis; the others can.
pub(super) fn redis_cut_one_node(testbed: &mut Testbed) -> Result<()> {
    through_proxy(testbed, Mode::Cut, Duration::from_secs(3))
}

/// One node cannot reach Redis for long enough that the others take it for dead: it must notice,
/// and end.
pub(super) fn redis_cut_past_lease(testbed: &mut Testbed) -> Result<()> {
    testbed.expect_closes(PROXIED)?;
    through_proxy(testbed, Mode::Cut, testbed.lease * 3)?;
    testbed.wait_exit(PROXIED, EXIT_FENCED, EXIT_LIMIT)?;
    testbed.restart(PROXIED)
}

/// One node receives nothing from Redis, which receives what the node sends.
pub(super) fn redis_stall_one_way(testbed: &mut Testbed) -> Result<()> {
    through_proxy(testbed, Mode::HoldAnswers, Duration::from_secs(4))
}

/// Redis receives nothing from one node, which receives what Redis sends.
pub(super) fn redis_stall_other_way(testbed: &mut Testbed) -> Result<()> {
    through_proxy(testbed, Mode::HoldCommands, Duration::from_secs(4))
}

/// All connections for commands are cut, three times.
pub(super) fn kill_commands(testbed: &mut Testbed) -> Result<()> {
    for _ in 0..3 {
        testbed.backend.single()?.ask::<u64>(&["CLIENT", "KILL", "TYPE", "normal"])?;
        testbed.over();
        testbed.sleep(Duration::from_millis(200))?;
    }
    Ok(())
}

/// All subscriptions are cut, three times.
pub(super) fn kill_subscriptions(testbed: &mut Testbed) -> Result<()> {
    let nodes = testbed.nodes.len();
    for _ in 0..3 {
        let redis = testbed.backend.single()?;
        let killed: usize = redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"])?;
        ensure!(killed >= nodes, "only {killed} subscriptions were there to be cut");
        testbed.over();
        testbed.sleep(Duration::from_millis(200))?;
        let Testbed { interrupt, backend, .. } = testbed;
        let redis = backend.single()?;
        interrupt.eventually("the nodes subscribe again", EXIT_LIMIT, || {
            let list: String = redis.ask(&["CLIENT", "LIST", "TYPE", "pubsub"]).ok()?;
            (list.lines().count() >= nodes).then_some(())
        })?;
    }
    Ok(())
}

/// A replica is promoted by an orderly failover.
pub(super) fn sentinel_failover(testbed: &mut Testbed) -> Result<()> {
    testbed.backend.sentinels()?.fail_over()?;
    testbed.over();
    Ok(())
}

/// The master dies, and the Sentinels promote a replica.
pub(super) fn sentinel_kill_master(testbed: &mut Testbed) -> Result<()> {
    let dead = testbed.backend.sentinels()?.kill_master()?;
    testbed.over();
    testbed.backend.sentinels()?.wait_for_another(dead)
}

/// Slots that have channels or keys move to other masters.
pub(super) fn cluster_move_slots(testbed: &mut Testbed) -> Result<()> {
    let moved = testbed.backend.cluster()?.move_busy_slots()?;
    ensure!(moved > 0, "no slot had anything to move");
    testbed.over();
    Ok(())
}

/// A master dies, and its replica takes over.
pub(super) fn cluster_kill_master(testbed: &mut Testbed) -> Result<()> {
    let dead = testbed.backend.cluster()?.kill_busiest_master()?;
    testbed.over();
    testbed.backend.cluster()?.wait_whole_without(dead)
}

fn restart_from_snapshot(testbed: &mut Testbed, age: Duration) -> Result<()> {
    testbed.backend.single()?.ask::<String>(&["SAVE"])?;
    testbed.sleep(age)?;
    redis_restart(testbed)
}

fn through_proxy(testbed: &mut Testbed, mode: Mode, time: Duration) -> Result<()> {
    testbed.backend.proxy(PROXIED)?.set(mode);
    testbed.sleep(time)?;
    testbed.backend.proxy(PROXIED)?.set(Mode::Pass);
    testbed.over();
    Ok(())
}
