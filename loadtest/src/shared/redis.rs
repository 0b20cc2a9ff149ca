//! One `redis-server` process with a directory and a port of its own, which may be killed and
//! started again.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use redis::{Cmd, FromRedisValue};

use super::child::Child;
use super::faketime;
use super::wait::Interrupt;
use super::workspace::Workspace;

const START_LIMIT: Duration = Duration::from_secs(10);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Servers that belong together find each other in this time.
pub(crate) const FORM_LIMIT: Duration = Duration::from_secs(30);
const DUMP: &str = "dump.rdb";

/// A `redis-server` process.
#[derive(Debug)]
pub(crate) struct Redis {
    pub(crate) port: u16,
    directory: PathBuf,
    args: Vec<String>,
    /// The file that says by how much its clock is wrong.
    clock: Option<PathBuf>,
    /// None while it is killed.
    child: Option<Child>,
    interrupt: Interrupt,
}

impl Redis {
    /// Starts a server without persistence, unless `args` say otherwise, and waits until it
    /// answers.
    pub(crate) fn start(workspace: &mut Workspace, args: &[&str]) -> Result<Self> {
        Self::start_with_clock(workspace, args, false)
    }

    /// Does the same, with a clock of its own where that is wanted.
    pub(crate) fn start_with_clock(
        workspace: &mut Workspace,
        args: &[&str],
        has_clock: bool,
    ) -> Result<Self> {
        let port = workspace.ports.allocate()?;
        let directory = workspace.directory.join(format!("redis-{port}"));
        fs::create_dir_all(&directory)?;
        let clock = has_clock.then(|| directory.join("clock"));
        let fixed = ["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"];
        let args = fixed.into_iter().chain(directory.to_str()).chain(args.iter().copied());
        let args = args.map(str::to_owned).collect();
        let interrupt = workspace.interrupt.clone();
        let mut this = Self { port, directory, args, clock, child: None, interrupt };
        if has_clock {
            this.set_clock(0)?;
        }
        this.restart()?;
        Ok(this)
    }

    /// Starts the process, again after it was killed, and waits until it answers.
    pub(crate) fn restart(&mut self) -> Result<()> {
        let log = self.directory.join("redis.log");
        // `env` sets what only Redis may see.
        let mut command = Command::new("env");
        if let Some(file) = &self.clock {
            command.args(faketime::settings(file)?);
        }
        command.arg("redis-server").args(&self.args).arg("--logfile").arg(&log);
        self.child = Some(Child::start(&command, Some(&log))?);
        self.interrupt.eventually("Redis answers", START_LIMIT, || {
            self.ask::<String>(&["PING"]).ok().filter(|answer| answer == "PONG")
        })?;
        Ok(())
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Steps its wall clock, which then runs on, to this many seconds from the machine's.
    pub(crate) fn set_clock(&self, seconds: i64) -> Result<()> {
        let file = self.clock.as_ref().context("this Redis has the machine's clock")?;
        // Atomically: a reader must not find it empty.
        let new = file.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n"))?;
        Ok(fs::rename(new, file)?)
    }

    /// Saves a snapshot under a name.
    pub(crate) fn snapshot(&self, name: &str) -> Result<()> {
        self.ask::<String>(&["SAVE"])?;
        fs::copy(self.directory.join(DUMP), self.directory.join(name))?;
        Ok(())
    }

    /// Restores a snapshot, or removes the dump, for the next start; a server with an append-only
    /// file reads that instead.
    pub(crate) fn put_back(&self, name: Option<&str>) -> Result<()> {
        let dump = self.directory.join(DUMP);
        match name {
            Some(name) => drop(fs::copy(self.directory.join(name), dump)?),
            None if dump.exists() => fs::remove_file(dump)?,
            None => {}
        }
        Ok(())
    }

    /// Sends a command without waiting for the answer: a server that is stopped executes it when it
    /// goes on.
    pub(crate) fn tell(&self, words: &[&str]) -> Result<TcpStream> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.write_all(&command(words).get_packed_command())?;
        Ok(stream)
    }

    /// Executes a command on a connection of its own.
    pub(crate) fn ask<T: FromRedisValue>(&self, words: &[&str]) -> Result<T> {
        ask(self.port, words)
    }

    /// Returns the process.
    pub(crate) fn child(&mut self) -> Result<&mut Child> {
        self.child.as_mut().context("Redis does not run")
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.take().context("Redis does not run")?.kill()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }
}

/// Starts again all that were killed.
pub(crate) fn revive(servers: &mut [Redis]) -> Result<()> {
    servers.iter_mut().filter(|server| !server.is_running()).try_for_each(Redis::restart)
}

/// Returns whether a server of this machine is a master, according to itself.
pub(crate) fn is_master(port: u16) -> bool {
    ask::<String>(port, &["INFO", "replication"]).is_ok_and(|info| info.contains("role:master"))
}

/// Joins addresses as the URLs of Sentinel and Cluster have them.
pub(crate) fn addresses(ports: impl Iterator<Item = u16>) -> String {
    ports.map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
}

/// Executes a command at a port of this machine, on a connection of its own.
pub(crate) fn ask<T: FromRedisValue>(port: u16, words: &[&str]) -> Result<T> {
    let client = redis::Client::open(("127.0.0.1", port))?;
    let mut connection = client.get_connection_with_timeout(ANSWER_LIMIT)?;
    connection.set_read_timeout(Some(ANSWER_LIMIT))?;
    command(words).query(&mut connection).with_context(|| format!("{words:?} at port {port}"))
}

fn command(words: &[&str]) -> Cmd {
    let mut command = Cmd::new();
    for word in words {
        command.arg(word);
    }
    command
}
