//! `post`: what a post of the management API to one connection costs.
//!
//! Reading order: this file (the command) → `target` (sockets and their ids) → `round` (posts, and where they arrive).
//! Rule: a post counts when it was answered with 200; each must arrive at its socket, once, and nowhere else.

mod round;
mod target;

use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use self::round::Round;
pub(crate) use self::target::Posting;
use crate::bench::report::Report;
use crate::bench::works::{POST_CPU, POSTS};
use crate::cli::PostArgs;
use crate::shared::process::{Processes, Spent};
use crate::shared::progress::Steps;
use crate::shared::target::Target;

/// How many posts, and how.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) posts: u32,
    pub(crate) bytes: usize,
    /// A round that takes longer is cut, and has failed.
    pub(crate) limit: Duration,
}

/// What a round showed.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Those that were accepted.
    posts: u64,
    spent: Spent,
    /// Nanoseconds from sending to the answer.
    answered: Histogram<u64>,
    /// Nanoseconds from sending to the socket.
    arrived: Histogram<u64>,
    faults: Vec<String>,
}

/// Measures posts, each client sending its next when the last is answered.
///
/// # Errors
/// A server cannot be reached, does not tell ids, or ends.
pub(crate) fn post(args: &PostArgs) -> Result<Report> {
    let PostArgs { target, post_url, connections, clients, rounds, .. } = args;
    let sockets = target.resolve()?;
    let entrance = match post_url {
        None => sockets.clone(),
        Some(url) => {
            let rest = url.strip_prefix("http://").with_context(|| format!("`{url}` is not http://…"))?;
            Target::parse(&format!("ws://{rest}"), target.allow_remote)?
        }
    };
    let (plan, key) = (args.plan(), args.key()?);
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
    let mut steps = Steps::new(*rounds);
    for round in 1..=*rounds {
        steps.begin(&format!("round {round}, {work}"));
        measure(&mut posting, &plan, &server)?.add_to(&mut report, &work, &name);
        if report.has_faults() {
            break;
        }
    }
    posting.close()?;
    Ok(report)
}

/// Runs a plan once, after a tenth of it that does not count.
///
/// # Errors
/// The server ends.
pub(crate) fn measure(posting: &mut Posting, plan: &Plan, server: &Processes) -> Result<Outcome> {
    let warm = Round::run(posting, &Plan { posts: plan.posts.div_ceil(10), ..plan.clone() }, server)?;
    let mut outcome = Round::run(posting, plan, server)?;
    outcome.faults.extend(warm.faults);
    Ok(outcome)
}

impl Outcome {
    /// Adds the figures and faults to a report.
    pub(crate) fn add_to(&self, report: &mut Report, work: &str, name: &str) {
        let Self { posts, spent, answered, arrived, faults } = self;
        let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / (*posts).max(1) as f64;
        report.add(work, name, POSTS, *posts as f64 / spent.elapsed.as_secs_f64());
        report.add(work, name, POST_CPU, each(spent.server_cpu));
        if !spent.store_cpu.is_zero() {
            report.add(work, name, ("Redis CPU per post", "µs"), each(spent.store_cpu));
        }
        report.add(work, name, ("client CPU per post", "µs"), each(spent.client_cpu));
        report.add_histogram(work, name, answered);
        for (measure, quantile) in [("post to socket, p50", 0.5), ("post to socket, p99", 0.99)] {
            report.add(work, name, (measure, "µs"), arrived.value_at_quantile(quantile) as f64 / 1e3);
        }
        for fault in faults {
            report.fault(format!("{work}, {name}: {fault}"));
        }
    }
}
