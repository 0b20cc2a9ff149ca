//! One gatecast process, which may be killed and started again on the same ports.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::child::Child;
use super::http;
use super::wait::Interrupt;
use super::workspace::Workspace;

const ANSWER_LIMIT: Duration = Duration::from_secs(2);
const START_LIMIT: Duration = Duration::from_secs(15);

/// A gatecast process.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) port: u16,
    pub(crate) admin_port: u16,
    pub(crate) child: Child,
    command: Command,
    log: PathBuf,
    interrupt: Interrupt,
}

/// What nodes count, added up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters(BTreeMap<String, f64>);

impl Node {
    /// Starts a node with these settings; does not wait until it is ready.
    pub(crate) fn start(
        program: &Path,
        name: &str,
        settings: &BTreeMap<String, String>,
        workspace: &mut Workspace,
    ) -> Result<Self> {
        let (port, admin_port) = (workspace.ports.allocate()?, workspace.ports.allocate()?);
        let address = |port| format!("127.0.0.1:{port}");
        let mut command = Command::new(program);
        command
            .args(["--listen", &address(port), "--admin-listen", &address(admin_port)])
            .env("GATECAST_NODE_NAME", name)
            .envs(settings);
        let log = workspace.directory.join(format!("{name}.log"));
        let child = Child::start(&command, Some(&log))?;
        Ok(Self { port, admin_port, child, command, log, interrupt: workspace.interrupt.clone() })
    }

    /// Starts the process again; does not wait until it is ready.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.child = Child::start(&self.command, Some(&self.log))?;
        Ok(())
    }

    /// Waits until it takes clients.
    pub(crate) fn wait_ready(&mut self) -> Result<()> {
        let Self { admin_port, child, interrupt, .. } = self;
        let ended = interrupt.eventually("a node is ready", START_LIMIT, || {
            if let Ok(Some(status)) = child.status() {
                return Some(Some(status));
            }
            let ready = http::get(*admin_port, "/ready", ANSWER_LIMIT);
            ready.is_ok_and(|answer| answer.status == 200).then_some(None)
        });
        match ended.with_context(|| self.end_of_log())? {
            None => Ok(()),
            Some(status) => bail!("the node ended with {status}: {}", self.end_of_log()),
        }
    }

    /// Returns what it counts; nothing if it does not answer.
    pub(crate) fn counters(&self) -> Option<Counters> {
        let answer = http::get(self.admin_port, "/metrics", ANSWER_LIMIT).ok()?;
        (answer.status == 200).then(|| Counters::parse(&answer.body))
    }

    fn end_of_log(&self) -> String {
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

    /// Returns the sum of all samples of that name, or the sample with those labels.
    pub(crate) fn sum(&self, name: &str) -> u64 {
        let is_meant = |each: &str| {
            each.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
        };
        let sum: f64 =
            self.0.iter().filter(|(each, _)| is_meant(each)).map(|(_, value)| value).sum();
        // Counters are whole numbers far below 2⁵³.
        format!("{sum:.0}").parse().unwrap_or_default()
    }

    /// Returns the names of all samples, with their labels.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Returns one sample by its name with labels; 0 if there is none.
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
