//! `fanout` and `groups`: one message to many connections, and what it costs the server.
//!
//! Rule: a lost, doubled, reordered or unreadable delivery fails the command, whatever the figures.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::cli::{FanoutArgs, GroupsArgs};
use crate::conn::Incoming;
use crate::dialect::Dialect;
use crate::fleet::{Fleet, Opening};
use crate::process::{self, Processes};
use crate::progress;
use crate::relay::{self, Audience, Outcome, Plan};
use crate::report::Report;

/// Joins under way at once, below what any server would take for abuse.
const JOINS_UNDER_WAY: usize = 256;
const JOIN_LIMIT: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(50);

/// Measures broadcasts to every connection.
///
/// # Errors
/// The server cannot be reached or ends.
pub(crate) fn fanout(args: &FanoutArgs) -> Result<Report> {
    let target = args.target.resolve()?;
    let dialect = args.dialect.to_everybody()?;
    let server = Processes::single(args.target.pid);
    let mut plan = args.load.plan(1, args.connections, args.senders);
    plan.window = args.window;
    process::reserve_files(args.connections)?;

    let mut report = Report::new("fanout");
    report.set(format!(
        "{}, window {}, {} senders, {}",
        args.load.describe(args.connections),
        plan.window,
        plan.senders,
        args.target.url
    ));
    let server_name = target.authority.clone();
    let mut fleet = Fleet::open(&[target], args.connections, Opening::Handshake(dialect.envelope()))?;
    run_rounds(&mut report, &mut fleet, (&server_name, &plan, &server, &dialect), args.load.rounds)?;
    fleet.close()?;
    Ok(report)
}

/// Measures messages to groups, each connection being a member of one.
///
/// # Errors
/// The server cannot be reached, refuses a join, or ends.
pub(crate) fn groups(args: &GroupsArgs) -> Result<Report> {
    let target = args.target.resolve()?;
    let dialect = args.dialect()?;
    let server = Processes::single(args.target.pid);
    let mut plan = args.load.plan(args.groups, args.size, args.senders);
    plan.window = args.window;
    plan.audience = Audience::Group;
    let n = args.groups * args.size;
    process::reserve_files(n)?;

    let mut report = Report::new("groups");
    report.set(format!(
        "{}, in {} groups of {}, window {}, {} senders a group, {}",
        args.load.describe(n),
        args.groups,
        args.size,
        plan.window,
        plan.senders,
        args.target.url
    ));
    let server_name = target.authority.clone();
    let mut fleet = Fleet::open(&[target], n, Opening::Handshake(dialect.envelope()))?;
    join_all(&mut fleet, &plan, &dialect)?;
    run_rounds(&mut report, &mut fleet, (&server_name, &plan, &server, &dialect), args.load.rounds)?;
    fleet.close()?;
    Ok(report)
}

/// Names a work in the table.
pub(crate) fn work_name(kind: &str, plan: &Plan) -> String {
    format!("{kind}, window {}", plan.window)
}

fn run_rounds(
    report: &mut Report,
    fleet: &mut Fleet,
    (name, plan, server, dialect): (&str, &Plan, &Processes, &Dialect),
    rounds: usize,
) -> Result<()> {
    let kind = match plan.audience {
        Audience::Everybody => "fanout",
        Audience::Group => "groups",
    };
    for round in 1..=rounds {
        progress::say(format!("round {round}/{rounds}: {kind}"));
        report.add_outcome(&work_name(kind, plan), name, &measure(fleet, plan, server, dialect)?);
        if report.has_faults() {
            break;
        }
    }
    Ok(())
}

/// Runs a plan once over open connections, after a tenth of it that does not count.
///
/// # Errors
/// The server ends.
pub(crate) fn measure(
    fleet: &mut Fleet,
    plan: &Plan,
    server: &Processes,
    dialect: &Dialect,
) -> Result<Outcome> {
    let run = |fleet: &mut Fleet, plan: &Plan| {
        relay::run(fleet, plan, server, |fleet, post| {
            let text = match plan.audience {
                Audience::Everybody => dialect.message(post.payload),
                Audience::Group => dialect.group_message(post.group, post.payload),
            };
            fleet.send_text(post.sender, &text)
        })
    };
    let warm = run(fleet, &plan.warm_up())?;
    let mut outcome = run(fleet, plan)?;
    outcome.faults.extend(warm.faults);
    Ok(outcome)
}

/// Makes each connection a member of its group of the plan.
///
/// # Errors
/// The server refuses, or takes too long.
pub(crate) fn join_all(fleet: &mut Fleet, plan: &Plan, dialect: &Dialect) -> Result<()> {
    let (n, size) = (plan.groups * plan.group_size, plan.group_size);
    let (mut asked, mut joined) = (0, 0);
    let mut refusal = None;
    let started = Instant::now();
    while joined < n {
        while asked < n && asked - joined < JOINS_UNDER_WAY {
            fleet.send_text(asked, &dialect.join(asked / size))?;
            asked += 1;
        }
        fleet.turn(TICK, &mut |conn, incoming| {
            let expected = dialect.join_reply(conn / size);
            match incoming {
                Incoming::Text(text) if text == expected.as_bytes() => joined += 1,
                other => {
                    refusal = Some(format!("connection {conn} expected `{expected}`, got {}", shown(&other)));
                }
            }
        })?;
        if let Some(refusal) = refusal.take() {
            anyhow::bail!("join failed: {refusal}");
        }
        ensure!(
            started.elapsed() < JOIN_LIMIT,
            "only {joined} of {n} joins were confirmed in {JOIN_LIMIT:?}"
        );
    }
    Ok(())
}

fn shown(incoming: &Incoming<'_>) -> String {
    match incoming {
        Incoming::Text(text) => format!("`{}`", String::from_utf8_lossy(text)),
        Incoming::Binary => "a binary message".to_owned(),
        Incoming::Closed => "the end".to_owned(),
    }
}
