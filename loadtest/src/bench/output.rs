//! Writes a report: as JSON, as Markdown, as plots, and as a table on standard output.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::bench::goals::{self, Verdict};
use crate::bench::markdown::markdown;
use crate::bench::plot;
use crate::bench::report::Report;
use crate::shared::args::OutputArgs;
use crate::shared::output::{self, print, write_text};

/// A report as it is stored, with its goals, which are judged again when it is read.
#[derive(Serialize)]
struct Judged<'a> {
    #[serde(flatten)]
    report: &'a Report,
    goals: Vec<Verdict>,
}

/// Prints the report and writes what is asked for; returns whether the command succeeded.
pub(crate) fn write(report: &Report, json: Option<&Path>, args: &OutputArgs) -> Result<bool> {
    if let Some(path) = json {
        write_json(report, path)?;
    }
    let text = markdown(report);
    if let Some(path) = &args.markdown {
        write_text(path, &text)?;
    }
    if let Some(folder) = &args.plots {
        plot::write(report, folder)?;
    }
    print(&text)?;
    let has_failed = report.has_faults() || args.strict && goals::is_any_missed(report);
    Ok(!has_failed)
}

/// Writes everything, each sample included.
pub(crate) fn write_json(report: &Report, path: &Path) -> Result<()> {
    output::write_json(path, &Judged { report, goals: goals::table(report) })
}
