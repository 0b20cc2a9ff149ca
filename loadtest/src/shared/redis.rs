//! One `redis-server` process of our own, with its directory and port, which may be killed and started again.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use redis::{Cmd, FromRedisValue};
use rustix::process::Signal;

use super::faketime;
use super::wait::Interrupt;
use crate::shared::child::Server;
use crate::shared::process::Process;

const START_LIMIT: Duration = Duration::from_secs(10);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const DUMP: &str = "dump.rdb";

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Redis {
    pub(crate) port: u16,
    directory: PathBuf,
    args: Vec<String>,
    /// The file that says by how much its clock is wrong.
    clock: Option<PathBuf>,
    server: Option<Server>,
    interrupt: Interrupt,
}

impl Redis {
    /// Starts a server that keeps nothing unless `args` say otherwise, and waits until it answers.
    ///
    /// # Errors
    /// It does not.
    pub(crate) fn start(port: u16, parent: &Path, args: &[&str], interrupt: &Interrupt) -> Result<Self> {
        Self::start_with_clock(port, parent, args, interrupt, false)
    }

    /// The same, with a clock that can be set where that is wanted.
    ///
    /// # Errors
    /// It does not answer; or there is no `libfaketime`.
    pub(crate) fn start_with_clock(
        port: u16,
        parent: &Path,
        args: &[&str],
        interrupt: &Interrupt,
        has_clock: bool,
    ) -> Result<Self> {
        let directory = parent.join(format!("redis-{port}"));
        std::fs::create_dir_all(&directory)?;
        let clock = has_clock.then(|| directory.join("clock"));
        let fixed = ["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"];
        let args = fixed.into_iter().chain(directory.to_str()).chain(args.iter().copied());
        let args = args.map(str::to_owned).collect();
        let mut this = Self { port, directory, args, clock, server: None, interrupt: interrupt.clone() };
        if has_clock {
            this.set_clock(0)?;
        }
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
        // `env` sets what must not get into the leash.
        let settings = match &self.clock {
            Some(file) => faketime::settings(file)?,
            None => Vec::new(),
        };
        let args = settings.into_iter().chain(["redis-server".into()]).chain(args);
        let server = Server::launch(Path::new("env"), args, |command| {
            command.stderr(log);
            Ok(())
        })?;
        self.server = Some(server);
        self.interrupt.eventually("Redis answers", START_LIMIT, || {
            self.ask::<String>(&["PING"]).ok().filter(|answer| answer == "PONG")
        })?;
        Ok(())
    }

    /// Steps its wall clock, which then goes on, so many seconds away from the machine's.
    ///
    /// # Errors
    /// It has none of its own.
    pub(crate) fn set_clock(&self, seconds: i64) -> Result<()> {
        let file = self.clock.as_ref().context("this Redis has the machine's clock")?;
        // In one step: a reader must not find it empty.
        let new = file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n"))?;
        Ok(std::fs::rename(new, file)?)
    }

    /// Keeps what it has now under a name.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) fn snapshot(&self, name: &str) -> Result<()> {
        self.ask::<String>(&["SAVE"])?;
        std::fs::copy(self.directory.join(DUMP), self.directory.join(name))?;
        Ok(())
    }

    /// Puts in place what it is to begin with: what was kept under a name, or nothing. A server with a log reads that.
    ///
    /// # Errors
    /// There is no such name.
    pub(crate) fn put_back(&self, name: Option<&str>) -> Result<()> {
        let dump = self.directory.join(DUMP);
        match name {
            Some(name) => drop(std::fs::copy(self.directory.join(name), dump)?),
            None if dump.exists() => std::fs::remove_file(dump)?,
            None => {}
        }
        Ok(())
    }

    /// Sends a command and does not wait: a server that is frozen finds it when it wakes.
    ///
    /// # Errors
    /// No connection.
    pub(crate) fn tell(&self, words: &[&str]) -> Result<TcpStream> {
        let mut command = Cmd::new();
        for word in words {
            command.arg(word);
        }
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.write_all(&command.get_packed_command())?;
        Ok(stream)
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
