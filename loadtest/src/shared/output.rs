//! Where results go: standard output and files.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// Prints a result.
pub(crate) fn print(text: &str) -> Result<()> {
    match writeln!(io::stdout(), "{text}") {
        // The reader has seen enough.
        Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot print the result"),
    }
}

/// Writes a text to a file.
pub(crate) fn write_text(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes a result to a file as JSON.
pub(crate) fn write_json(path: &Path, result: &impl Serialize) -> Result<()> {
    write_text(path, &(serde_json::to_string_pretty(result)? + "\n"))
}

/// Appends a line.
pub(crate) fn put(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}
