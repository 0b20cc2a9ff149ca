//! The access log: a line for each event of a client, as the operator has put it together.
//!
//! Rule: who notes an event never waits ([`crate::ops::lines`]). Where no log is asked for nothing
//! is made for it: ask [`AccessLog::is_on`] first.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use self::format::Format;
use super::lines::Lines;
use super::metrics::process::Journal;
use crate::model::call::Scene;

pub(crate) use self::entry::{Entry, EntryEnd, EntryKind, Who};

mod entry;
pub(crate) mod format;

/// The log, if there is one.
#[derive(Debug, Default)]
pub(crate) struct AccessLog(Option<Running>);

#[derive(Debug)]
struct Running {
    format: Format,
    scene: Scene,
    lines: Lines,
}

impl AccessLog {
    /// Starts a log of this format, into a file or to standard output.
    ///
    /// # Errors
    /// The file cannot be opened, or the kernel gives no descriptor or thread.
    pub(crate) fn start(format: Format, file: Option<&Path>, scene: Scene) -> io::Result<Self> {
        let output = match file {
            Some(path) => open(path)?,
            None => File::from(io::stdout().as_fd().try_clone_to_owned()?),
        };
        let (lines, to_write) = Lines::new(Journal::Access);
        let writer = lines.clone();
        std::thread::Builder::new()
            .name("access log".to_owned())
            .spawn(move || writer.write_to(output, &to_write, |_| {}))?;
        Ok(Self(Some(Running { format, scene, lines })))
    }

    /// Returns whether events are to be noted.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Notes an event.
    pub(crate) fn note(&self, entry: &Entry<'_>) {
        if let Some(Running { format, scene, lines }) = &self.0 {
            lines.push(format.line(entry, scene).into_bytes());
        }
    }

    /// Waits until everything is written, but not for long.
    pub(crate) fn finish(&self) {
        if let Some(running) = &self.0 {
            running.lines.finish();
        }
    }
}

/// Opens a file to add lines to: no pipe, whose reader could keep the node from starting.
fn open(path: &Path) -> io::Result<File> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("access_log.file: {}: {error}", path.display()))
    };
    let options =
        OpenOptions::new().append(true).create(true).custom_flags(libc::O_NONBLOCK).clone();
    let file = options.open(path).map_err(named)?;
    if !file.metadata().map_err(named)?.is_file() {
        return Err(named(io::Error::other("it is a pipe, a device or a directory; name a file")));
    }
    Ok(file)
}
