//! One `redis-server` process of our own, with its directory and port, which may be killed and started again.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use redis::{Cmd, FromRedisValue};
use rustix::process::Signal;

use super::wait::Interrupt;
use crate::child::Server;
use crate::process::Process;

const START_LIMIT: Duration = Duration::from_secs(10);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Redis {
    pub(crate) port: u16,
    directory: PathBuf,
    args: Vec<String>,
    server: Option<Server>,
    interrupt: Interrupt,
}

impl Redis {
    /// Starts a server that keeps nothing unless `args` say otherwise, and waits until it answers.
    ///
    /// # Errors
    /// It does not.
    pub(crate) fn start(port: u16, parent: &Path, args: &[&str], interrupt: &Interrupt) -> Result<Self> {
        let directory = parent.join(format!("redis-{port}"));
        std::fs::create_dir_all(&directory)?;
        let fixed = ["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"];
        let args = fixed.into_iter().chain(directory.to_str()).chain(args.iter().copied());
        let args = args.map(str::to_owned).collect();
        let mut this = Self { port, directory, args, server: None, interrupt: interrupt.clone() };
        this.restart()?;
        Ok(this)
    }

    /// Starts the process, again after it was killed, and waits until it answers.
    ///
    /// # Errors
    /// It does not.
    pub(crate) fn restart(&mut self) -> Result<()> {
        let path = self.directory.join("redis.log");
        let log = OpenOptions::new().create(true).append(true).open(&path)?;
        let args = self.args.iter().map(OsString::from);
        let args = args.chain(["--logfile".into(), path.into_os_string()]);
        let server = Server::launch(Path::new("redis-server"), args, |command| {
            command.stderr(log);
            Ok(())
        })?;
        self.server = Some(server);
        self.interrupt.eventually("Redis answers", START_LIMIT, || {
            self.ask::<String>(&["PING"]).ok().filter(|answer| answer == "PONG")
        })?;
        Ok(())
    }

    /// Does a command on a connection of its own.
    ///
    /// # Errors
    /// No connection, an error for an answer, or one of another kind.
    pub(crate) fn ask<T: FromRedisValue>(&self, words: &[&str]) -> Result<T> {
        ask(self.port, words)
    }

    /// Kills it.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.server.take().context("Redis does not run")?.kill()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.server.is_some()
    }

    /// Returns the process.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) fn process(&self) -> Result<Process> {
        Ok(self.server.as_ref().context("Redis does not run")?.process())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        self.server.as_mut().context("Redis does not run")?.signal(signal)
    }
}

/// Does a command at a server of this machine.
///
/// # Errors
/// No connection, an error for an answer, or one of another kind.
pub(crate) fn ask<T: FromRedisValue>(port: u16, words: &[&str]) -> Result<T> {
    let client = redis::Client::open(("127.0.0.1", port))?;
    let mut connection = client.get_connection_with_timeout(ANSWER_LIMIT)?;
    connection.set_read_timeout(Some(ANSWER_LIMIT))?;
    let mut command = Cmd::new();
    for word in words {
        command.arg(word);
    }
    command.query(&mut connection).with_context(|| format!("{words:?} at port {port}"))
}
