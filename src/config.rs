//! What an operator can set: flags before environment before file before default.
//!
//! Every limit is finite and has a range; every fault is found in one pass and says its line and its fix.

#![expect(unreachable_pub, reason = "to be restricted")]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;

use self::reader::Reader;
use self::variables::PREFIX;
use crate::model::broker::Terms;
use crate::model::groups::Groups;
use crate::model::origin::OriginPattern;
use crate::ops::log::LogFormat;
use crate::ops::trace::Tracing;
use crate::routing::route::RouteTable;

mod access;
mod fault;
mod file;
mod groups;
mod otel;
mod pairs;
mod reader;
mod redis_url;
mod routes;
mod secret;
mod sections;
mod settings;
mod tls;
mod variables;

pub use self::fault::Fault;
pub use self::file::configuration;
pub use self::redis_url::{RedisTopology, RedisUrl};
pub use self::secret::Secret;

/// All settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where operators and probes connect.
    pub admin_listen: SocketAddr,
    /// Path prefix of the gateway.
    pub stage: String,
    /// Name of this node in logs and `/info`.
    pub node_name: String,
    /// Event loops; 0 for one a core.
    pub shards: usize,
    /// Form of the log.
    pub log_format: LogFormat,
    /// Bounds.
    pub limits: Limits,
    /// Shutdown.
    pub drain: Drain,
    /// Who may use the management API.
    pub management: Management,
    /// Who may connect.
    pub auth: Auth,
    /// What stands between clients and the node.
    pub proxies: ProxySettings,
    /// Where many nodes meet; `None` for a node that is alone.
    pub redis: Option<RedisSettings>,
    /// What becomes of spans.
    pub tracing: Tracing,
    /// What differs between groups.
    pub groups: Groups,
    /// What messages do.
    pub routes: RouteTable,
    /// What is understood and yet hardly meant, such as variables of the environment that are no settings.
    pub warnings: Vec<String>,
}

/// Bounds on what a client may do and hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most connections at a time; over it the handshake is answered 503.
    pub max_connections: usize,
    /// Most HTTP connections of a port whose request is not being served, most handshakes and most calls that are; over it the
    /// idle and the late give way, and the others wait.
    pub max_http_connections: usize,
    /// Most handshakes that are let in a second, with a burst of one second's; over it they are answered 503.
    pub handshake_rate: usize,
    /// What each address may have of the way in.
    pub per_address: PerAddress,
    /// Longest time for a request's head, a PROXY header before it included; for its body; and without any of its answer taken.
    pub handshake_timeout: Duration,
    /// Longest time between the requests of an HTTP connection.
    pub keep_alive_timeout: Duration,
    /// Longest payload of a frame from a client, in bytes.
    pub frame_bytes: usize,
    /// Longest message, in bytes.
    pub message_bytes: usize,
    /// Whether binary messages are taken.
    pub allow_binary: bool,
    /// Most messages and control frames a second from one connection, with a burst of one second's; whoever sends more is not
    /// read from meanwhile.
    pub message_rate: usize,
    /// Most bytes a second from one connection, with a burst of one second's and no more than half an outbox.
    pub receive_bytes_rate: usize,
    /// Most bytes a second from one connection, each counting once for every member on this node that it goes to, with a burst
    /// of one second's.
    pub fanout_bytes_rate: usize,
    /// Most groups a second that one connection may name which this node has not seen lately, with a burst of ten seconds' or
    /// of all that it may be in.
    pub new_channels_rate: usize,
    /// The same for all connections of one address, with a burst of four seconds'; `None` for no bound.
    pub new_channels_per_address: Option<usize>,
    /// Longest time without a message in either direction.
    pub idle_timeout: Duration,
    /// Longest life of a connection.
    pub max_lifetime: Duration,
    /// Time between pings, jittered by a tenth; `None` for none.
    pub ping_interval: Option<Duration>,
    /// Longest wait for anything from the client after a ping.
    pub pong_timeout: Duration,
    /// Most bytes waiting for a client.
    pub outbox_bytes: usize,
    /// Longest time that bytes may wait for a client without any progress.
    pub outbox_age: Duration,
    /// Longest wait for the client's close frame after ours, and for progress where it is owed nothing.
    pub close_timeout: Duration,
    /// Most groups one connection may be in.
    pub groups_per_connection: usize,
    /// How long a message's idempotency key is remembered.
    pub idempotency_age: Duration,
    /// Most bytes that clients and callers together may make the node hold; 0 for half of what the process may use.
    pub memory_budget: usize,
}

/// What may be on its way to a client unseen, in kernels and proxies, in outboxes.
const UNDER_WAY_MAX: f64 = 4.0;

impl Limits {
    /// Returns the time that a client has for so many bytes on their way: `outbox_age` for each `outbox_bytes`, by default
    /// 35 kB/s, and four times that at most.
    #[must_use]
    pub fn lag(&self, bytes: u64) -> Duration {
        self.outbox_age.mul_f64((bytes as f64 / self.outbox_bytes as f64).min(UNDER_WAY_MAX))
    }
}

/// Bounds on what one address may have; over them its handshakes are answered 429.
#[derive(Clone, Copy, Debug, Default)]
pub struct PerAddress {
    /// Most handshakes a second, with a burst of four seconds'; `None` for no bound.
    pub handshake_rate: Option<usize>,
    /// Most connections at a time; `None` for no bound.
    pub connections: Option<usize>,
    /// Whether there are no bounds only because nobody has asked for them.
    pub is_unset: bool,
}

/// How a node shuts down.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// Time between "not ready" and the end of accepting, for load balancers to notice.
    pub notice: Duration,
    /// Time over which connections are closed.
    pub window: Duration,
    /// Fewest connections closed a second where no other node takes them, so that a few do not take the whole window.
    pub min_rate: usize,
    /// Time from the end of `window` after which what is left is cut.
    pub grace: Duration,
}

/// Who may use the management API.
#[derive(Clone, Debug)]
pub struct Management {
    /// How callers prove who they are; chosen by [`Config`] where the operator did not.
    pub auth: ManagementAuth,
    /// Keys that callers sign with.
    pub keys: Vec<AccessKey>,
    /// Largest difference between the caller's clock and ours.
    pub clock_skew: Duration,
}

/// How callers of the management API prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManagementAuth {
    /// By an AWS Signature Version 4.
    SigV4,
    /// Not at all, but they have to be on this host: the default where nobody else reaches the ports.
    Local,
    /// Not at all.
    None,
}

/// One pair of keys that a back end signs with.
#[derive(Clone, Debug)]
pub struct AccessKey {
    /// The public half.
    pub id: String,
    /// The secret half.
    pub secret: Secret,
}

/// How nodes meet in Redis.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// Where it is.
    pub url: RedisUrl,
    /// User for the Sentinels themselves.
    pub sentinel_user: Option<String>,
    /// Their password.
    pub sentinel_password: Option<Secret>,
    /// What encrypted connections are checked with.
    pub tls: RedisTls,
    /// Start of every key and channel.
    pub prefix: String,
    /// How long a node that is not heard of holds its connections.
    pub lease: Duration,
    /// Time between round trips through the publish path, each of which proves that messages arrive.
    pub heartbeat: Duration,
    /// Messages kept of a channel, about, to repair gaps from.
    pub stream_entries: usize,
    /// Most bytes kept of a channel, about, each message counting 128 more.
    pub stream_bytes: usize,
    /// Memory of a server at which streams keep the least, in bytes; 0 for what follows from the server's own limit.
    pub stream_budget: usize,
    /// Longest time for which they are kept, about.
    pub stream_age: Duration,
    /// What becomes of messages, joins and handshakes while Redis is away.
    pub on_outage: OnOutage,
    /// Most bytes of messages that wait for Redis to come back.
    pub buffer_bytes: usize,
    /// Longest time that a message waits for it.
    pub buffer_age: Duration,
}

/// What is done while Redis is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOutage {
    /// Whatever needs Redis is refused.
    Reject,
    /// Clients are let in, and messages reach the members on the same node.
    Local,
    /// Messages wait for a while; the rest is refused.
    Buffer,
}

/// Files, in PEM, for encrypted connections to Redis.
#[derive(Clone, Debug, Default)]
pub struct RedisTls {
    /// Certificates that may sign the servers'; without it those that the system trusts.
    pub ca_file: Option<String>,
    /// The certificate by which this node is known to the servers.
    pub cert_file: Option<String>,
    /// Its key.
    pub key_file: Option<String>,
}

/// Who may connect.
#[derive(Clone, Debug, Default)]
pub struct Auth {
    /// Pages that may connect.
    pub allowed_origins: Origins,
    /// Header that a trusted proxy sets to the authenticated user's name.
    pub user_header: Option<HeaderName>,
}

/// Pages that may connect. Clients that send no `Origin` are not browsers, and are not asked for it.
#[derive(Clone, Debug, Default)]
pub enum Origins {
    /// All.
    #[default]
    Any,
    /// Those of this host, as all else that connects has to be: the default where nobody else reaches the port, and nothing
    /// says that a proxy does.
    Local,
    /// Those that the operator has listed.
    Listed(Arc<[OriginPattern]>),
}

/// What stands between clients and the node.
#[derive(Clone, Debug, Default)]
pub struct ProxySettings {
    /// Whose word is taken for a client's address and user.
    pub trusted: Vec<IpNet>,
    /// Whether every connection of the public port begins with a header of the PROXY protocol.
    pub protocol: bool,
}

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Name and text of the configuration file.
    pub file: Option<(String, String)>,
    /// Variables of the environment that start with `GATECAST_`, flags laid over them.
    pub overrides: BTreeMap<String, String>,
    /// Variables of the environment that start with `OTEL_`; those above are stronger.
    pub otel: BTreeMap<String, String>,
    /// Faults that were found before: variables that cannot be read.
    pub faults: Vec<Fault>,
}

impl Sources {
    /// Takes a variable of the environment, if it may be a setting.
    pub fn set_variable(&mut self, name: &OsStr, value: OsString) {
        let Some(name) = name.to_str() else { return };
        let is_otel = name.starts_with("OTEL_");
        if !is_otel && (!name.starts_with(PREFIX) || name == "GATECAST_CONFIG") {
            return;
        }
        match value.into_string() {
            Ok(value) if is_otel => drop(self.otel.insert(name.to_owned(), value)),
            Ok(value) => drop(self.overrides.insert(name.to_owned(), value)),
            Err(_) => self.faults.push(Fault {
                place: name.to_owned(),
                key: String::new(),
                message: "not UTF-8; write it in UTF-8, or unset it".to_owned(),
            }),
        }
    }

    /// Sets a flag: as the variable of the same name, but stronger.
    pub fn set_flag(&mut self, key: &str, value: Option<String>) {
        if let Some(value) = value {
            self.overrides.insert(format!("{PREFIX}{}", key.to_uppercase()), value);
        }
    }
}

impl Config {
    /// Reads and checks all settings.
    ///
    /// # Errors
    /// Every fault there is.
    pub fn load(sources: &Sources) -> Result<Self, Vec<Fault>> {
        let none = ("built-in configuration".to_owned(), String::new());
        let (file, text) = sources.file.as_ref().unwrap_or(&none);
        let (mut overrides, not_understood) = otel::translate(&sources.otel);
        overrides.extend(sources.overrides.clone());
        let mut reader = Reader::new(file, text, &overrides);
        let mut document = reader.document();
        let mut config = sections::read(&mut reader, &mut document);
        reader.finish(document);
        pairs::check(&mut reader, &config);
        config.warnings = reader.warnings();
        let told = |name| format!("the variable {name} is not understood");
        config.warnings.extend(not_understood.into_iter().map(told));
        let faults = [reader.into_faults(), sources.faults.clone()].concat();
        if faults.is_empty() { Ok(config) } else { Err(faults) }
    }

    /// Returns what brokers need to know.
    pub(crate) fn terms(&self) -> Terms {
        let (groups, limits) = (self.groups.clone(), &self.limits);
        Terms {
            groups,
            message_bytes: limits.message_bytes,
            outbox_bytes: limits.outbox_bytes,
            idempotency_age: limits.idempotency_age,
        }
    }

    /// Returns the number of event loops to start: unless it is given, one core is left to handshakes, the management API
    /// and Redis.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        match self.shards {
            0 => std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1)),
            count => count,
        }
    }
}

#[cfg(test)]
mod tests;
