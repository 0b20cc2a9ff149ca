//! Works of the management API, which only gatecast has.
//!
//! Rule: the CPU is that of all nodes together, so that a post that goes to another node is charged for both.

use std::slice;
use std::time::Duration;

use anyhow::Result;

use super::contest::Contest;
use crate::post::{self, Plan, Posting};
use crate::report::Report;
use crate::works::{GATECAST, POST_HERE, POST_THERE, Work};

/// Enough to keep a node busy.
const CLIENTS: usize = 16;
const POSTS: u32 = 20_000;
const LIMIT: Duration = Duration::from_secs(120);

/// A work, and whether the sockets are another node's than the one that is asked.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) work: &'static Work,
    is_away: bool,
}

pub(super) const CASES: &[Case] =
    &[Case { work: &POST_HERE, is_away: false }, Case { work: &POST_THERE, is_away: true }];

/// Measures a case; nothing for other servers, or where there are not several nodes.
///
/// # Errors
/// A node cannot be reached, or ends.
pub(super) fn run(contest: &Contest, case: &Case, name: &'static str, report: &mut Report) -> Result<()> {
    if name != GATECAST {
        return Ok(());
    }
    let Some(service) = contest.find(name, case.is_away) else { return Ok(()) };
    let (entrance, sockets) = match service.targets.as_slice() {
        [first, second, ..] if case.is_away => (first, second),
        [first, ..] if !case.is_away => (first, first),
        _ => return Ok(()),
    };
    let (_, n) = contest.scale.size(case.work);
    let plan = Plan { posts: contest.scale.messages(POSTS), bytes: case.work.bytes, limit: LIMIT };
    let mut posting = Posting::open((slice::from_ref(sockets), n), (entrance, CLIENTS))?;
    let outcome = post::measure(&mut posting, &plan, &service.processes)?;
    outcome.add_to(report, &contest.scale.name(case.work), name);
    posting.close()
}
