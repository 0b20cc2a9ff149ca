//! Makes connections members of groups.
//!
//! Rule: a membership counts when the server has confirmed it.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::bench::dialect::Dialect;
use crate::bench::fleet::Fleet;
use crate::bench::relay::Plan;
use crate::shared::conn::Incoming;

/// No server that joins at all is slower than a thousand a second.
const LIMIT: Duration = Duration::from_secs(60);
const SLOWEST: f64 = 1000.0;
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
    // By connection: answers come in the order of the requests.
    let mut confirmed = vec![0; n];
    let limit = LIMIT + Duration::from_secs_f64(total as f64 / SLOWEST);
    let request = |nth: usize| (nth % n, dialect.join(group(nth % n, nth / n)));
    let mut answer = |conn: usize, incoming: &Incoming<'_>| {
        let Some(nth) = confirmed.get_mut(conn) else { return Ok(()) };
        let expected = dialect.join_reply(group(conn, *nth));
        match incoming {
            Incoming::Text(text) if *text == expected.as_bytes() => *nth += 1,
            other => bail!("join failed: connection {conn} expected `{expected}`, got {}", shown(other)),
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
