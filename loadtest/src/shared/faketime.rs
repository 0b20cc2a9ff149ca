//! Gives a process a clock of its own, which can be stepped while it runs: `libfaketime`, as Debian
//! packages it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Below these, each architecture has a folder of its own.
const FOLDERS: [&str; 2] = ["/usr/lib", "/usr/lib64"];
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// Returns the environment of a process whose clock differs from the machine's by what a file says.
pub(crate) fn settings(file: &Path) -> Result<Vec<OsString>> {
    let library = library().context("libfaketime is needed to step Redis's clock")?;
    // The C library's allocator comes next: jemalloc reads the clock before libfaketime is ready, a
    // deadlock.
    let preload = format!("LD_PRELOAD={} libc.so.6", library.display());
    let file = format!("FAKETIME_TIMESTAMP_FILE={}", file.display());
    let fixed = ["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"];
    Ok(fixed
        .iter()
        .map(|&each| each.to_owned())
        .chain([preload, file])
        .map(OsString::from)
        .collect())
}

fn library() -> Option<PathBuf> {
    let folders =
        FOLDERS.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    folders.map(|folder| folder.path().join(LIBRARY)).find(|path| path.exists())
}
