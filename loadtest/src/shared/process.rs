//! CPU and memory of processes and of this machine, as the kernel counts them.
//!
//! Rule: whole processes only: all threads, including those that have ended, user and system time
//! together.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use rustix::param::clock_ticks_per_second;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

/// Standard streams, epoll, /proc files and pipes to children.
const OTHER_FILES: usize = 32;

/// A process whose use of the machine is measured.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Process {
    pid: u32,
}

/// The processes that are one server together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Processes {
    pub(crate) nodes: Vec<Process>,
    /// The Redis of the nodes.
    pub(crate) store: Option<Process>,
}

/// Measures what is used from its start on.
#[derive(Debug)]
pub(crate) struct Meter<'a> {
    server: &'a Processes,
    nodes_cpu: Duration,
    store_cpu: Duration,
    client_cpu: Duration,
    machine_cpu: Duration,
    started: Instant,
}

/// What was used between two moments.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Spent {
    pub(crate) elapsed: Duration,
    /// Of all nodes together.
    pub(crate) server_cpu: Duration,
    /// Of their Redis.
    pub(crate) store_cpu: Duration,
    pub(crate) client_cpu: Duration,
    /// Of all other processes together, which disturbed the run; the kernel counts it in steps of
    /// 10 ms.
    pub(crate) others_cpu: Duration,
}

/// The machine on which a figure was measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    cores: usize,
    cpu: String,
    kernel: String,
}

impl Process {
    pub(crate) fn new(pid: u32) -> Self {
        Self { pid }
    }

    /// Returns the resident set in bytes.
    ///
    /// `smaps_rollup` walks the page tables and is exact; `VmRSS` lags by up to 64 pages per core,
    /// which would be hundreds of bytes per connection at a thousand of them, and is the fallback
    /// where the former is forbidden.
    pub(crate) fn rss(self) -> Result<u64> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", self.pid));
        let text = read("smaps_rollup")
            .or_else(|_| read("status"))
            .with_context(|| format!("cannot read the memory of process {}", self.pid))?;
        let kib = text
            .lines()
            .find_map(|line| line.strip_prefix("Rss:").or_else(|| line.strip_prefix("VmRSS:")))
            .and_then(|value| value.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
            .with_context(|| format!("process {} shows no resident set", self.pid))?;
        Ok(kib * 1024)
    }

    /// Returns the CPU time used so far by all threads, including those that have ended.
    ///
    /// The clock of a process counts nanoseconds; `/proc/PID/stat` shows the same time in steps of
    /// 10 ms.
    pub(crate) fn cpu(self) -> Result<Duration> {
        let pid = Pid::from_raw(i32::try_from(self.pid)?);
        let time = clock_getcpuclockid(pid).and_then(|clock| clock.now());
        time.map(Duration::from)
            .with_context(|| format!("cannot read the CPU time of process {}", self.pid))
    }
}

impl Processes {
    pub(crate) fn new(pids: &[u32]) -> Self {
        Self { nodes: pids.iter().map(|pid| Process::new(*pid)).collect(), store: None }
    }

    /// Returns the resident set of all nodes in bytes.
    pub(crate) fn rss(&self) -> Result<u64> {
        self.nodes.iter().map(|node| node.rss()).sum()
    }

    /// Returns the CPU time used so far by all nodes, and by their Redis.
    pub(crate) fn cpu(&self) -> Result<(Duration, Duration)> {
        let nodes: Result<Duration> = self.nodes.iter().map(|node| node.cpu()).sum();
        Ok((nodes?, self.store.map(Process::cpu).transpose()?.unwrap_or_default()))
    }
}

impl From<Process> for Processes {
    fn from(process: Process) -> Self {
        Self { nodes: vec![process], store: None }
    }
}

impl<'a> Meter<'a> {
    /// Begins to measure `server` and this client.
    pub(crate) fn start(server: &'a Processes) -> Result<Self> {
        let (nodes_cpu, store_cpu) = server.cpu()?;
        Ok(Self {
            server,
            nodes_cpu,
            store_cpu,
            client_cpu: own()?,
            machine_cpu: machine_cpu()?,
            started: Instant::now(),
        })
    }

    /// Returns what was used since the start.
    pub(crate) fn stop(&self) -> Result<Spent> {
        let elapsed = self.started.elapsed();
        let (nodes_cpu, store_cpu) = self.server.cpu()?;
        let server_cpu = nodes_cpu.saturating_sub(self.nodes_cpu);
        let store_cpu = store_cpu.saturating_sub(self.store_cpu);
        let client_cpu = own()?.saturating_sub(self.client_cpu);
        let ours = server_cpu + store_cpu + client_cpu;
        let others_cpu = machine_cpu()?.saturating_sub(self.machine_cpu + ours);
        Ok(Spent { elapsed, server_cpu, store_cpu, client_cpu, others_cpu })
    }
}

impl Machine {
    /// Describes this machine.
    pub(crate) fn this() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, cpu)| cpu));
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            cpu: cpu.unwrap_or("unknown CPU").to_owned(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
        }
    }

    pub(crate) fn describe(&self) -> String {
        format!("{} cores of {}, Linux {}", self.cores, self.cpu, self.kernel)
    }
}

/// Raises the limit on open files to the hard limit, and checks that `n` connections fit below it.
pub(crate) fn reserve_files(n: usize) -> Result<()> {
    let room = connections_of_a_process()?;
    anyhow::ensure!(n <= room, "{n} connections do not fit below the hard limit: {room} do");
    Ok(())
}

/// Raises the limit on open files to the hard limit, and returns how many connections fit below it.
pub(crate) fn connections_of_a_process() -> Result<usize> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .context("cannot raise RLIMIT_NOFILE")?;
    let files =
        limit.maximum.map_or(usize::MAX, |maximum| usize::try_from(maximum).unwrap_or(usize::MAX));
    Ok(files.saturating_sub(OTHER_FILES))
}

/// Returns the memory of the kernel's own objects, sockets among them, in bytes.
pub(crate) fn slab() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let kib = text.lines().find_map(|line| line.strip_prefix("Slab:")?.trim().strip_suffix("kB"));
    let kib: u64 = kib.context("/proc/meminfo shows no slab")?.trim().parse()?;
    Ok(kib * 1024)
}

/// Returns the user, nice and system time of all processes.
fn machine_cpu() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    Ok(sum_of_ticks(stat.split_whitespace().skip(1).take(3)))
}

fn sum_of_ticks<'a>(fields: impl Iterator<Item = &'a str>) -> Duration {
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / clock_ticks_per_second())
}

fn own() -> Result<Duration> {
    Process::new(std::process::id()).cpu()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_uses_cpu() {
        let this = Process::new(std::process::id());
        assert!(this.rss().unwrap() > 100_000);
        let before = this.cpu().unwrap();
        // Finer than a tick of 10 ms: two readings one after the other differ.
        assert!(before > Duration::ZERO && this.cpu().unwrap() > before);
        assert!(Process::new(u32::MAX).cpu().is_err());
    }

    #[test]
    fn several_processes_are_summed_and_the_store_is_apart() {
        let this = Process::new(std::process::id());
        let least = this.cpu().unwrap();
        let (nodes, store) =
            Processes { nodes: vec![this, this], store: Some(this) }.cpu().unwrap();
        assert!(nodes >= 2 * least && store >= least && store < nodes);
        assert_eq!(Processes::from(this).cpu().unwrap().1, Duration::ZERO);
    }
}
