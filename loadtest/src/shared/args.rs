//! Arguments of every command, and how values are read.
//!
//! Rule: every count and time has an upper bound, so that no run goes on by itself.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

/// What becomes of a result, besides the table on standard output.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Write every sample as JSON to this file; `report` reads it
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Also write the table to this file
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// Draw plots, as SVG, into this folder
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) plots: Option<PathBuf>,
    /// Also fail if a performance goal is missed
    #[arg(long, global = true)]
    pub(crate) strict: bool,
}

/// Finds a row of a table by its name; `kind` is for the error, which lists all names.
pub(crate) fn find<T>(
    table: &'static [T],
    name_of: impl Fn(&T) -> &'static str,
    (kind, name): (&str, &str),
) -> Result<&'static T> {
    table.iter().find(|row| name_of(row) == name).with_context(|| {
        let names: Vec<&str> = table.iter().map(name_of).collect();
        format!("there is no {kind}`{name}`; there are {}", names.join(", "))
    })
}

pub(crate) fn rounds(text: &str) -> Result<usize, String> {
    within(text, 1, 100)
}

pub(crate) fn rate(text: &str, high: f64) -> Result<f64, String> {
    let value = text.parse().map_err(|err| format!("{err}"))?;
    if (0.1..=high).contains(&value) { Ok(value) } else { Err(format!("must be 0.1 to {high}")) }
}

pub(crate) fn within(text: &str, low: usize, high: usize) -> Result<usize, String> {
    let value = text.parse().map_err(|err| format!("{err}"))?;
    if (low..=high).contains(&value) { Ok(value) } else { Err(format!("must be {low} to {high}")) }
}

pub(crate) fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    if !name.starts_with("GATECAST_") {
        return Err("must begin with GATECAST_".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}
