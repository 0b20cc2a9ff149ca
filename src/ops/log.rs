//! The log: lines go to standard error by a thread of their own, so that nobody who logs waits for
//! whoever reads it.
//!
//! Rule: logging never blocks, fails or panics ([`crate::ops::lines`]). A panic anywhere is counted
//! and logged as one event.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::panic::PanicHookInfo;
use std::time::{Duration, Instant};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::ops::lines::{Lines, QUEUE_BYTES};
use crate::ops::metrics::process::{self, Journal};

/// How the names of the crates begin that log; `function` is what functions write.
const MODULES: [&str; 8] =
    ["gatecast", "function", "hyper", "redis", "rustls", "tokio", "warp", "mio"];

/// The log says at most this often that lines were lost.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Longest text of a panic in the log, in bytes: it may hold what a client sent.
const PANIC_TEXT: usize = 1_024;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// The way into the log; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Log(Lines);

/// One line on its way.
#[derive(Debug)]
pub(crate) struct Line<'l>(&'l Log);

/// Checks the directives of `RUST_LOG`.
///
/// # Errors
/// What to write instead.
pub(crate) fn check(wanted: Option<&OsStr>) -> Result<(), String> {
    let cure = "write a level (error, warn, info, debug, trace, off), or levels by module such as info,gatecast::edge::http=debug";
    let Some(text) = wanted.filter(|text| !text.is_empty()) else { return Ok(()) };
    let text = text.to_str().ok_or_else(|| format!("{text:?} is not UTF-8; {cure}"))?;
    // A word alone would be taken for a module, and nothing at all be logged.
    let is_module = |word: &str| MODULES.iter().any(|start| word.starts_with(start));
    let is_typo = |one: &&str| {
        !one.contains(['=', '[', ':']) && one.parse::<LevelFilter>().is_err() && !is_module(one)
    };
    if let Some(word) = text.split(',').map(str::trim).find(is_typo) {
        return Err(format!("{word:?} is no level; {cure}"));
    }
    let parsed = EnvFilter::builder().parse(text);
    parsed.map(drop).map_err(|error| format!("{text:?}: {error}; {cure}"))
}

impl Log {
    /// Starts the log of the process; `wanted` are the directives of `RUST_LOG`, where there are
    /// any; see [`check`].
    ///
    /// # Errors
    /// The kernel gives no descriptor or thread.
    pub(crate) fn start(format: LogFormat, wanted: Option<&str>) -> io::Result<Self> {
        let is_terminal = io::stderr().is_terminal();
        let (lines, to_write) = Lines::new(Journal::Log);
        let log = Self(lines);
        // A descriptor of its own: the lock of the process's standard error is not held while a
        // write blocks.
        let output = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let writer = log.0.clone();
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.write_to(output, &to_write, tell_of_losses()))?;
        let filter = EnvFilter::new(wanted.filter(|text| !text.is_empty()).unwrap_or("info"));
        let events = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(is_terminal)
            .log_internal_errors(false)
            .with_writer(log.clone());
        match format {
            LogFormat::Text => events.init(),
            LogFormat::Json => events.json().init(),
        }
        std::panic::set_hook(Box::new(log_panic));
        Ok(log)
    }

    /// Waits until everything is written, but not for long.
    pub(crate) fn finish(&self) {
        self.0.finish();
    }
}

/// Returns what logs, now and then, that lines have been lost; it is told how many bytes wait.
fn tell_of_losses() -> impl FnMut(usize) {
    let (mut told, mut told_at) = (0, None::<Instant>);
    move |waiting| {
        let lost = process::lost_lines(Journal::Log);
        let has_room = waiting < QUEUE_BYTES / 2;
        if lost > told && has_room && told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            tracing::warn!(
                lines = lost - told,
                "log lines were lost: whoever reads the log is too slow, or its disk is full"
            );
            (told, told_at) = (lost, Some(Instant::now()));
        }
    }
}

impl<'l> MakeWriter<'l> for Log {
    type Writer = Line<'l>;

    fn make_writer(&'l self) -> Line<'l> {
        Line(self)
    }
}

impl Write for Line<'_> {
    /// Takes a whole line: that is how events are written.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.0.push(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    process::count_panic();
    let text = panic.payload_as_str().unwrap_or("no text");
    let text = text.get(..text.floor_char_boundary(PANIC_TEXT)).unwrap_or_default();
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    // As `RUST_BACKTRACE` has it.
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => {
            tracing::error!(thread, location, text, %backtrace, "panicked");
        }
        _ => tracing::error!(thread, location, text, "panicked"),
    }
}
