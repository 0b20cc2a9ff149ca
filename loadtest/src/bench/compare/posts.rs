//! Works of the management API, which only gatecast has.
//!
//! Rule: CPU is that of all nodes together, so that a post to another node is charged for both.

use std::slice;
use std::time::Duration;

use anyhow::Result;

use super::participants::Participants;
use crate::bench::post::{self, Plan, Posting};
use crate::bench::report::Report;
use crate::bench::sigv4::Key;
use crate::bench::works::{GATECAST, POST_HERE, POST_SIGNED, POST_THERE, Work};

/// Enough to keep a node busy.
const CLIENTS: usize = 16;
const POSTS: u32 = 20_000;
const LIMIT: Duration = Duration::from_secs(120);

/// A work, and whether the sockets are at another node than the one that is posted to.
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

/// Measures a case, if the server is gatecast and has enough nodes.
pub(super) fn run(
    participants: &mut Participants,
    case: &Case,
    name: &'static str,
    report: &mut Report,
) -> Result<()> {
    if name != GATECAST {
        return Ok(());
    }
    let key = case
        .is_signed
        .then(|| Key { id: "AKIDLOADTEST".to_owned(), secret: "known to both ends".to_owned() });
    let fresh = key.as_ref().map(|key| participants.start_with_key(key)).transpose()?;
    let Some(service) = fresh.as_ref().or_else(|| participants.find(name, case.is_away)) else {
        return Ok(());
    };
    let (entrance, sockets) = match service.targets.as_slice() {
        [first, second, ..] if case.is_away => (first, second),
        [first, ..] if !case.is_away => (first, first),
        _ => return Ok(()),
    };
    let (_, n) = participants.scale.size(case.work);
    let plan =
        Plan { posts: participants.scale.messages(POSTS), bytes: case.work.bytes, limit: LIMIT };
    let mut posting =
        Posting::open((slice::from_ref(sockets), n), (entrance, CLIENTS))?.signed(key);
    let outcome = post::measure(&mut posting, &plan, &service.processes)?;
    outcome.add_to(report, &participants.scale.name(case.work), name);
    posting.close()
}
