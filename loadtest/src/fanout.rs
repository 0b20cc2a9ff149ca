//! `fanout` and `groups`: one message to many connections, and what it costs the server.
//!
//! Rule: a lost, doubled, reordered or unreadable delivery fails the command, whatever the figures.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::cli::{FanoutArgs, GroupsArgs};
use crate::conn::Incoming;
use crate::fleet::{Fleet, Opening};
use crate::payload::{self, Template};
use crate::process::{self, Process};
use crate::progress;
use crate::relay::{self, Outcome, Plan};
use crate::report::Report;
use crate::target::Target;

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
    let template = Template::new(&args.message_template)?;
    let server = Process::new(args.target.pid);
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
    let mut fleet = Fleet::open(&target, args.connections, Opening::Handshake)?;
    run_rounds(&mut report, &mut fleet, (&target.authority, &plan, server, &template), args.load.rounds)?;
    fleet.close()?;
    Ok(report)
}

/// Measures messages to groups, each connection being a member of one.
///
/// # Errors
/// The server cannot be reached, refuses a join, or ends.
pub(crate) fn groups(args: &GroupsArgs) -> Result<Report> {
    let target = args.target.resolve()?;
    let template = Template::new(&args.message_template)?;
    let server = Process::new(args.target.pid);
    let mut plan = args.load.plan(args.groups, args.size, args.senders);
    plan.window = args.window;
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
    let mut fleet = Fleet::open(&target, n, Opening::Handshake)?;
    join_all(&mut fleet, args)?;
    run_rounds(&mut report, &mut fleet, (&target.authority, &plan, server, &template), args.load.rounds)?;
    fleet.close()?;
    Ok(report)
}

/// Opens connections, runs `plan` once as a broadcast, closes them.
///
/// # Errors
/// The server cannot be reached or ends.
pub(crate) fn measure_once(
    target: &Target,
    plan: &Plan,
    server: Process,
    template: &Template,
) -> Result<Outcome> {
    let mut fleet = Fleet::open(target, plan.group_size, Opening::Handshake)?;
    let outcome = measure(&mut fleet, plan, server, template)?;
    fleet.close()?;
    Ok(outcome)
}

/// Names a work in the table.
pub(crate) fn work_name(kind: &str, plan: &Plan) -> String {
    format!("{kind}, window {}", plan.window)
}

fn run_rounds(
    report: &mut Report,
    fleet: &mut Fleet,
    (name, plan, server, template): (&str, &Plan, Process, &Template),
    rounds: usize,
) -> Result<()> {
    let kind = if plan.groups == 1 { "fanout" } else { "groups" };
    for round in 1..=rounds {
        progress::say(format!("round {round}/{rounds}: {kind}"));
        report.add_outcome(&work_name(kind, plan), name, &measure(fleet, plan, server, template)?);
        if report.has_faults() {
            break;
        }
    }
    Ok(())
}

fn measure(fleet: &mut Fleet, plan: &Plan, server: Process, template: &Template) -> Result<Outcome> {
    let run = |fleet: &mut Fleet, plan: &Plan| {
        relay::run(fleet, plan, server, |fleet, post| {
            fleet.send_text(post.sender, &template.fill(post.group, post.payload))
        })
    };
    let warm = run(fleet, &plan.warm_up())?;
    let mut outcome = run(fleet, plan)?;
    outcome.faults.extend(warm.faults);
    Ok(outcome)
}

fn join_all(fleet: &mut Fleet, args: &GroupsArgs) -> Result<()> {
    let n = args.groups * args.size;
    let (mut asked, mut joined) = (0, 0);
    let mut refusal = None;
    let started = Instant::now();
    while joined < n {
        while asked < n && asked - joined < JOINS_UNDER_WAY {
            fleet.send_text(asked, &payload::with_group(&args.join_template, asked / args.size))?;
            asked += 1;
        }
        fleet.turn(TICK, &mut |conn, incoming| {
            let expected = payload::with_group(&args.join_reply, conn / args.size);
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
