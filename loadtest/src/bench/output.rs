//! What becomes of a report: JSON, Markdown, plots, and a table on standard output.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::bench::goals::{self, Verdict};
use crate::bench::markdown::markdown;
use crate::bench::plot;
use crate::bench::report::Report;
use crate::shared::args::OutputArgs;

/// A report as it is stored, with its goals, which are judged again when it is read.
#[derive(Serialize)]
struct Judged<'a> {
    #[serde(flatten)]
    report: &'a Report,
    goals: Vec<Verdict>,
}

/// Prints the report and writes what is asked for; returns whether the command succeeded.
///
/// # Errors
/// A file or standard output cannot be written.
pub(crate) fn write(report: &Report, json: Option<&Path>, args: &OutputArgs) -> Result<bool> {
    if let Some(path) = json {
        write_json(report, path)?;
    }
    let text = markdown(report);
    if let Some(path) = &args.markdown {
        fs::write(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(folder) = &args.plots {
        plot::write(report, folder)?;
    }
    match writeln!(io::stdout(), "{text}") {
        // The reader has seen enough.
        Err(err) if err.kind() == io::ErrorKind::BrokenPipe => {}
        written => written.context("cannot print the table")?,
    }
    let has_failed = report.has_faults() || args.strict && goals::is_any_missed(report);
    Ok(!has_failed)
}

/// Writes everything, each sample included.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write_json(report: &Report, path: &Path) -> Result<()> {
    let json = serde_json::to_string_pretty(&Judged { report, goals: goals::table(report) })?;
    fs::write(path, json + "\n").with_context(|| format!("cannot write {}", path.display()))
}
