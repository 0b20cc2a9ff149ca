//! The result of a command: figures by work, server and measure, and the latencies behind them.
//!
//! Rule: no figure without its machine, settings, number of samples and spread; ratios are within a
//! round, so that a machine that drifts during the run drifts for both.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::bench::outcome::{OpenLoop, Outcome};
use crate::bench::works::{CLIENT_CPU, DELIVERIES, LONGEST, P50, P99, P999, REDIS_CPU, SERVER_CPU};
use crate::shared::histogram;
use crate::shared::numbers::{self, Spread};
use crate::shared::process::Machine;

/// Cores that other processes may use without a note.
const QUIET: f64 = 0.1;
/// The kernel counts their time in steps of 10 ms, which mean nothing in a shorter run.
const COUNTABLE: Duration = Duration::from_millis(500);
/// Nanoseconds by which a client may be late without a note.
const LATE: u64 = 1_000_000;

/// Everything a command found.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) command: String,
    /// When it began.
    pub(crate) date: String,
    pub(crate) machine: Machine,
    pub(crate) settings: Vec<String>,
    /// The present round, from 1; 0 if rounds are not counted.
    #[serde(skip)]
    round: usize,
    pub(crate) rows: Vec<Row>,
    latencies: Vec<Latency>,
    /// Most cores that other processes used during a run; 0 if they were quiet.
    pub(crate) disturbed: f64,
    pub(crate) notes: Vec<String>,
    /// Any of these fails the command.
    pub(crate) faults: Vec<String>,
}

/// The samples of one measure of one server.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) work: String,
    pub(crate) server: String,
    pub(crate) measure: String,
    pub(crate) unit: String,
    /// One for each round; none for a round without this server.
    samples: Vec<Option<f64>>,
}

/// The latencies of all rounds together.
#[derive(Debug, Serialize, Deserialize)]
struct Latency {
    work: String,
    server: String,
    #[serde(with = "histogram")]
    nanos: Histogram<u64>,
}

impl Report {
    pub(crate) fn new(command: &str) -> Self {
        Self {
            command: command.to_owned(),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            machine: Machine::this(),
            settings: Vec::new(),
            round: 0,
            rows: Vec::new(),
            latencies: Vec::new(),
            disturbed: 0.0,
            notes: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// Adds a setting of the command.
    pub(crate) fn set(&mut self, setting: String) {
        self.settings.push(setting);
    }

    pub(crate) fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    pub(crate) fn fault(&mut self, fault: String) {
        self.faults.push(fault);
    }

    pub(crate) fn has_faults(&self) -> bool {
        !self.faults.is_empty()
    }

    /// Begins round `number`, from 1; servers are compared within a round. Not needed for one
    /// server.
    pub(crate) fn begin_round(&mut self, number: usize) {
        self.round = number;
    }

    /// Adds the sample of this round to the row of `work`, `server` and `measure`.
    pub(crate) fn add(
        &mut self,
        work: &str,
        server: &str,
        (measure, unit): (&str, &str),
        sample: f64,
    ) {
        let is_it = |row: &&mut Row| row.is(work, server, measure);
        let earlier = self.round.saturating_sub(1);
        let row = match self.rows.iter_mut().find(is_it) {
            Some(row) => row,
            None => {
                self.rows.push(Row {
                    work: work.to_owned(),
                    server: server.to_owned(),
                    measure: measure.to_owned(),
                    unit: unit.to_owned(),
                    samples: Vec::new(),
                });
                let Some(row) = self.rows.last_mut() else { return };
                row
            }
        };
        while row.samples.len() < earlier {
            row.samples.push(None);
        }
        row.samples.push(sample.is_finite().then_some(sample));
    }

    /// Adds the latencies of this round, in nanoseconds: as rows, and merged with those of the
    /// other rounds.
    pub(crate) fn add_histogram(&mut self, work: &str, server: &str, nanos: &Histogram<u64>) {
        for (measure, quantile) in [(P50, 0.5), (P99, 0.99), (P999, 0.999), (LONGEST, 1.0)] {
            self.add(work, server, measure, nanos.value_at_quantile(quantile) as f64 / 1e3);
        }
        let same = |latency: &&mut Latency| latency.work == work && latency.server == server;
        let added = match self.latencies.iter_mut().find(same) {
            Some(latency) => latency.nanos.add(nanos),
            None => {
                let (work, server) = (work.to_owned(), server.to_owned());
                self.latencies.push(Latency { work, server, nanos: nanos.clone() });
                Ok(())
            }
        };
        if let Err(err) = added {
            self.fault(format!(
                "{work}, {server}: latencies of two rounds do not fit together: {err}"
            ));
        }
    }

    /// Adds a run's figures and faults.
    pub(crate) fn add_outcome(&mut self, work: &str, server: &str, outcome: &Outcome) {
        let Outcome { deliveries, spent, latency, open_loop, faults } = outcome;
        let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / (*deliveries).max(1) as f64;
        self.add(work, server, SERVER_CPU, each(spent.server_cpu));
        self.add(work, server, DELIVERIES, *deliveries as f64 / spent.elapsed.as_secs_f64());
        self.add(work, server, CLIENT_CPU, each(spent.client_cpu));
        match open_loop {
            Some(open_loop) => {
                self.add_histogram(work, server, latency);
                self.add_open_loop(work, server, (open_loop, spent.elapsed));
            }
            None => self.add_last(work, server, ("send", latency)),
        }
        if !spent.store_cpu.is_zero() {
            self.add(work, server, REDIS_CPU, each(spent.store_cpu));
        }
        let others = spent.others_cpu.as_secs_f64() / spent.elapsed.as_secs_f64();
        if others > QUIET && spent.elapsed > COUNTABLE {
            self.disturbed = self.disturbed.max(others);
        }
        self.faults.extend(faults.iter().map(|fault| format!("{work}, {server}: {fault}")));
    }

    /// Adds how well a rate was kept, and how late the client was, which the latencies contain.
    fn add_open_loop(
        &mut self,
        work: &str,
        server: &str,
        (open_loop, elapsed): (&OpenLoop, Duration),
    ) {
        let OpenLoop { last, lag } = open_loop;
        let mut done = Histogram::<u64>::new_from(lag);
        last.iter().filter(|nanos| **nanos > 0).for_each(|nanos| done.saturating_record(*nanos));
        self.add_last(work, server, ("due", &done));
        let kept = done.len() as f64 / elapsed.as_secs_f64();
        self.add(work, server, ("rate kept, messages", "/s"), kept);
        for (measure, nanos) in [("p99", lag.value_at_quantile(0.99)), ("max", lag.max())] {
            self.add(
                work,
                server,
                (&format!("client late by, {measure}"), "µs"),
                nanos as f64 / 1e3,
            );
        }
        if lag.value_at_quantile(0.99) > LATE {
            self.note(format!(
                "{work}, {server}: the client sent more than 1 % of its messages more than 1 ms late"
            ));
        }
    }

    /// Adds latencies to the last receiver of each message.
    fn add_last(&mut self, work: &str, server: &str, (from, nanos): (&str, &Histogram<u64>)) {
        for (measure, nanos) in [
            ("p50", nanos.value_at_quantile(0.5)),
            ("p99", nanos.value_at_quantile(0.99)),
            ("max", nanos.max()),
        ] {
            self.add(
                work,
                server,
                (&format!("{from} to last receiver, {measure}"), "µs"),
                nanos as f64 / 1e3,
            );
        }
    }

    /// Reads what `--json` wrote.
    pub(crate) fn read_json(path: &Path) -> Result<Self> {
        let json = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&json).with_context(|| format!("{} is no report", path.display()))
    }

    /// Returns the samples of a row, round by round; none if there is no such row.
    pub(crate) fn samples(&self, work: &str, server: &str, measure: &str) -> &[Option<f64>] {
        self.rows.iter().find(|row| row.is(work, server, measure)).map_or(&[], |row| &row.samples)
    }

    /// Returns the spread of `measure` by work and server, in the order they were measured.
    pub(crate) fn spreads<'a>(
        &'a self,
        measure: &str,
    ) -> impl Iterator<Item = (&'a str, &'a str, Spread)> {
        self.rows.iter().filter(move |row| row.measure == measure).filter_map(|row| {
            let samples: Vec<f64> = row.samples.iter().flatten().copied().collect();
            Some((row.work.as_str(), row.server.as_str(), Spread::of(&samples)?))
        })
    }

    /// Returns the latencies of all rounds, in nanoseconds, by work and server.
    pub(crate) fn histograms(&self) -> impl Iterator<Item = (&str, &str, &Histogram<u64>)> {
        self.latencies
            .iter()
            .map(|Latency { work, server, nanos }| (work.as_str(), server.as_str(), nanos))
    }

    /// Returns the ratios of `server` to `reference`, for each round that has both.
    pub(crate) fn ratios(
        &self,
        work: &str,
        measure: &str,
        (server, reference): (&str, &str),
    ) -> Vec<f64> {
        numbers::ratios(self.samples(work, server, measure), self.samples(work, reference, measure))
    }
}

impl Row {
    fn is(&self, work: &str, server: &str, measure: &str) -> bool {
        self.work == work && self.server == server && self.measure == measure
    }
}

#[cfg(test)]
mod tests;
