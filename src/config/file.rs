//! Reads files that settings name: within bounds, since a path may lead anywhere.

use std::fs::{Metadata, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Longest file that is read: thousands of routes, or all certificates that a system trusts.
const BYTES_MAX: u64 = 1 << 20;

/// Reads a file that somebody has written: no device, pipe or directory, and of no more than 1 MiB.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read(path: impl AsRef<Path>) -> Result<Vec<u8>, String> {
    // Who opens a pipe waits for its other end, but for this flag.
    let options = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).clone();
    let file = options.open(path).map_err(|error| error.to_string())?;
    let what = file.metadata().map_err(|error| error.to_string())?;
    if what.is_dir() {
        return Err("it is a directory; name a file".to_owned());
    }
    if !what.is_file() {
        return Err(
            "it is a pipe or a device; write what it says to a file, and name that".to_owned()
        );
    }
    let mut bytes = Vec::new();
    (&file).take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err("it is longer than 1 MiB".to_owned());
    }
    // Who writes into a file, rather than putting another in its place, may be half-way.
    let same = |now: Metadata| {
        now.len() == bytes.len() as u64 && now.modified().ok() == what.modified().ok()
    };
    let is_whole = file.metadata().is_ok_and(same);
    if is_whole {
        Ok(bytes)
    } else {
        Err("it was written to while it was read; try again".to_owned())
    }
}

/// Reads a configuration file.
///
/// # Errors
/// What is wrong with it, and with its name.
pub(super) fn configuration(path: &Path) -> Result<String, String> {
    let named = |problem: String| format!("cannot read {}: {problem}", path.display());
    let bytes = read(path).map_err(named)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        named(format!("line {line} is not UTF-8; save it as UTF-8"))
    })?;
    // Editors on Windows begin a file with it.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}
