//! `idle` and `churn`: memory of idle connections.
//!
//! Rule: memory counts once it is steady, and always against the empty server before the first
//! connection, so that what a churn leaves behind shows.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::bench::args::{ChurnArgs, IdleArgs};
use crate::bench::clients::Clients;
use crate::bench::fleet::Pace;
use crate::bench::report::Report;
use crate::bench::storm;
use crate::bench::works::{RSS, SLAB, rss_at};
use crate::shared::process::{self, Processes};
use crate::shared::progress;

const SAMPLE_EVERY: Duration = Duration::from_millis(200);
/// Two seconds without change count as steady.
pub(crate) const STEADY_SAMPLES: usize = 10;
/// A change of a few pages is noise.
const STEADY_BAND: u64 = 64 << 10;
const STEADY_LIMIT: Duration = Duration::from_secs(30);

/// A server whose memory is measured, and its memory before the first connection.
struct Subject<'a> {
    report: &'a mut Report,
    work: &'a str,
    name: &'a str,
    server: Processes,
    n: usize,
    base: u64,
    slab: u64,
}

/// Memory while all connections are open.
struct Full {
    rss: u64,
    /// Bytes of the server's process per connection.
    each: f64,
    /// Bytes of the kernel per connection.
    slab: f64,
}

/// Measures the memory of idle connections, which are opened again in each round.
pub(crate) fn idle(args: &IdleArgs) -> Result<Report> {
    let IdleArgs { clients: with, rounds, groups } = args;
    let mut report = Report::new("idle");
    let mut clients = Clients::new(with)?;
    let places = if *groups == 0 { String::new() } else { format!(", each in {groups} groups") };
    report.set(format!("{}{places}, {rounds} rounds, {}", clients.describe(), with.target.url));
    let work = format!("idle, {} connections{places}", with.connections);
    let name = with.target.resolve()?.authority;
    let server = Processes::new(&with.target.pid);
    let mut subject =
        Subject::new((&mut report, &mut clients), (&work, &name), server, with.connections)?;
    subject.add(("RSS of the empty server", "KiB"), kib(subject.base));
    for round in 1..=*rounds {
        progress::say(format!("round {round}/{rounds}: idle"));
        let full = subject.fill(&mut clients, *groups)?;
        subject.add(RSS, full.each);
        subject.add(("RSS with all open", "KiB"), kib(full.rss));
        subject.add(SLAB, full.slab);
        let empty = subject.empty(&mut clients)?;
        subject.add(("RSS after all closed", "KiB"), kib(empty));
        let (base, rss) = (subject.base >> 10, full.rss >> 10);
        progress::say(format!(
            "{:.0} B per connection; {base} → {rss} → {} KiB",
            full.each,
            empty >> 10
        ));
    }
    Ok(report)
}

/// Measures the memory of connections at each of several openings of all of them.
pub(crate) fn churn(args: &ChurnArgs) -> Result<Report> {
    let ChurnArgs { clients: with, openings } = args;
    let mut report = Report::new("churn");
    let mut clients = Clients::new(with)?;
    report.set(format!("{}, opened {openings} times, {}", clients.describe(), with.target.url));
    let work = format!("churn, {} connections", with.connections);
    let name = with.target.resolve()?.authority;
    let server = Processes::new(&with.target.pid);
    let mut subject =
        Subject::new((&mut report, &mut clients), (&work, &name), server, with.connections)?;
    let mut first: Option<f64> = None;
    for opening in 1..=*openings {
        progress::say(format!("opening {opening}/{openings}"));
        let full = subject.fill(&mut clients, 0)?;
        subject.add((&rss_at(opening), RSS.1), full.each);
        progress::say(format!("{:.0} B per connection", full.each));
        match first {
            None => {
                first = Some(full.each);
                subject.add(SLAB, full.slab);
            }
            Some(first) if opening == *openings => {
                subject.add(("RSS per connection, last to first", "×"), full.each / first);
                subject.add(("kernel slab per connection, last", "B"), full.slab);
            }
            Some(_) => {}
        }
        let empty = subject.empty(&mut clients)?;
        if opening == *openings {
            subject.add(
                ("RSS after all closed, over the empty server", "KiB"),
                kib(empty) - kib(subject.base),
            );
        }
    }
    Ok(report)
}

impl<'a> Subject<'a> {
    /// Measures the empty server.
    fn new(
        (report, clients): (&'a mut Report, &mut Clients),
        (work, name): (&'a str, &'a str),
        server: Processes,
        n: usize,
    ) -> Result<Self> {
        let base = steady(&server, STEADY_SAMPLES, |time| clients.linger(time))?;
        Ok(Self { report, work, name, server, n, base, slab: process::slab()? })
    }

    /// Opens all connections, lets them join groups, and measures the server.
    fn fill(&mut self, clients: &mut Clients, groups: usize) -> Result<Full> {
        let cpu = self.server.cpu()?.0;
        let opened = clients.open(&Pace::default())?;
        let cpu = self.server.cpu()?.0.saturating_sub(cpu);
        storm::add_opening(self.report, (self.work, self.name), (self.n, cpu), &opened);
        if groups > 0 {
            clients.join(groups)?;
        }
        let rss = steady(&self.server, STEADY_SAMPLES, |time| clients.linger(time))?;
        let each = (rss as f64 - self.base as f64) / self.n as f64;
        // Both ends of each connection are on this machine.
        let slab = (process::slab()? as f64 - self.slab as f64) / self.n as f64 / 2.0;
        if let Some(fault) = clients.losses()?.fault() {
            self.report.fault(fault);
        }
        Ok(Full { rss, each, slab })
    }

    /// Closes all connections; returns the server's memory afterwards.
    fn empty(&self, clients: &mut Clients) -> Result<u64> {
        clients.close()?;
        steady(&self.server, STEADY_SAMPLES, |time| clients.linger(time))
    }

    fn add(&mut self, measure: (&str, &str), sample: f64) {
        self.report.add(self.work, self.name, measure, sample);
    }
}

/// Returns the resident set once it was the same in this number of samples, or the last one if it
/// never is; `linger` serves the connections between two samples.
pub(crate) fn steady(
    server: &Processes,
    looks: usize,
    mut linger: impl FnMut(Duration) -> Result<()>,
) -> Result<u64> {
    let started = Instant::now();
    let mut samples = vec![server.rss()?];
    loop {
        linger(SAMPLE_EVERY)?;
        let last = server.rss()?;
        samples.push(last);
        let recent = samples.iter().rev().take(looks);
        let (low, high) =
            recent.fold((u64::MAX, 0), |(low, high), rss| (low.min(*rss), high.max(*rss)));
        if samples.len() >= looks && high - low <= STEADY_BAND {
            return Ok(last);
        }
        if started.elapsed() > STEADY_LIMIT {
            let (low, high) = (low >> 10, high >> 10);
            progress::say(format!(
                "memory still moves after {STEADY_LIMIT:?}: {low} to {high} KiB"
            ));
            return Ok(last);
        }
    }
}

fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}
