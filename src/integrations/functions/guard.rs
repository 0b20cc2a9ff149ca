//! Kills what a node that has crashed leaves behind.
//!
//! The kernel's own means (`PR_SET_PDEATHSIG`) need code between fork and exec, which is unsafe,
//! and reach no grandchildren. So a shell, in a group of its own, is told of every group of
//! processes, and kills them all once its input ends.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// `+` and a group begin to be watched, `-` and a group are over.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
groups=' '
while read -r sign group; do
  case $sign in
    +) groups="$groups$group " ;;
    -) groups="${groups%% $group *} ${groups#* $group }" ;;
  esac
done
for group in $groups; do kill -KILL "-$group"; done
"#;

/// Longest wait for the shell to end.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Guard {
    input: Mutex<Option<UnixStream>>,
    shell: Mutex<Option<Child>>,
}

/// A group of processes. Dropped, all of them are killed.
#[derive(Debug)]
pub(super) struct Group<'g> {
    pid: Pid,
    guard: &'g Guard,
}

impl Guard {
    /// Starts the shell. Where there is none, processes end when they next ask for work.
    pub(super) fn start() -> Self {
        let started = Self::shell().inspect_err(|error| {
            tracing::warn!(
                %error,
                "no /bin/sh to kill the processes of functions if this node crashes; those that hang would stay"
            );
        });
        let (shell, input) = started.ok().unzip();
        Self { input: Mutex::new(input), shell: Mutex::new(shell) }
    }

    /// Not a pipe of tokio's: what the first of these is told cannot wait for an event.
    fn shell() -> io::Result<(Child, UnixStream)> {
        let (ours, its) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let child = Command::new("/bin/sh")
            .args(["-c", SCRIPT])
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(OwnedFd::from(its))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok((child, ours))
    }

    /// Takes a group that a process leads.
    pub(super) fn watch(&self, leader: &Child) -> Option<Group<'_>> {
        let pid = leader.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw)?;
        self.tell('+', pid);
        Some(Group { pid, guard: self })
    }

    /// Ends the shell, and with it what is still watched.
    pub(super) async fn end(&self) {
        drop(self.input.lock().take());
        let shell = self.shell.lock().take();
        if let Some(mut shell) = shell {
            // It has nothing left to do.
            _ = timeout(END_TIMEOUT, shell.wait()).await;
        }
    }

    fn tell(&self, sign: char, pid: Pid) {
        let mut input = self.input.lock();
        let Some(shell) = input.as_mut() else { return };
        if let Err(error) = shell.write_all(format!("{sign} {}\n", pid.as_raw_nonzero()).as_bytes())
        {
            tracing::warn!(%error, "the shell that guards the processes of functions is gone; restart this node");
            *input = None;
        }
    }
}

impl Group<'_> {
    /// Sends all a signal. There may be none left.
    pub(super) fn signal(&self, signal: Signal) {
        _ = kill_process_group(self.pid, signal);
    }
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        self.guard.tell('-', self.pid);
    }
}
