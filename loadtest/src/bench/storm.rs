//! `storm`: how fast connections open, how long a handshake takes, and what an opening costs the
//! server.
//!
//! Rule: every round opens all connections again, after those of the previous round are closed and
//! the server is idle.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::bench::args::StormArgs;
use crate::bench::clients::Clients;
use crate::bench::fleet::{Opened, Pace};
use crate::bench::report::Report;
use crate::bench::works::{OPENED, OPENING_CPU};
use crate::shared::process::Processes;
use crate::shared::progress::Steps;

/// A server that uses less CPU than this between two checks is idle.
const REST: Duration = Duration::from_millis(2);
const LOOK: Duration = Duration::from_millis(100);
const REST_LIMIT: Duration = Duration::from_secs(10);
/// Of all rounds, at a low rate.
const LONGEST_SECONDS: f64 = 3600.0;

/// Measures the opening of connections.
pub(crate) fn storm(args: &StormArgs) -> Result<Report> {
    let StormArgs { clients: with, rounds, rate, under_way } = args;
    let pace = Pace { under_way: *under_way, rate: *rate };
    let mut report = Report::new("storm");
    let mut clients = Clients::new(with)?;
    let speed =
        rate.map_or_else(|| "as fast as possible".to_owned(), |rate| format!("{rate} a second"));
    let longest = with.connections as f64 / rate.unwrap_or(f64::INFINITY) * *rounds as f64;
    if longest > LONGEST_SECONDS {
        bail!("{rounds} rounds would take {longest:.0} s, more than {LONGEST_SECONDS} s");
    }
    report.set(format!(
        "{}, {speed}, {under_way} handshakes at once, {rounds} rounds, {}",
        clients.describe(),
        with.target.url
    ));
    let work = format!("storm of {}, {speed}", with.connections);
    let name = with.target.resolve()?.authority;
    let server = Processes::new(&with.target.pid);
    let mut steps = Steps::new(*rounds);
    for round in 1..=*rounds {
        steps.begin(&format!("round {round}, {work}"));
        let cpu = server.cpu()?.0;
        let opened = clients.open(&pace)?;
        let cpu = server.cpu()?.0.saturating_sub(cpu);
        add_opening(&mut report, (&work, &name), (with.connections, cpu), &opened);
        report.add_histogram(&work, &name, &opened.handshakes);
        if let Some(fault) = clients.losses()?.fault() {
            report.fault(fault);
        }
        clients.close()?;
        rest(&server, &mut clients)?;
    }
    Ok(report)
}

/// Adds the rate at which connections opened, and the cost of each.
pub(crate) fn add_opening(
    report: &mut Report,
    (work, name): (&str, &str),
    (n, cpu): (usize, Duration),
    opened: &Opened,
) {
    report.add(work, name, OPENED, n as f64 / opened.elapsed.as_secs_f64());
    report.add(work, name, OPENING_CPU, cpu.as_secs_f64() * 1e6 / n as f64);
}

/// Waits until the server has cleaned up, so that it does not do so in the next round.
fn rest(server: &Processes, clients: &mut Clients) -> Result<()> {
    let started = Instant::now();
    let mut before = server.cpu()?.0;
    while started.elapsed() < REST_LIMIT {
        clients.linger(LOOK)?;
        let now = server.cpu()?.0;
        if now.saturating_sub(before) < REST {
            break;
        }
        before = now;
    }
    Ok(())
}
