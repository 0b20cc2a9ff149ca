//! Makes connections members of groups.
//!
//! Rule: a membership counts when the server has confirmed it.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::bench::dialect::Dialect;
use crate::bench::fleet::Fleet;
use crate::bench::relay::Plan;
use crate::shared::conn::Incoming;

/// Joins under way at once, below what any server would take for abuse.
const UNDER_WAY: usize = 256;
/// No server that joins at all is slower than a thousand a second.
const LIMIT: Duration = Duration::from_secs(60);
const SLOWEST: f64 = 1000.0;
const TICK: Duration = Duration::from_millis(50);
/// Connections that have the same groups.
const MEMBERS: usize = 50;

/// Makes each connection a member of its group of the plan.
///
/// # Errors
/// The server refuses, or takes too long.
pub(crate) fn by_plan(fleet: &mut Fleet, plan: &Plan, dialect: &Dialect) -> Result<()> {
    let size = plan.group_size;
    all(fleet, (plan.groups * size, 1), dialect, |conn, _| conn / size)
}

/// Makes each of `n` connections, the first of which has the number `first`, a member of `groups` groups that it shares
/// with its neighbours.
///
/// # Errors
/// As [`by_plan`].
pub(crate) fn many_each(
    fleet: &mut Fleet,
    (first, n): (usize, usize),
    groups: usize,
    dialect: &Dialect,
) -> Result<()> {
    all(fleet, (n, groups), dialect, |conn, nth| (first + conn) / MEMBERS * groups + nth)
}

fn all(
    fleet: &mut Fleet,
    (n, each): (usize, usize),
    dialect: &Dialect,
    group: impl Fn(usize, usize) -> usize,
) -> Result<()> {
    let total = n * each;
    let (mut asked, mut joined) = (0, 0);
    // By connection: answers come in the order of the questions.
    let mut confirmed = vec![0; n];
    let mut refusal = None;
    let started = Instant::now();
    let limit = LIMIT + Duration::from_secs_f64(total as f64 / SLOWEST);
    while joined < total {
        while asked < total && asked - joined < UNDER_WAY {
            let (conn, nth) = (asked % n, asked / n);
            fleet.send_text(conn, &dialect.join(group(conn, nth)))?;
            asked += 1;
        }
        fleet.turn(TICK, &mut |conn, incoming| {
            let Some(nth) = confirmed.get_mut(conn) else { return };
            let expected = dialect.join_reply(group(conn, *nth));
            match incoming {
                Incoming::Text(text) if text == expected.as_bytes() => {
                    *nth += 1;
                    joined += 1;
                }
                other => {
                    refusal = Some(format!("connection {conn} expected `{expected}`, got {}", shown(&other)));
                }
            }
        })?;
        if let Some(refusal) = refusal.take() {
            bail!("join failed: {refusal}");
        }
        ensure!(started.elapsed() < limit, "only {joined} of {total} joins were confirmed in {limit:?}");
    }
    Ok(())
}

fn shown(incoming: &Incoming<'_>) -> String {
    match incoming {
        Incoming::Text(text) => format!("`{}`", String::from_utf8_lossy(text)),
        Incoming::Binary => "a binary message".to_owned(),
        Incoming::Opened | Incoming::Answer(_) => "something else".to_owned(),
        Incoming::Closed => "the end".to_owned(),
    }
}
