//! `idle`: what a connection that does nothing costs in memory.
//!
//! Rule: memory counts only once it is steady, and always against the empty server before the first connection, so
//! that what a churn leaves behind shows.

use std::slice;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cli::IdleArgs;
use crate::dialect::Envelope;
use crate::fleet::{Fleet, Opening};
use crate::process::{self, Process};
use crate::progress;
use crate::report::Report;
use crate::target::Target;
use crate::works::{OPENED, OPENING_CPU, RSS};

const SAMPLE_EVERY: Duration = Duration::from_millis(200);
/// Two seconds without movement count as steady.
pub(crate) const STEADY_SAMPLES: usize = 10;
/// Movement up to a few pages is noise.
const STEADY_BAND: u64 = 64 << 10;
const STEADY_LIMIT: Duration = Duration::from_secs(30);

/// Measures the memory of idle connections, opening all of them anew in each round.
///
/// # Errors
/// The server cannot be reached or ends.
pub(crate) fn idle(args: &IdleArgs) -> Result<Report> {
    let target = args.target.resolve()?;
    process::reserve_files(args.connections)?;
    let mut report = Report::new("idle");
    report.set(format!("{} connections, {} rounds, {}", args.connections, args.rounds, args.target.url));
    let server = (target.authority.as_str(), Process::new(args.target.pid));
    measure(&mut report, &target, server, (args.connections, args.rounds))?;
    Ok(report)
}

/// Adds `rounds` openings of `n` connections to the report; the first round's empty server is the base of all.
///
/// # Errors
/// The server cannot be reached or ends.
pub(crate) fn measure(
    report: &mut Report,
    target: &Target,
    (name, server): (&str, Process),
    (n, rounds): (usize, usize),
) -> Result<()> {
    let work = format!("idle, {n} connections");
    let opening = Opening::Handshake(Envelope::Plain);
    let targets = slice::from_ref(target);
    let mut nobody = Fleet::open(targets, 0, opening)?;
    let base = steady(server, &mut nobody, STEADY_SAMPLES)?;
    report.add(&work, name, ("RSS of the empty server", "KiB"), kib(base));
    for round in 1..=rounds {
        progress::say(format!("round {round}/{rounds}: idle"));
        let (started, cpu) = (Instant::now(), server.cpu()?);
        let mut fleet = Fleet::open(targets, n, opening)?;
        let rate = n as f64 / started.elapsed().as_secs_f64();
        let cpu = server.cpu()?.saturating_sub(cpu).as_micros() as f64 / n as f64;
        let full = steady(server, &mut fleet, STEADY_SAMPLES)?;
        let each = (full as f64 - base as f64) / n as f64;
        report.add(&work, name, RSS, each);
        report.add(&work, name, ("RSS with all open", "KiB"), kib(full));
        report.add(&work, name, OPENED, rate);
        report.add(&work, name, OPENING_CPU, cpu);
        if fleet.n_closed() > 0 {
            report.fault(format!(
                "{} connections lost: {}",
                fleet.n_closed(),
                fleet.first_loss().unwrap_or_default()
            ));
        }
        fleet.close()?;
        let empty = steady(server, &mut nobody, STEADY_SAMPLES)?;
        report.add(&work, name, ("RSS after all closed", "KiB"), kib(empty));
        progress::say(format!(
            "{each:.0} B per connection; {} → {} → {} KiB",
            base >> 10,
            full >> 10,
            empty >> 10
        ));
    }
    Ok(())
}

/// Serves `fleet` meanwhile; returns the resident set once it has stopped moving, or the last one seen when it never does.
pub(crate) fn steady(server: Process, fleet: &mut Fleet, looks: usize) -> Result<u64> {
    let started = Instant::now();
    let mut samples = vec![server.rss()?];
    loop {
        fleet.linger(SAMPLE_EVERY)?;
        let last = server.rss()?;
        samples.push(last);
        let recent = samples.iter().rev().take(looks);
        let (low, high) = recent.fold((u64::MAX, 0), |(low, high), rss| (low.min(*rss), high.max(*rss)));
        if samples.len() >= looks && high - low <= STEADY_BAND {
            return Ok(last);
        }
        if started.elapsed() > STEADY_LIMIT {
            progress::say(format!(
                "memory still moves after {STEADY_LIMIT:?}: {} to {} KiB",
                low >> 10,
                high >> 10
            ));
            return Ok(last);
        }
    }
}

fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}
