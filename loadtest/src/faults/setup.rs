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
    /// How often the fault is made in a round.
    pub(crate) repeat: usize,
    pub(crate) size: Size,
    /// Further settings for the nodes.
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) interrupt: Interrupt,
}

impl Setup {
    /// Prepares for the rounds that the arguments ask for.
    ///
    /// # Errors
    /// Signals cannot be listened for.
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
            interrupt: Interrupt::on_signals().context("cannot listen for signals")?,
        })
    }
}

/// Copies the files of a round, and those one folder below.
pub(crate) fn keep_logs(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => keep_logs(&entry.path(), &to)?,
            false => drop(fs::copy(entry.path(), to)?),
        }
    }
    Ok(())
}
