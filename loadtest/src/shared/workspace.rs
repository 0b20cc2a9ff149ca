//! What servers need when they start: a directory for their files, ports of their own, and the
//! signal to stop.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::ports::Ports;
use super::wait::Interrupt;

/// Must outlive the servers that were started in it.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) directory: PathBuf,
    pub(crate) ports: Ports,
    pub(crate) interrupt: Interrupt,
}

impl Workspace {
    /// Makes the directory, unless it exists.
    pub(crate) fn new(directory: &Path, seed: u64, interrupt: &Interrupt) -> Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
            ports: Ports::new(seed),
            interrupt: interrupt.clone(),
        })
    }
}
