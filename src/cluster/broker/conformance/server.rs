//! One `redis-server` of a test's own: started on a free port, killed when dropped.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rustix::process::{Pid, Signal, kill_process};

/// Longest wait until a server answers, or has given up.
const DEADLINE: Duration = Duration::from_secs(20);
/// Below those that the kernel gives out: otherwise a client's own end may take the port while the
/// server is away.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
/// Ports that are tried; others may be at it.
const ATTEMPTS: usize = 20;

/// See the [module documentation](self).
pub(super) struct RedisServer {
    port: u16,
    folder: PathBuf,
    child: Child,
}

impl RedisServer {
    pub(super) fn start() -> Self {
        for _ in 0..ATTEMPTS {
            let port = rand::rng().random_range(PORTS);
            let folder =
                PathBuf::from(format!("/tmp/gatecast-redis-{}-{port}", std::process::id()));
            fs::create_dir_all(&folder).expect("a folder");
            let mut server = Self { port, child: spawn(port, &folder), folder };
            if server.is_there() {
                return server;
            }
        }
        panic!("redis-server does not start: no port is free?");
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends the server at once; what it held is forgotten.
    pub(super) fn kill(&mut self) {
        self.child.kill().expect("it was ours");
        self.child.wait().expect("it was ours");
    }

    /// Starts it again, empty.
    pub(super) fn restart(&mut self) {
        self.child = spawn(self.port, &self.folder);
        assert!(self.is_there(), "redis-server does not start again");
    }

    /// Holds it, as a stall of its host does, or lets it go on.
    pub(super) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        kill_process(Pid::from_raw(id).expect("not 0"), signal).expect("it was ours");
    }

    /// Sends an inline command; returns the answer as it comes over the wire.
    pub(super) fn ask(&self, line: &str) -> std::io::Result<String> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port))?;
        socket.write_all(format!("{line}\r\nQUIT\r\n").as_bytes())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Waits until it answers; false if it has ended, since another process has the port.
    fn is_there(&mut self) -> bool {
        let own = format!("process_id:{}\r", self.child.id());
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            if self.child.try_wait().expect("it was ours").is_some() {
                return false;
            }
            if self.ask("INFO server").is_ok_and(|answer| answer.contains(&own)) {
                return true;
            }
            thread::park_timeout(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // Whatever is in the way of cleaning up is no fault of what was tested.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.folder));
    }
}

fn spawn(port: u16, folder: &PathBuf) -> Child {
    let mut command = Command::new("redis-server");
    command.args([
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--port",
        &port.to_string(),
        "--dir",
    ]);
    command.arg(folder).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| {
        panic!("redis-server cannot be run ({error}); these tests need it: apt-get install redis-server")
    })
}
