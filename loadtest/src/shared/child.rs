//! Processes that this program starts.
//!
//! Rule: none outlives it. A child that is dropped is killed by its own process id; if this program
//! is itself killed, the kernel kills its children.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use super::process::Process;
use super::progress;

/// How long a child may take to say where it listens.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Lines that wait to be read; more are dropped, since only the first ones matter.
const LINES_KEPT: usize = 1024;

/// A running process.
#[derive(Debug)]
pub(crate) struct Child {
    child: process::Child,
    lines: Receiver<String>,
    /// Lines that were read while waiting for another.
    seen: Vec<String>,
}

impl Child {
    /// Starts a command; its standard error is appended to `log`, if there is one.
    pub(crate) fn start(command: &Command, log: Option<&Path>) -> Result<Self> {
        let program = command.get_program();
        let mut bound = Command::new(this_program()?);
        bound.arg("die-with-parent").arg(program).args(command.get_args());
        bound.stdin(Stdio::piped()).stdout(Stdio::piped());
        // The settings of the user's own gateway are not for the nodes that are started here.
        for (name, _) in
            env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GATECAST_"))
        {
            bound.env_remove(name);
        }
        bound.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(log) = log {
            bound.stderr(OpenOptions::new().create(true).append(true).open(log)?);
        }
        let mut child =
            bound.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let stdout = child.stdout.take().context("child has no standard output")?;
        let (sender, lines) = mpsc::sync_channel(LINES_KEPT);
        // Reads to the end although nobody may listen, so that the child does not block on a full
        // pipe.
        thread::spawn(move || {
            BufReader::new(stdout)
                .lines()
                .map_while(Result::ok)
                .for_each(|line| drop(sender.try_send(line)));
        });
        Ok(Self { child, lines, seen: Vec::new() })
    }

    pub(crate) fn process(&self) -> Process {
        Process::new(self.child.id())
    }

    /// Sends a signal.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        // A child that was not reaped still has its id.
        ensure!(self.status()?.is_none(), "the child has ended");
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal)
            .with_context(|| format!("cannot signal child {}", self.child.id()))
    }

    /// Returns how it ended; nothing while it runs.
    pub(crate) fn status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("cannot wait for a child")
    }

    /// Kills it, and waits until it has ended.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until it prints a word that begins with `prefix`, and returns the word.
    pub(crate) fn word(&mut self, prefix: &str) -> Result<String> {
        let until = Instant::now() + START_LIMIT;
        loop {
            if let Some(word) = self.seen.iter().find_map(|line| word_of(line, prefix)) {
                return Ok(word);
            }
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).map_err(|err| {
                anyhow!("server did not say `{prefix}…`: {err}; it said {:?}", self.seen)
            })?;
            self.seen.push(line);
        }
    }

    /// Waits for the next line that [`Self::word`] has not read.
    pub(crate) fn line(&mut self, limit: Duration) -> Result<String> {
        Ok(self.lines.recv_timeout(limit)?)
    }

    /// Writes to its standard input.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("child has no standard input")?;
        stdin.write_all(bytes).context("child is gone")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Err(err) = self.child.kill().and_then(|()| self.child.wait()) {
            progress::say(format!("cannot end child {}: {err}", self.child.id()));
        }
    }
}

/// Executes a command, which the kernel will kill when the program that started it ends. Returns
/// only if it cannot.
///
/// Only the new process can ask the kernel for that, between fork and exec, where safe Rust cannot
/// run code; so this program runs itself first.
pub(crate) fn die_with_parent(command: &[OsString]) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot ask for a signal")?;
    let (program, args) = command.split_first().context("nothing to run")?;
    Err(Command::new(program).args(args).exec())
        .with_context(|| format!("cannot run {}", program.display()))
}

/// Returns the path of this program; in a unit test, that of the program built beside it.
pub(crate) fn this_program() -> Result<PathBuf> {
    let this = env::current_exe().context("cannot find this program")?;
    if cfg!(test) {
        let built = this.parent().and_then(Path::parent).context("no folder of programs")?;
        return Ok(built.join("loadtest"));
    }
    Ok(this)
}

/// Finds a word, which ends at blanks, quotes and the escape sequences of coloured logs.
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
