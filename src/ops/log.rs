//! The log: lines go to standard error by a thread of their own, so that nobody who logs waits for
//! whoever reads it.
//!
//! Rule: logging never blocks, fails or panics. What finds no room, or cannot be written, is lost
//! and counted. A panic anywhere is counted and logged as one event.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::ops::metrics::process::{self, LineLoss};

/// Bytes of the lines that may wait, and how many of them.
const QUEUE_BYTES: usize = 512 << 10;
const QUEUE_LINES: usize = 4_096;

/// How the names of the crates begin that log; `function` is what functions write.
const MODULES: [&str; 8] =
    ["gatecast", "function", "hyper", "redis", "rustls", "tokio", "warp", "mio"];

/// Longest wait, at the end of the process, for lines that still wait.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

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
pub(crate) struct Log {
    lines: SyncSender<Vec<u8>>,
    waiting: Arc<Waiting>,
}

/// Bytes that are not written yet.
#[derive(Debug, Default)]
struct Waiting {
    bytes: Mutex<usize>,
    none: Condvar,
}

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
        let (log, lines) = Self::new();
        // A descriptor of its own: the lock of the process's standard error is not held while a
        // write blocks.
        let output = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let writer = log.clone();
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.write_lines(&lines, output))?;
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

    fn new() -> (Self, Receiver<Vec<u8>>) {
        let (lines, to_write) = mpsc::sync_channel(QUEUE_LINES);
        (Self { lines, waiting: Arc::default() }, to_write)
    }

    fn push(&self, line: &[u8]) {
        let mut waiting = self.waiting.bytes.lock();
        if *waiting + line.len() > QUEUE_BYTES || self.lines.try_send(line.to_vec()).is_err() {
            process::count_lost_line(LineLoss::QueueFull);
        } else {
            *waiting += line.len();
        }
    }

    fn write_lines(&self, lines: &Receiver<Vec<u8>>, mut output: impl Write) {
        let (mut told, mut told_at) = (0, None::<Instant>);
        for line in lines {
            let written = output.write_all(&line);
            let waiting = self.on_written(line.len());
            if written.is_err() {
                process::count_lost_line(LineLoss::WriteFailed);
                continue;
            }
            let lost = process::lost_lines();
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

    /// Returns the bytes that still wait.
    fn on_written(&self, bytes: usize) -> usize {
        let mut waiting = self.waiting.bytes.lock();
        *waiting -= bytes;
        if *waiting == 0 {
            self.waiting.none.notify_all();
        }
        *waiting
    }

    /// Waits until everything is written, but not for long: whoever reads the log may have stopped.
    pub(crate) fn finish(&self) {
        let mut waiting = self.waiting.bytes.lock();
        self.waiting.none.wait_while_for(&mut waiting, |bytes| *bytes > 0, FINISH_TIMEOUT);
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
        self.0.push(line);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What a disk does that is full for a while.
    struct Disk {
        taken: Arc<Mutex<Vec<u8>>>,
        fails: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.fails > 0 {
                self.fails -= 1;
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.taken.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stops_costs_lines_and_no_more_than_the_bound() {
        let (log, lines) = Log::new();
        let before = process::lost_lines();
        let line = [b'x'; 1_000];
        for _ in 0..2_000 {
            log.make_writer().write_all(&line).expect("never fails");
        }
        let kept = lines.try_iter().count();
        assert!(kept > 500 && kept * line.len() <= QUEUE_BYTES, "{kept}");
        assert!(process::lost_lines() - before >= 2_000 - kept as u64);
    }

    #[test]
    fn short_lines_are_bounded_too() {
        let (log, lines) = Log::new();
        (0..2 * QUEUE_LINES).for_each(|_| log.push(b"x\n"));
        assert_eq!(lines.try_iter().count(), QUEUE_LINES);
    }

    #[test]
    fn after_a_write_that_failed_the_next_line_is_written() {
        let (log, lines) = Log::new();
        let (taken, before) = (Arc::default(), process::lost_lines());
        log.push(b"one\n");
        log.push(b"two\n");
        let Log { lines: sender, waiting } = log;
        drop(sender);
        let (sender, _unread) = mpsc::sync_channel(1);
        let log = Log { lines: sender, waiting };
        log.write_lines(&lines, Disk { taken: Arc::clone(&taken), fails: 1 });
        assert_eq!(*taken.lock(), b"two\n");
        assert!(process::lost_lines() > before);
        log.finish();
        assert_eq!(*log.waiting.bytes.lock(), 0);
    }
}
