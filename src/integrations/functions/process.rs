//! One process of a function, from its start to its end.
//!
//! *Rule:* it leads a group of its own, and nothing of the group is left once it has ended.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::common::Common;
use super::environment::variables;
use super::function::Function;
use super::guard::{Group, Guard};
use super::output::{self, LastWords, Pace};
use super::pool::ProcessId;
use super::runtime_api::RuntimeApi;
use crate::config::{FunctionSettings, Runtime};
use crate::integrations::invoke::InvokeError;
use crate::ops::metrics::GaugeGuard;

/// What Node.js is given to run.
const BOOTSTRAP: &str = include_str!("bootstrap.mjs");

/// Longest time from SIGTERM to the exit; then it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest wait for what a process that has ended wrote last.
const WORDS_TIMEOUT: Duration = Duration::from_millis(200);

/// Longest time for a body that is posted after the time of its run.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What all processes of a function are made of.
#[derive(Debug)]
pub(super) struct Plant {
    pub(super) settings: FunctionSettings,
    pub(super) common: Arc<Common>,
    pub(super) guard: Arc<Guard>,
    pub(super) pace: Pace,
}

/// How a process is told to end.
#[derive(Clone, Debug, Default)]
pub(super) struct Ends {
    /// Asks it to.
    pub(super) stop: CancellationToken,
    /// Does not ask.
    pub(super) kill: CancellationToken,
}

/// Runs a process, and tells the pool of its end.
pub(super) async fn run(plant: Arc<Plant>, function: Arc<Function>, id: ProcessId, ends: Ends) {
    let _counted = GaugeGuard::new(&function.counters.processes);
    let told = Told { function: &function, id };
    let words = Arc::new(LastWords::default());
    let ended = live(&plant, &function, id, &ends, &words).await;
    let error = plant.why(ended, &words);
    told.exited(error);
}

/// Tells the pool of the end of a process, also if this task panics.
struct Told<'f> {
    function: &'f Function,
    id: ProcessId,
}

impl Told<'_> {
    fn exited(&self, error: InvokeError) {
        let (name, process, text) = (&*self.function.name, self.id, error.to_string());
        let end = self.function.with(|pool, now| pool.exited(self.id, error, now));
        if let Some(end) = end {
            self.function.counters.count_end(end);
            tracing::debug!(function = name, process, ?end, error = text, "a process has ended");
        }
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        let message = "the process was given up".to_owned();
        self.exited(InvokeError::Function { kind: "Runtime.ExitError".to_owned(), message });
    }
}

async fn live(
    plant: &Arc<Plant>,
    function: &Arc<Function>,
    id: ProcessId,
    ends: &Ends,
    words: &Arc<LastWords>,
) -> io::Result<ExitStatus> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let mut child = plant.command(port).spawn()?;
    // Dropped before the child is, also where this task is cancelled.
    let group = plant.guard.watch(&child);
    let concurrency = plant.settings.concurrency;
    let api = RuntimeApi {
        function: Arc::clone(function),
        process: id,
        port,
        concurrency,
        body_timeout: BODY_TIMEOUT,
    };
    let (mut server, mut readers) = (JoinSet::new(), JoinSet::new());
    server.spawn(api.serve(listener));
    let (errors, texts) = (child.stderr.take(), child.stdout.take());
    if let Some(pipe) = errors {
        let (plant, function, words) = (Arc::clone(plant), Arc::clone(function), Arc::clone(words));
        readers.spawn(async move {
            output::read(pipe, &function, id, &plant.pace, Some(&words)).await;
        });
    }
    if let Some(pipe) = texts {
        let (plant, function) = (Arc::clone(plant), Arc::clone(function));
        readers.spawn(async move { output::read(pipe, &function, id, &plant.pace, None).await });
    }
    if let Some(mut input) = child.stdin.take() {
        // It fits into the pipe, and whoever ends before it has read all says why itself.
        _ = input.write_all(BOOTSTRAP.as_bytes()).await;
    }
    tracing::debug!(
        function = &*function.name,
        process = id,
        pid = child.id(),
        port,
        "a process was started"
    );
    let status = until_exit(&mut child, group.as_ref(), ends).await;
    drop(group);
    // What has left the group may hold the pipes open.
    _ = timeout(WORDS_TIMEOUT, async { while readers.join_next().await.is_some() {} }).await;
    status
}

async fn until_exit(
    child: &mut Child,
    group: Option<&Group<'_>>,
    ends: &Ends,
) -> io::Result<ExitStatus> {
    let signal = |signal| {
        if let Some(group) = group {
            group.signal(signal);
        }
    };
    tokio::select! {
        status = child.wait() => return status,
        () = ends.kill.cancelled() => {}
        () = ends.stop.cancelled() => {
            signal(Signal::TERM);
            tokio::select! {
                status = child.wait() => return status,
                () = ends.kill.cancelled() => {}
                () = tokio::time::sleep(STOP_TIMEOUT) => {}
            }
        }
    }
    signal(Signal::KILL);
    child.wait().await
}

impl Plant {
    fn command(&self, port: u16) -> Command {
        let settings = &self.settings;
        let handler = settings.handler.as_deref().unwrap_or_default();
        let (program, more): (_, &[&str]) = match settings.runtime {
            Runtime::Node => ("node", &["--input-type=module", "-"]),
            Runtime::Python => ("python3", &["-m", "awslambdaric", handler]),
            Runtime::Command => ("./bootstrap", &[]),
        };
        let given = settings.command.split_first();
        let (program, arguments) =
            given.map_or((program, &[] as &[String]), |(program, rest)| (program.as_str(), rest));
        let input = if settings.runtime == Runtime::Node { Stdio::piped() } else { Stdio::null() };
        let mut command = Command::new(resolved(program, &settings.code));
        command
            .args(arguments)
            .args(more)
            .env_clear()
            .envs(variables(settings, &self.common, port))
            .current_dir(&settings.code)
            .process_group(0)
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Says why a process has ended, and what to do where that is known.
    fn why(&self, ended: io::Result<ExitStatus>, words: &LastWords) -> InvokeError {
        let function =
            |kind: &str, message| InvokeError::Function { kind: kind.to_owned(), message };
        let status = match ended {
            Ok(status) => status,
            Err(error) => {
                let code = self.settings.code.display();
                let message =
                    format!("cannot be started: {error}; see its command and its folder, {code}");
                return function("Runtime.InvalidEntrypoint", message);
            }
        };
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, signal) => format!("signal {}", signal.unwrap_or_default()),
        };
        let cure = match self.settings.runtime {
            Runtime::Python if words.have("No module named awslambdaric") => {
                "; its Python has no Runtime Interface Client: pip install awslambdaric".to_owned()
            }
            _ => words.last().map(|last| format!("; it wrote last: {last}")).unwrap_or_default(),
        };
        function("Runtime.ExitError", format!("the process ended with {how}{cure}"))
    }
}

/// A program in the folder of the code, if it is named by a path; otherwise one that is looked for.
fn resolved(program: &str, code: &Path) -> PathBuf {
    if program.contains('/') { code.join(program) } else { program.into() }
}
