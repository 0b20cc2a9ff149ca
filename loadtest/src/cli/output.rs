//! What becomes of a result, beside the table on standard output.

use std::path::PathBuf;

use clap::Args;

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
    /// Fail if a goal of speed is missed, too
    #[arg(long, global = true)]
    pub(crate) strict: bool,
}
