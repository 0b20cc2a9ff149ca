//! Lets connections join groups.
//!
//! Rule: a connection is a member once the server has confirmed it.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::bench::dialect::Dialect;
use crate::bench::fleet::Fleet;
use crate::bench::relay::Plan;
use crate::shared::conn::Incoming;

/// No server is slower than a thousand joins a second.
const LIMIT: Duration = Duration::from_secs(60);
const SLOWEST: f64 = 1000.0;
/// Connections that share the same groups.
const MEMBERS: usize = 50;

/// Lets each connection join its group of the plan.
pub(crate) fn by_plan(fleet: &mut Fleet, plan: &Plan, dialect: &Dialect) -> Result<()> {
    let size = plan.group_size;
    all(fleet, (plan.groups * size, 1), dialect, |conn, _| conn / size)
}

/// Lets each of `n` connections, numbered from `first`, join `groups` groups that it shares with
/// its neighbours.
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
    // By connection: answers come in the order of the requests.
    let mut confirmed = vec![0; n];
    let limit = LIMIT + Duration::from_secs_f64(total as f64 / SLOWEST);
    let request = |nth: usize| (nth % n, dialect.join(group(nth % n, nth / n)));
    let mut answer = |conn: usize, incoming: &Incoming<'_>| {
        let Some(nth) = confirmed.get_mut(conn) else { return Ok(()) };
        let expected = dialect.join_reply(group(conn, *nth));
        match incoming {
            Incoming::Text(text) if *text == expected.as_bytes() => *nth += 1,
            other => {
                bail!("join failed: connection {conn} expected `{expected}`, got {}", shown(other))
            }
        }
        Ok(())
    };
    fleet.ask_all((total, "joins were confirmed"), limit, request, &mut answer)
}

fn shown(incoming: &Incoming<'_>) -> String {
    match incoming {
        Incoming::Text(text) => format!("`{}`", String::from_utf8_lossy(text)),
        Incoming::Binary => "a binary message".to_owned(),
        Incoming::Opened | Incoming::Answer(_) => "something else".to_owned(),
        Incoming::Closed => "the end".to_owned(),
    }
}
