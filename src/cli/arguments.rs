//! Commands and flags, with their help.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::ops::log::LogFormat;

/// Self-hosted WebSocket gateway and relay that speaks the contract of Amazon API Gateway.
#[derive(Debug, Parser)]
#[command(name = "gatecast", version, args_conflicts_with_subcommands = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) settings: Settings,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a node (the default).
    Serve(Settings),
    /// Check the configuration, report every fault, and exit.
    Check(Settings),
    /// Print what a configuration file may say.
    Schema {
        /// A JSON schema for editors and pipelines, or a table in Markdown for people.
        #[arg(long, value_enum, default_value_t = SchemaFormat::Json)]
        format: SchemaFormat,
    },
    /// Ask the node that runs here with these settings how it is; exit with 0 if it is well, with 1
    /// if not.
    Probe {
        /// The question.
        #[arg(value_enum, default_value_t = Page::Live)]
        page: Page,
        #[command(flatten)]
        settings: Settings,
    },
    /// In Kubernetes, beside the nodes: keep the deletion cost of each pod at its number of
    /// connections, so that a scale-down takes the emptiest.
    PodDeletionCost(CostArgs),
}

/// How a schema is printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum SchemaFormat {
    Json,
    Markdown,
}

/// What a node may be asked.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Page {
    /// Whether it answers at all.
    Live,
    /// Whether it takes new connections.
    Ready,
}

/// Every setting of the file can also be set by the environment: `limits.idle_timeout` by
/// `GATECAST_LIMITS_IDLE_TIMEOUT`.
#[derive(Args, Debug)]
pub(super) struct Settings {
    /// Configuration file, in TOML.
    #[arg(long, value_name = "FILE", env = "GATECAST_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// Address for clients [default: 127.0.0.1:8080] [env: `GATECAST_LISTEN`].
    #[arg(long, value_name = "ADDRESS")]
    pub(super) listen: Option<String>,
    /// Address for metrics and health [default: 127.0.0.1:9090] [env: `GATECAST_ADMIN_LISTEN`].
    #[arg(long, value_name = "ADDRESS")]
    pub(super) admin_listen: Option<String>,
    /// Redis in which many nodes meet, `redis://HOST:PORT` [default: none, one node] [env:
    /// `GATECAST_REDIS_URL`].
    #[arg(long, value_name = "URL")]
    pub(super) redis_url: Option<String>,
    /// Path prefix of the gateway [default: beta] [env: `GATECAST_STAGE`].
    #[arg(long, value_name = "NAME")]
    pub(super) stage: Option<String>,
    /// Name of this node in logs and /info [default: the host's] [env: `GATECAST_NODE_NAME`].
    #[arg(long, value_name = "NAME")]
    pub(super) node_name: Option<String>,
    /// Starts functions anew when their files change [env: `GATECAST_WATCH`].
    #[arg(long)]
    pub(super) watch: bool,
}

#[derive(Args, Debug)]
pub(super) struct CostArgs {
    /// Labels of the nodes' pods, `KEY=VALUE,…`.
    #[arg(long, value_name = "LABELS", value_parser = NonEmptyStringValueParser::new())]
    pub(super) selector: String,
    /// Time between two looks at them, from 1s to 1h.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = interval)]
    pub(super) interval: Duration,
    /// Their namespace [default: the service account's].
    #[arg(long, value_name = "NAME")]
    pub(super) namespace: Option<String>,
    /// Folder with the service account's token, ca.crt and namespace.
    #[arg(
        long,
        value_name = "FOLDER",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount"
    )]
    pub(super) service_account: PathBuf,
    /// Host of the API server.
    #[arg(long, value_name = "HOST", env = "KUBERNETES_SERVICE_HOST")]
    pub(super) api_host: Option<String>,
    /// Port of the API server.
    #[arg(long, value_name = "PORT", env = "KUBERNETES_SERVICE_PORT", default_value_t = 443, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) api_port: u16,
    /// Address for this process's own metrics and health.
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "GATECAST_ADMIN_LISTEN",
        default_value = "127.0.0.1:9090"
    )]
    pub(super) admin_listen: SocketAddr,
    /// How log lines look.
    #[arg(long, value_enum, env = "GATECAST_LOG_FORMAT", default_value_t = LogFormat::Text)]
    pub(super) log_format: LogFormat,
}

fn interval(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let allowed = Duration::from_secs(1)..=Duration::from_secs(3_600);
    if allowed.contains(&time) { Ok(time) } else { Err("not from 1s to 1h".to_owned()) }
}
