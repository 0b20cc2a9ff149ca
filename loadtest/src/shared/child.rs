//! Servers that this program starts itself.
//!
//! Rule: none outlives it: dropped is killed, by its own process id, whatever went wrong; and if this program is
//! itself killed, the kernel kills them.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use crate::shared::process::Process;
use crate::shared::progress;

/// How long a server may take to say where it listens.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Lines nobody asked for yet; what comes on top is dropped, since only the start matters.
const LINES_KEPT: usize = 1024;

/// A running child.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    lines: Receiver<String>,
    /// What it has said so far.
    seen: Vec<String>,
}

impl Server {
    /// Starts `program` on a leash: see [`leash`].
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start<A: Into<OsString>>(
        program: &Path,
        args: impl IntoIterator<Item = A>,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        Self::launch(program, args, |command| {
            command.envs(settings.iter().copied());
            Ok(())
        })
    }

    /// Starts `program` as [`Self::start`] does, after `prepare` has seen to its environment and its standard error.
    ///
    /// # Errors
    /// It cannot be prepared or started.
    pub(crate) fn launch<A: Into<OsString>>(
        program: &Path,
        args: impl IntoIterator<Item = A>,
        prepare: impl FnOnce(&mut Command) -> Result<()>,
    ) -> Result<Self> {
        let mut command = Command::new(this_program()?);
        command
            .arg("leash")
            .arg(program)
            .args(args.into_iter().map(Into::into))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        prepare(&mut command)?;
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let stdout = child.stdout.take().context("child has no standard output")?;
        let (sender, lines) = mpsc::sync_channel(LINES_KEPT);
        // Reads to the end even when nobody listens any more, lest the child blocks on a full pipe.
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| drop(sender.try_send(line)));
        });
        Ok(Self { child, lines, seen: Vec::new() })
    }

    pub(crate) fn process(&self) -> Process {
        Process::new(self.child.id())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        // Not reaped yet, so that the id is still its own.
        ensure!(self.status()?.is_none(), "the child has ended");
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).with_context(|| format!("cannot signal child {}", self.child.id()))
    }

    /// Returns how it ended; nothing while it runs.
    ///
    /// # Errors
    /// The kernel does not know it.
    pub(crate) fn status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("cannot look after a child")
    }

    /// Kills it, and returns when it is gone.
    ///
    /// # Errors
    /// The kernel does not know it.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until the server has said a word that begins with `prefix`, and returns the word.
    ///
    /// # Errors
    /// It ends or stays silent.
    pub(crate) fn word(&mut self, prefix: &str) -> Result<String> {
        let until = Instant::now() + START_LIMIT;
        loop {
            if let Some(word) = self.seen.iter().find_map(|line| word_of(line, prefix)) {
                return Ok(word);
            }
            let left = until.saturating_duration_since(Instant::now());
            let line = self
                .lines
                .recv_timeout(left)
                .map_err(|err| anyhow!("server did not say `{prefix}…`: {err}; it said {:?}", self.seen))?;
            self.seen.push(line);
        }
    }

    /// Waits for the next line that was not looked at by [`Self::word`].
    ///
    /// # Errors
    /// It ends or stays silent.
    pub(crate) fn line(&mut self, limit: Duration) -> Result<String> {
        Ok(self.lines.recv_timeout(limit)?)
    }

    /// Writes to the server's standard input.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("child has no standard input")?;
        stdin.write_all(bytes).context("child is gone")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(err) = self.child.kill().and_then(|()| self.child.wait()) {
            progress::say(format!("cannot end child {}: {err}", self.child.id()));
        }
    }
}

/// Becomes the given command, which the kernel will kill when the program that started it ends.
///
/// A program of our own is started as this step since only the new process can ask for it, between fork and exec,
/// where safe Rust may not run code.
///
/// # Errors
/// The command cannot be run; otherwise this does not return.
pub(crate) fn leash(command: &[OsString]) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot ask for a signal")?;
    let (program, args) = command.split_first().context("nothing to run")?;
    Err(Command::new(program).args(args).exec()).with_context(|| format!("cannot run {}", program.display()))
}

/// Returns the program itself; for a unit test, the one that is built beside it.
///
/// # Errors
/// The kernel does not say where it is.
pub(crate) fn this_program() -> Result<PathBuf> {
    let this = std::env::current_exe().context("cannot find this program")?;
    if cfg!(test) {
        let built = this.parent().and_then(Path::parent).context("no folder of programs")?;
        return Ok(built.join("loadtest"));
    }
    Ok(this)
}

/// Words end at blanks, quotes and the escape sequences of coloured logs.
fn word_of(line: &str, prefix: &str) -> Option<String> {
    let start = line.find(prefix)?;
    let word = line.get(start..)?.split([' ', '\t', '"', '\'', '`', ',', '\u{1b}']).next()?;
    Some(word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_in_any_kind_of_log_line() {
        let lines = [
            "listening on ws://127.0.0.1:1/beta",
            r#"{"msg":"up","url":"ws://127.0.0.1:1/beta"}"#,
            "\u{1b}[3murl\u{1b}[0m=ws://127.0.0.1:1/beta\u{1b}[0m",
        ];
        for line in lines {
            assert_eq!(word_of(line, "ws://").as_deref(), Some("ws://127.0.0.1:1/beta"));
        }
        assert_eq!(word_of("nothing here", "ws://"), None);
    }
}
