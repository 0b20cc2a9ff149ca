//! One gatecast process, which may be killed and started again on the same ports.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::request as http;
use super::wait::Interrupt;
use crate::shared::child::Server;
use crate::shared::process::Process;

const ANSWER_LIMIT: Duration = Duration::from_secs(2);
const START_LIMIT: Duration = Duration::from_secs(15);

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) port: u16,
    pub(crate) admin_port: u16,
    program: PathBuf,
    environment: BTreeMap<String, String>,
    log: PathBuf,
    server: Option<Server>,
}

/// What nodes count, added up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters(BTreeMap<String, f64>);

impl Node {
    pub(crate) fn new(
        program: &Path,
        (port, admin_port): (u16, u16),
        environment: BTreeMap<String, String>,
        log: PathBuf,
    ) -> Self {
        Self { port, admin_port, program: program.to_owned(), environment, log, server: None }
    }

    /// Starts the process; does not wait until it is ready.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(&mut self) -> Result<()> {
        let listen = |port| format!("127.0.0.1:{port}");
        let args =
            ["--listen".to_owned(), listen(self.port), "--admin-listen".into(), listen(self.admin_port)];
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let server = Server::launch(&self.program, args, |command| {
            forget_settings(command);
            command.envs(&self.environment).stderr(log);
            Ok(())
        })?;
        self.server = Some(server);
        Ok(())
    }

    /// Waits until it takes clients.
    ///
    /// # Errors
    /// It ends, or takes too long; its last words say why.
    pub(crate) fn wait_ready(&mut self, interrupt: &Interrupt) -> Result<()> {
        let ended = interrupt.eventually("a node is ready", START_LIMIT, || {
            if let Ok(Some(status)) = self.status() {
                return Some(Some(status));
            }
            let ready = http::request(self.admin_port, ("GET", "/ready"), "", ANSWER_LIMIT);
            ready.is_ok_and(|answer| answer.status == 200).then_some(None)
        });
        match ended.with_context(|| self.last_words())? {
            None => Ok(()),
            Some(status) => anyhow::bail!("the node ended with {status}: {}", self.last_words()),
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        self.server.as_mut().context("the node does not run")?.signal(signal)
    }

    /// Kills it.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.server.as_mut().context("the node does not run")?.kill()
    }

    /// Returns the process.
    ///
    /// # Errors
    /// It was never started.
    pub(crate) fn process(&self) -> Result<Process> {
        Ok(self.server.as_ref().context("the node does not run")?.process())
    }

    /// Returns how it ended; nothing while it runs.
    ///
    /// # Errors
    /// It was never started.
    pub(crate) fn status(&mut self) -> Result<Option<ExitStatus>> {
        self.server.as_mut().context("the node does not run")?.status()
    }

    /// Returns what it counts; nothing if it does not answer.
    pub(crate) fn counters(&self) -> Option<Counters> {
        let answer = http::request(self.admin_port, ("GET", "/metrics"), "", ANSWER_LIMIT).ok()?;
        (answer.status == 200).then(|| Counters::parse(&answer.body))
    }

    /// Returns the end of its log.
    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

impl Counters {
    fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| line.starts_with("gatecast_"));
        Self(
            samples
                .filter_map(|line| {
                    let (name, value) = line.rsplit_once(' ')?;
                    Some((name.to_owned(), value.parse().ok()?))
                })
                .collect(),
        )
    }

    /// Returns the sum of all samples of that name, or the one with those labels.
    pub(crate) fn sum(&self, name: &str) -> u64 {
        let is_meant =
            |each: &str| each.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
        let sum: f64 = self.0.iter().filter(|(each, _)| is_meant(each)).map(|(_, value)| value).sum();
        // Counters are whole numbers far below 2⁵³.
        format!("{sum:.0}").parse().unwrap_or_default()
    }

    /// Returns the names of all samples, with their labels.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Returns one sample by its name with labels; 0 where there is none.
    pub(crate) fn of(&self, name: &str) -> u64 {
        let value = self.0.get(name).copied().unwrap_or_default();
        format!("{value:.0}").parse().unwrap_or_default()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (name, value) in &other.0 {
            *self.0.entry(name.clone()).or_default() += value;
        }
    }
}

/// Settings of the user's own gateway must not reach ours.
fn forget_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GATECAST_")) {
        command.env_remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_labels_and_nodes() {
        let text = "# HELP gatecast_x_total x\ngatecast_x_total{result=\"lost\"} 2\ngatecast_x_total{result=\"repaired\"} 3\nprocess_x 9\n";
        let mut counters = Counters::parse(text);
        counters.add(&Counters::parse(text));
        assert_eq!(
            (counters.sum("gatecast_x_total"), counters.sum("gatecast_x_total{result=\"lost\"}")),
            (10, 4)
        );
    }
}
