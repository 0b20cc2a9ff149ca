//! The command line: `gatecast [serve]`, `check`, `schema`, `probe` and `pod-deletion-cost`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use clap::Parser as _;
use tokio::runtime::Runtime;
use tokio::signal::unix::Signal;

use self::arguments::{Cli, Command, CostArgs, Page, SchemaFormat, Settings};
use crate::config::{self, Config, Fault, Sources};
use crate::kubernetes::{CostController, CostControllerError, Settings as Costs};
use crate::node::{Losses, Node, StartError, descriptors};
use crate::ops::lifecycle::{Signals, hang_ups};
use crate::ops::log::LogFormat;
use crate::ops::log::{self, Log};
use crate::ops::probe;

mod arguments;

/// The configuration or the command line is wrong (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;
/// Something that is needed, such as a port, is not available (`EX_UNAVAILABLE`).
const EXIT_UNAVAILABLE: u8 = 69;
/// A part of the node that has to run for ever has ended: a bug, or a kernel out of resources
/// (`EX_SOFTWARE`).
const EXIT_FAILED: u8 = 70;
/// Others have taken this node for dead; to be started again (`EX_TEMPFAIL`).
const EXIT_FENCED: u8 = 75;
/// Connections were cut on the way out.
const EXIT_CUT: u8 = 1;
/// The node that was asked is not well, or not there.
const EXIT_UNWELL: u8 = 1;
/// Longest wait for whoever reads what we print.
const PRINT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for what still runs when the node has ended.
const RUNTIME_TIMEOUT: Duration = Duration::from_secs(1);

/// Parses the command line and does what it says.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    match cli.command {
        None => serve(cli.settings),
        Some(Command::Serve(settings)) => serve(settings),
        Some(Command::Check(settings)) => check(settings),
        Some(Command::Schema { format }) => {
            say(&match format {
                SchemaFormat::Json => format!("{:#}", config::schema()),
                SchemaFormat::Markdown => config::reference(),
            });
            ExitCode::SUCCESS
        }
        Some(Command::Probe { page, settings }) => probe(page, settings),
        Some(Command::PodDeletionCost(args)) => keep_costs(args),
    }
}

fn check(settings: Settings) -> ExitCode {
    match load(settings) {
        Ok((mut config, _)) => {
            let (stage, routes) = (&config.stage, config.routes.iter().count());
            say(&format!("The configuration is valid: stage {stage}, {routes} routes."));
            for warning in &config.warnings {
                say(&format!("Warning: {warning}."));
            }
            if let Some(room) = descriptors::fit_to_most(&mut config) {
                say(&format!(
                    "Warning: limits.max_connections is more than {room}, for which the limit of open files here has room \
                     (ulimit -Hn, LimitNOFILE)."
                ));
            }
            ExitCode::SUCCESS
        }
        Err(refusal) => refuse(EXIT_USAGE, &refusal),
    }
}

fn probe(page: Page, settings: Settings) -> ExitCode {
    let config = match load(settings) {
        Ok((config, _)) => config,
        Err(refusal) => return refuse(EXIT_USAGE, &refusal),
    };
    let page = match page {
        Page::Live => "live",
        Page::Ready => "ready",
    };
    match probe::ask(config.admin_listen, page) {
        Ok((true, answer)) => {
            say(&answer);
            ExitCode::SUCCESS
        }
        Ok((false, answer)) => refuse(EXIT_UNWELL, &answer),
        Err(error) => refuse(EXIT_UNWELL, &format!("{}: {error}", config.admin_listen)),
    }
}

fn serve(settings: Settings) -> ExitCode {
    let (runtime, hang_ups) = match start_runtime() {
        Ok(started) => started,
        Err(error) => {
            return refuse(EXIT_UNAVAILABLE, &format!("cannot start the runtime: {error}"));
        }
    };
    let (config, sources) = match load(settings) {
        Ok(loaded) => loaded,
        Err(refusal) => return refuse(EXIT_USAGE, &refusal),
    };
    let log = match start_log(config.log_format) {
        Ok(log) => log,
        Err(error) => return refuse(EXIT_UNAVAILABLE, &format!("cannot start the log: {error}")),
    };
    let served = serve_node(&runtime, config, hang_ups, sources);
    runtime.shutdown_timeout(RUNTIME_TIMEOUT);
    log.finish();
    served.unwrap_or_else(|reason| refuse(EXIT_UNAVAILABLE, &reason))
}

/// Starts the runtime, and listens to SIGHUP before the file is read: one that comes meanwhile must
/// neither end the process nor be lost.
fn start_runtime() -> io::Result<(Runtime, Signal)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let inside = runtime.enter();
    let hang_ups = hang_ups()?;
    drop(inside);
    Ok((runtime, hang_ups))
}

/// Runs a node to its end; in vain if it does not start, and then it says why.
fn serve_node(
    runtime: &Runtime,
    mut config: Config,
    hang_ups: Signal,
    sources: Sources,
) -> Result<ExitCode, String> {
    descriptors::raise();
    descriptors::fit(&mut config);
    tracing::info!(config = ?config, "configuration");
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    runtime.block_on(run_node(config, hang_ups, sources)).map_err(|error| error.to_string())
}

async fn run_node(
    config: Config,
    hang_ups: Signal,
    sources: Sources,
) -> Result<ExitCode, StartError> {
    let mut signals = Signals::listen(None)?;
    let node = Node::start(&config)?;
    greet(&config, &node);
    node.reload_at(hang_ups, sources, config);
    let code = tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, "shutting down");
            0
        }
        () = node.fenced() => EXIT_FENCED,
        () = node.failed() => EXIT_FAILED,
    };
    let hurry = async {
        if code == EXIT_FENCED {
            let signal = signals.next().await;
            tracing::info!(signal, "shutting down already");
        }
        let signal = signals.next().await;
        tracing::warn!(signal, "a second signal: exiting at once");
    };
    let Losses { connections, messages, is_fenced } = node.shut_down(hurry).await;
    if connections == 0 {
        tracing::info!("all connections are closed");
    } else {
        tracing::warn!(connections, messages, "connections were cut");
    }
    Ok(ExitCode::from(match code {
        EXIT_FAILED => EXIT_FAILED,
        _ if is_fenced => EXIT_FENCED,
        _ if connections > 0 => EXIT_CUT,
        _ => code,
    }))
}

fn keep_costs(args: CostArgs) -> ExitCode {
    let Some(host) = args.api_host.filter(|host| !host.is_empty()) else {
        let reason = "KUBERNETES_SERVICE_HOST is not set, so this is no pod: see k8s/components/deletion-cost for how to run \
                      this command, or name the API server by --api-host.";
        return refuse(EXIT_USAGE, reason);
    };
    let log = match start_log(args.log_format) {
        Ok(log) => log,
        Err(error) => return refuse(EXIT_UNAVAILABLE, &format!("cannot start the log: {error}")),
    };
    let settings = Costs {
        interval: args.interval,
        selector: args.selector,
        namespace: args.namespace,
        service_account: args.service_account,
        host,
        port: args.api_port,
        admin_listen: args.admin_listen,
    };
    // One thread: a round waits, as a rule.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let code = match runtime {
        Ok(runtime) => runtime.block_on(run_keeper(settings)),
        Err(error) => refuse(EXIT_UNAVAILABLE, &format!("cannot start the runtime: {error}")),
    };
    log.finish();
    code
}

async fn run_keeper(settings: Costs) -> ExitCode {
    let started = hang_ups()
        .and_then(|ignored| Signals::listen(Some(ignored)))
        .map_err(|error| CostControllerError::from(StartError::from(error)))
        .and_then(|signals| Ok((signals, CostController::start(settings)?)));
    let (mut signals, controller) = match started {
        Ok(started) => started,
        Err(error) => return refuse(EXIT_UNAVAILABLE, &error.to_string()),
    };
    say(&format!(
        "gatecast {} keeps deletion costs\n  Admin       http://{}  (/metrics /live)",
        env!("CARGO_PKG_VERSION"),
        controller.admin
    ));
    tokio::select! {
        signal = signals.next() => tracing::info!(signal, "ending"),
        never = controller.run() => match never {},
    }
    ExitCode::SUCCESS
}

/// Prints where the node is to be found.
fn greet(config: &Config, node: &Node) {
    let (public, admin, stage) = (node.public, node.admin, &config.stage);
    tracing::info!(%public, %admin, stage, node.name = config.node_name, "listening");
    say(&format!(
        "gatecast {} is listening\n  \
         WebSockets  ws://{public}/{stage}\n  \
         Management  http://{public}/{stage}/@connections\n  \
         Admin       http://{admin}  (/metrics /live /ready /info)\n  \
         Try         wscat -c ws://{public}/{stage}",
        env!("CARGO_PKG_VERSION"),
    ));
}

fn load(settings: Settings) -> Result<(Config, Sources), String> {
    let mut sources = Sources { path: settings.config, ..Sources::default() };
    sources.read_file()?;
    for (name, value) in std::env::vars_os() {
        sources.set_variable(&name, value);
    }
    sources.set_flag("listen", settings.listen);
    sources.set_flag("admin_listen", settings.admin_listen);
    sources.set_flag("redis_url", settings.redis_url);
    sources.set_flag("stage", settings.stage);
    sources.set_flag("node_name", settings.node_name);
    sources.set_flag("watch", settings.watch.then(|| "true".to_owned()));
    if let Err(message) = log::check(std::env::var_os("RUST_LOG").as_deref()) {
        sources.faults.push(Fault { place: "RUST_LOG".to_owned(), key: String::new(), message });
    }
    let config = Config::load(&sources).map_err(|faults| Fault::list(&faults))?;
    Ok((config, sources))
}

fn start_log(format: LogFormat) -> io::Result<Log> {
    let wanted = std::env::var_os("RUST_LOG");
    Log::start(format, wanted.as_ref().map(|text| text.to_string_lossy()).as_deref())
}

/// Prints for the operator who started us; a closed standard output is no reason to stop.
fn say(text: &str) {
    print(io::stdout, format!("{text}\n"));
}

fn refuse(code: u8, reason: &str) -> ExitCode {
    print(io::stderr, format!("gatecast: {reason}\n"));
    ExitCode::from(code)
}

/// Writes to a standard stream by a thread of its own, since it may be a pipe that nobody reads.
fn print<W: Write>(stream: impl FnOnce() -> W + Send + 'static, text: String) {
    let (done, written) = mpsc::sync_channel(1);
    let printer = std::thread::Builder::new().spawn(move || {
        let printed = stream().write_all(text.as_bytes()).is_ok();
        // Nobody waits any more if that took too long.
        let _in_time = done.send(printed).is_ok();
    });
    if printer.is_ok() {
        let _printed = written.recv_timeout(PRINT_TIMEOUT).is_ok();
    }
}
