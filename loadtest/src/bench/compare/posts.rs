//! Works of the management API, which only gatecast has.
//!
//! Rule: the CPU is that of all nodes together, so that a post that goes to another node is charged for both.

use std::slice;
use std::time::Duration;

use anyhow::Result;

use super::contest::Contest;
use crate::bench::post::{self, Plan, Posting};
use crate::bench::report::Report;
use crate::bench::sigv4::Key;
use crate::bench::works::{GATECAST, POST_HERE, POST_SIGNED, POST_THERE, Work};

/// Enough to keep a node busy.
const CLIENTS: usize = 16;
const POSTS: u32 = 20_000;
const LIMIT: Duration = Duration::from_secs(120);

/// A work, and whether the sockets are another node's than the one that is asked.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) work: &'static Work,
    is_away: bool,
    /// Whether the node has a key, and posts are signed with it.
    is_signed: bool,
}

pub(super) const CASES: &[Case] = &[
    Case { work: &POST_HERE, is_away: false, is_signed: false },
    Case { work: &POST_THERE, is_away: true, is_signed: false },
    Case { work: &POST_SIGNED, is_away: false, is_signed: true },
];

/// Measures a case; nothing for other servers, or where there are not several nodes.
///
/// # Errors
/// A node cannot be reached, or ends.
pub(super) fn run(contest: &mut Contest, case: &Case, name: &'static str, report: &mut Report) -> Result<()> {
    if name != GATECAST {
        return Ok(());
    }
    let key = case
        .is_signed
        .then(|| Key { id: "AKIDLOADTEST".to_owned(), secret: "known to both ends".to_owned() });
    let fresh = key.as_ref().map(|key| contest.start_with_key(key)).transpose()?;
    let Some(service) = fresh.as_ref().or_else(|| contest.find(name, case.is_away)) else { return Ok(()) };
    let (entrance, sockets) = match service.targets.as_slice() {
        [first, second, ..] if case.is_away => (first, second),
        [first, ..] if !case.is_away => (first, first),
        _ => return Ok(()),
    };
    let (_, n) = contest.scale.size(case.work);
    let plan = Plan { posts: contest.scale.messages(POSTS), bytes: case.work.bytes, limit: LIMIT };
    let mut posting = Posting::open((slice::from_ref(sockets), n), (entrance, CLIENTS))?.signed(key);
    let outcome = post::measure(&mut posting, &plan, &service.processes)?;
    outcome.add_to(report, &contest.scale.name(case.work), name);
    posting.close()
}
