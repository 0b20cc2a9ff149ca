//! `post`: what a post of the management API to one connection costs.
//!
//! Reading order: this file (the command) → `target` (sockets and their ids) → `round` (posts, and
//! where they arrive). Rule: a post counts when it is answered with 200; each must arrive at its
//! socket once, and nowhere else.

mod round;
mod target;

use anyhow::{Context, Result};

use self::round::Round;
pub(crate) use self::round::{Outcome, Plan};
pub(crate) use self::target::Posting;
use crate::bench::args::PostArgs;
use crate::bench::report::Report;
use crate::shared::process::Processes;
use crate::shared::progress::Steps;
use crate::shared::target::Target;

/// Measures posts; each client sends its next when the last is answered.
pub(crate) fn post(args: &PostArgs) -> Result<Report> {
    let PostArgs { target, post_url, connections, clients, repeat, .. } = args;
    let rounds = repeat.rounds;
    let sockets = target.resolve()?;
    let entrance = match post_url {
        None => sockets.clone(),
        Some(url) => {
            let rest =
                url.strip_prefix("http://").with_context(|| format!("`{url}` is not http://…"))?;
            Target::parse(&format!("ws://{rest}"), target.allow_remote)?
        }
    };
    let limit = repeat.limit();
    let (plan, key) = (Plan { posts: args.posts, bytes: args.bytes, limit }, args.key()?);
    let mut report = Report::new("post");
    report.set(format!(
        "{} posts of {} bytes to {connections} connections by {clients} clients, {}, {rounds} rounds; sockets at {}, posts to {}",
        plan.posts, plan.bytes, if key.is_some() { "signed" } else { "unsigned" }, sockets.authority, entrance.authority
    ));
    let work = if entrance.addr == sockets.addr { "posts, same node" } else { "posts, other node" };
    let signed = if key.is_some() { "signed " } else { "" };
    let work = format!("{signed}{work}, {clients} clients");
    let server = Processes::new(&target.pid);
    let name = entrance.authority.clone();
    let mut posting = Posting::open((&[sockets], *connections), (&entrance, *clients))?.signed(key);
    let mut steps = Steps::new(rounds);
    for round in 1..=rounds {
        steps.begin(&format!("round {round}, {work}"));
        measure(&mut posting, &plan, &server)?.add_to(&mut report, &work, &name);
        if report.has_faults() {
            break;
        }
    }
    posting.close()?;
    Ok(report)
}

/// Runs a plan, after a warm-up.
pub(crate) fn measure(posting: &mut Posting, plan: &Plan, server: &Processes) -> Result<Outcome> {
    let warm =
        Round::run(posting, &Plan { posts: plan.posts.div_ceil(10), ..plan.clone() }, server)?;
    let mut outcome = Round::run(posting, plan, server)?;
    outcome.faults.extend(warm.faults);
    Ok(outcome)
}
