//! `fanout`, `flood` and `groups`: one message to many connections, and what it costs the server.
//!
//! Rule: a lost, doubled, reordered or unreadable delivery fails the command.

use anyhow::Result;

use crate::bench::args::{BroadcastArgs, FanoutArgs, FloodArgs, GroupsArgs};
use crate::bench::dialect::Dialect;
use crate::bench::fleet::{Fleet, Opening};
use crate::bench::join;
use crate::bench::outcome::Outcome;
use crate::bench::relay::{self, Audience, Plan, Share};
use crate::bench::report::Report;
use crate::shared::process::{self, Processes};
use crate::shared::progress;

/// Messages under way in a flood.
const FLOOD_WINDOW: u32 = 32;

/// Measures broadcasts to every connection.
pub(crate) fn fanout(args: &FanoutArgs) -> Result<Report> {
    broadcasts("fanout", &args.broadcast, args.window)
}

/// Measures broadcasts with many messages under way.
pub(crate) fn flood(args: &FloodArgs) -> Result<Report> {
    broadcasts("flood", &args.broadcast, FLOOD_WINDOW)
}

/// Measures messages to groups; each connection is in one.
pub(crate) fn groups(args: &GroupsArgs) -> Result<Report> {
    let target = args.target.resolve()?;
    let dialect = args.dialect()?;
    let server = Processes::new(&args.target.pid);
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
    join::by_plan(&mut fleet, &plan, &dialect)?;
    run_rounds(
        "groups",
        (&mut report, &mut fleet),
        (&server_name, &plan, &server, &dialect),
        args.load.repeat.rounds,
    )?;
    fleet.close()?;
    Ok(report)
}

fn broadcasts(kind: &str, args: &BroadcastArgs, window: u32) -> Result<Report> {
    let target = args.target.resolve()?;
    let dialect = args.dialect.to_everybody()?;
    let server = Processes::new(&args.target.pid);
    let plan = Plan { window, ..args.load.plan(1, args.connections, args.senders) };
    process::reserve_files(args.connections)?;

    let mut report = Report::new(kind);
    report.set(format!(
        "{}, window {window}, {} senders, {}",
        args.load.describe(args.connections),
        plan.senders,
        args.target.url
    ));
    let server_name = target.authority.clone();
    let mut fleet =
        Fleet::open(&[target], args.connections, Opening::Handshake(dialect.envelope()))?;
    run_rounds(
        kind,
        (&mut report, &mut fleet),
        (&server_name, &plan, &server, &dialect),
        args.load.repeat.rounds,
    )?;
    fleet.close()?;
    Ok(report)
}

fn run_rounds(
    kind: &str,
    (report, fleet): (&mut Report, &mut Fleet),
    (name, plan, server, dialect): (&str, &Plan, &Processes, &Dialect),
    rounds: usize,
) -> Result<()> {
    let work = format!("{kind}, window {}", plan.window);
    for round in 1..=rounds {
        progress::say(format!("round {round}/{rounds}: {kind}"));
        report.add_outcome(&work, name, &measure(fleet, plan, server, dialect)?);
        if report.has_faults() {
            break;
        }
    }
    Ok(())
}

/// Runs a plan over open connections, after a warm-up.
pub(crate) fn measure(
    fleet: &mut Fleet,
    plan: &Plan,
    server: &Processes,
    dialect: &Dialect,
) -> Result<Outcome> {
    relay::run_after_warm_up(plan, |plan| send((fleet, dialect), plan, Share::whole(plan), server))
}

/// Sends a share of a plan in the server's dialect.
pub(crate) fn send(
    (fleet, dialect): (&mut Fleet, &Dialect),
    plan: &Plan,
    share: Share,
    server: &Processes,
) -> Result<Outcome> {
    relay::run_share(fleet, (plan, share), server, |fleet, post| {
        let text = match plan.audience {
            Audience::Everybody => dialect.message(post.payload),
            Audience::Group => dialect.group_message(post.group, post.payload),
        };
        fleet.send_text(post.sender, &text)
    })
}
