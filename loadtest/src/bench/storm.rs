//! `storm`: how fast connections open, how long a handshake takes, and what an opening costs the server.
//!
//! Rule: every round opens all connections anew, after those of the round before are closed and the server is at rest.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::bench::args::StormArgs;
use crate::bench::crowd::Crowd;
use crate::bench::fleet::{Opened, Pace};
use crate::bench::report::Report;
use crate::bench::works::{OPENED, OPENING_CPU};
use crate::shared::process::Processes;
use crate::shared::progress::Steps;

/// A server is at rest when it uses less CPU than this in a look.
const REST: Duration = Duration::from_millis(2);
const LOOK: Duration = Duration::from_millis(100);
const REST_LIMIT: Duration = Duration::from_secs(10);
/// All rounds of connections at a low rate.
const LONGEST_SECONDS: f64 = 3600.0;

/// Measures the opening of connections.
///
/// # Errors
/// The server cannot be reached, or ends.
pub(crate) fn storm(args: &StormArgs) -> Result<Report> {
    let StormArgs { crowd: with, rounds, rate, under_way } = args;
    let pace = Pace { under_way: *under_way, rate: *rate };
    let mut report = Report::new("storm");
    let mut crowd = Crowd::new(with)?;
    let speed = rate.map_or_else(|| "as fast as possible".to_owned(), |rate| format!("{rate} a second"));
    let longest = with.connections as f64 / rate.unwrap_or(f64::INFINITY) * *rounds as f64;
    if longest > LONGEST_SECONDS {
        bail!("{rounds} rounds would take {longest:.0} s, more than {LONGEST_SECONDS} s");
    }
    report.set(format!(
        "{}, {speed}, {under_way} handshakes at once, {rounds} rounds, {}",
        crowd.describe(),
        with.target.url
    ));
    let work = format!("storm of {}, {speed}", with.connections);
    let name = with.target.resolve()?.authority;
    let server = Processes::new(&with.target.pid);
    let mut steps = Steps::new(*rounds);
    for round in 1..=*rounds {
        steps.begin(&format!("round {round}, {work}"));
        let cpu = server.cpu()?.0;
        let opened = crowd.open(&pace)?;
        let cpu = server.cpu()?.0.saturating_sub(cpu);
        add_opening(&mut report, (&work, &name), (with.connections, cpu), &opened);
        report.add_histogram(&work, &name, &opened.handshakes);
        if let Some(fault) = crowd.losses()?.fault() {
            report.fault(fault);
        }
        crowd.close()?;
        rest(&server, &mut crowd)?;
    }
    Ok(report)
}

/// Adds how fast connections opened, and what each cost.
pub(crate) fn add_opening(
    report: &mut Report,
    (work, name): (&str, &str),
    (n, cpu): (usize, Duration),
    opened: &Opened,
) {
    report.add(work, name, OPENED, n as f64 / opened.elapsed.as_secs_f64());
    report.add(work, name, OPENING_CPU, cpu.as_secs_f64() * 1e6 / n as f64);
}

/// Waits until the server has cleared away, so that it does not do so in the next round.
fn rest(server: &Processes, crowd: &mut Crowd) -> Result<()> {
    let started = Instant::now();
    let mut before = server.cpu()?.0;
    while started.elapsed() < REST_LIMIT {
        crowd.linger(LOOK)?;
        let now = server.cpu()?.0;
        if now.saturating_sub(before) < REST {
            break;
        }
        before = now;
    }
    Ok(())
}
