//! What all rounds have in common.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::args::{FaultsArgs, YesNo};
use super::clients::Size;
use super::sabotage::Sabotage;
use crate::shared::wait::Interrupt;

/// What all rounds have in common.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) program: PathBuf,
    pub(crate) nodes: usize,
    pub(crate) haproxy: bool,
    /// How often the fault happens in a round.
    pub(crate) repeat: usize,
    pub(crate) size: Size,
    /// Further settings for the nodes.
    pub(crate) environment: BTreeMap<String, String>,
    /// Where the logs of failed rounds are kept, if they are.
    keep_logs: Option<PathBuf>,
    pub(crate) sabotage: Option<Sabotage>,
    pub(crate) interrupt: Interrupt,
}

impl Setup {
    /// Prepares for the rounds that the arguments ask for.
    pub(crate) fn new(args: &FaultsArgs) -> Result<Self> {
        let mut environment: BTreeMap<String, String> = args.set.iter().cloned().collect();
        if args.sabotage == Some(Sabotage::Trim) {
            environment.insert("GATECAST_REDIS_STREAM_ENTRIES".to_owned(), "1".to_owned());
        }
        let subscribers = args.subscribers();
        Ok(Self {
            program: args.gatecast.clone(),
            nodes: args.nodes,
            repeat: args.repeat,
            haproxy: args.haproxy == YesNo::Yes,
            size: Size {
                publishers: args.publishers,
                subscribers,
                senders: args.senders.min(subscribers),
                groups: args.groups,
                rate: args.rate,
                seed: args.seed,
                members: 0,
            },
            environment,
            keep_logs: args.keep_logs.clone(),
            sabotage: args.sabotage,
            interrupt: Interrupt::on_signals().context("cannot listen for signals")?,
        })
    }

    /// Runs a round with a seed, in a directory that is removed afterwards; keeps the logs of a
    /// failed one under its name.
    pub(crate) fn run<T>(
        &self,
        (seed, name): (u64, &str),
        run: impl FnOnce(&Self, &Path) -> Result<T>,
        is_good: impl Fn(&T) -> bool,
    ) -> Result<T> {
        let directory = tempfile::tempdir().context("no temporary directory")?;
        let mut setup = self.clone();
        setup.size.seed = seed;
        let outcome = run(&setup, directory.path());
        let has_failed = !outcome.as_ref().is_ok_and(is_good);
        if let Some(folder) = self.keep_logs.as_ref().filter(|_| has_failed) {
            copy_files(directory.path(), &folder.join(name))?;
        }
        outcome
    }
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_files(&entry.path(), &to)?,
            false => drop(fs::copy(entry.path(), to)?),
        }
    }
    Ok(())
}
