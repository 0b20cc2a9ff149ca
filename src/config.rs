//! What an operator can set: flags before environment before file before default.
//!
//! Every limit is finite and has a range; every fault is found in one pass and says its line and its fix.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use self::reader::{PREFIX, Reader, Section};
use self::settings::Switchable;
use crate::route::{BUILT_IN, RouteTable};

mod reader;
mod routes;
mod settings;

pub use self::reader::Fault;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const MILLISECOND: Duration = Duration::from_millis(1);

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
    /// What messages do.
    pub routes: RouteTable,
    /// Variables of the environment that are no settings; perhaps typing errors.
    pub unknown_variables: Vec<String>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// Bounds on what a client may do and hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most connections at a time; over it the handshake is answered 503.
    pub max_connections: usize,
    /// Most HTTP connections (handshakes, management API) at a time; over it they wait in the kernel's backlog.
    pub max_http_connections: usize,
    /// Longest time from accept to a complete request head, and of a keep-alive connection without a request.
    pub handshake_timeout: Duration,
    /// Longest payload of a frame from a client, in bytes.
    pub frame_bytes: usize,
    /// Longest message, in bytes.
    pub message_bytes: usize,
    /// Whether binary messages are taken.
    pub allow_binary: bool,
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
    /// Longest wait for the client's close frame after ours.
    pub close_timeout: Duration,
    /// Most groups one connection may be in.
    pub groups_per_connection: usize,
}

/// How a node shuts down.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// Time between "not ready" and the end of accepting, for load balancers to notice.
    pub notice: Duration,
    /// Time over which connections are closed.
    pub window: Duration,
    /// Fewest connections closed a second, so that small nodes do not take the whole window.
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

/// A text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Returns the secret, for the one who computes with it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MASKED")
    }
}

/// Who may connect.
#[derive(Clone, Debug, Default)]
pub struct Auth {
    /// Values of `Origin` that may connect; empty for all. Clients that send no `Origin` are not browsers, and may.
    pub allowed_origins: Vec<String>,
    /// Header that a trusted proxy sets to the authenticated user's name.
    pub user_header: Option<String>,
}

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Name and text of the configuration file.
    pub file: Option<(String, String)>,
    /// Variables of the environment that start with `GATECAST_`, flags laid over them.
    pub overrides: BTreeMap<String, String>,
}

impl Sources {
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
        let mut reader = Reader::new(file, text, &sources.overrides);
        let mut document = reader.document();
        let mut config = read(&mut reader, &mut document);
        reader.finish(document);
        config.unknown_variables = reader.unknown_variables();
        match reader.into_faults() {
            faults if faults.is_empty() => Ok(config),
            faults => Err(faults),
        }
    }

    /// Returns the number of event loops to start.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        match self.shards {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        }
    }
}

fn read<'d>(reader: &mut Reader<'d>, document: &mut Section<'d>) -> Config {
    let listen = reader.setting(document, "listen", SocketAddr::from(([127, 0, 0, 1], 8080)));
    let admin_listen = reader.setting(document, "admin_listen", SocketAddr::from(([127, 0, 0, 1], 9090)));
    let stage = stage(reader, document);
    let node_name = reader.setting(document, "node_name", default_node_name());
    let shards = reader.within(document, "shards", 0, 0..=1_024);
    let log_format = reader.setting(document, "log_format", LogFormat::Text);
    let routes = routes(reader, document);
    let limits = limits(reader, document);
    let drain = drain(reader, document);
    let auth = auth(reader, document);
    let management = management(reader, document, [listen, admin_listen]);
    Config {
        listen,
        admin_listen,
        stage,
        node_name,
        shards,
        log_format,
        limits,
        drain,
        management,
        auth,
        routes,
        unknown_variables: Vec::new(),
    }
}

fn stage<'d>(reader: &mut Reader<'d>, document: &mut Section<'d>) -> String {
    let place = reader.place(document, "stage");
    let stage = reader.setting(document, "stage", "beta".to_owned());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'$');
    if stage.is_empty() || stage.len() > 128 || !stage.bytes().all(plain) {
        let message = "a stage's name has 1 to 128 letters, digits, - and _";
        reader.fault(place, "stage".to_owned(), message);
    }
    stage
}

/// The routes of the file, or the built-in table if it names none.
fn routes<'d>(reader: &mut Reader<'d>, document: &mut Section<'d>) -> RouteTable {
    let table = routes::read(reader, document);
    if table.iter().next().is_some() {
        return table;
    }
    let no_overrides = BTreeMap::new();
    let mut built_in = Reader::new("built-in routes", BUILT_IN, &no_overrides);
    let mut document = built_in.document();
    let table = routes::read(&mut built_in, &mut document);
    built_in.finish(document);
    debug_assert_eq!(built_in.into_faults(), []);
    table
}

fn limits<'d>(reader: &mut Reader<'d>, document: &mut Section<'d>) -> Limits {
    const MIB: usize = 1 << 20;
    let mut section = reader.section(document, "limits");
    let s = &mut section;
    let message_place = reader.place(s, "message_bytes");
    let limits = Limits {
        max_connections: reader.within(s, "max_connections", 100_000, 1..=10_000_000),
        max_http_connections: reader.within(s, "max_http_connections", 1_024, 1..=1_000_000),
        handshake_timeout: reader.within(s, "handshake_timeout", 10 * SECOND, 10 * MILLISECOND..=60 * SECOND),
        frame_bytes: reader.within(s, "frame_bytes", 32 << 10, 125..=256 * MIB),
        message_bytes: reader.within(s, "message_bytes", 128 << 10, 125..=256 * MIB),
        allow_binary: reader.setting(s, "allow_binary", false),
        idle_timeout: reader.within(s, "idle_timeout", 600 * SECOND, 10 * MILLISECOND..=24 * HOUR),
        max_lifetime: reader.within(s, "max_lifetime", 2 * HOUR, 10 * MILLISECOND..=720 * HOUR),
        ping_interval: {
            let range = Switchable(None)..=Switchable(Some(HOUR));
            reader.within(s, "ping_interval", Switchable(Some(25 * SECOND)), range).0
        },
        pong_timeout: reader.within(s, "pong_timeout", 10 * SECOND, 10 * MILLISECOND..=HOUR),
        outbox_bytes: reader.within(s, "outbox_bytes", MIB, 1 << 10..=1 << 30),
        outbox_age: reader.within(s, "outbox_age", 30 * SECOND, 10 * MILLISECOND..=HOUR),
        close_timeout: reader.within(s, "close_timeout", 5 * SECOND, 10 * MILLISECOND..=60 * SECOND),
        groups_per_connection: reader.within(s, "groups_per_connection", 128, 0..=10_000),
    };
    if limits.message_bytes > limits.outbox_bytes {
        let message = "larger than limits.outbox_bytes; no client could be sent such a message";
        reader.fault(message_place, "limits.message_bytes".to_owned(), message);
    }
    reader.finish(section);
    limits
}

fn drain<'d>(reader: &mut Reader<'d>, document: &mut Section<'d>) -> Drain {
    let mut section = reader.section(document, "drain");
    let s = &mut section;
    let drain = Drain {
        notice: reader.within(s, "notice", Duration::ZERO, Duration::ZERO..=HOUR),
        window: reader.within(s, "window", 30 * SECOND, Duration::ZERO..=HOUR),
        min_rate: reader.within(s, "min_rate", 100, 1..=1_000_000),
        grace: reader.within(s, "grace", 10 * SECOND, 10 * MILLISECOND..=HOUR),
    };
    reader.finish(section);
    drain
}

fn auth<'d>(reader: &mut Reader<'d>, document: &mut Section<'d>) -> Auth {
    let mut section = reader.section(document, "auth");
    let auth = Auth {
        allowed_origins: reader.texts(&mut section, "allowed_origins"),
        user_header: reader.optional(&mut section, "user_header"),
    };
    reader.finish(section);
    auth
}

/// The key pair of the two well-known variables or settings, and those of the list; without any, only loopback is served.
fn management<'d>(
    reader: &mut Reader<'d>,
    document: &mut Section<'d>,
    addresses: [SocketAddr; 2],
) -> Management {
    let mut keys = Vec::new();
    let place = reader.place(document, "access_key_id");
    let id = reader.optional::<String>(document, "access_key_id");
    let secret = reader.optional::<Secret>(document, "secret_access_key");
    match (id, secret) {
        (Some(id), Some(secret)) => keys.push(AccessKey { id, secret }),
        (None, None) => {}
        _ => {
            let message = "access_key_id and secret_access_key go together; set both or none";
            reader.fault(place, "access_key_id".to_owned(), message);
        }
    }
    let mut section = reader.section(document, "management");
    for mut pair in reader.list_of_sections(&mut section, "keys") {
        let place = reader.place(&pair, "id");
        let id = reader.optional::<String>(&mut pair, "id");
        let secret = reader.optional::<Secret>(&mut pair, "secret");
        match (id, secret) {
            (Some(id), Some(_)) if keys.iter().any(|key: &AccessKey| key.id == id) => {
                reader.fault(
                    place,
                    pair.dotted("id"),
                    format!("{id:?} is there twice; every id has one secret"),
                );
            }
            (Some(id), Some(secret)) => keys.push(AccessKey { id, secret }),
            _ => reader.fault(place, pair.dotted("id"), "a key needs both id and secret"),
        }
        reader.finish(pair);
    }
    let clock_skew = reader.within(&mut section, "clock_skew", 300 * SECOND, SECOND..=HOUR);
    let place = reader.place(&section, "auth");
    let wanted = reader.optional::<ManagementAuth>(&mut section, "auth");
    reader.finish(section);
    let public = addresses.iter().find(|address| !address.ip().is_loopback());
    let auth = match (wanted, keys.is_empty(), public) {
        (Some(auth), false, _) => auth,
        (None, false, _) => ManagementAuth::SigV4,
        (Some(ManagementAuth::None), true, _) | (None, true, None) => ManagementAuth::None,
        (Some(ManagementAuth::SigV4), true, _) => {
            reader.fault(
                place,
                "management.auth".to_owned(),
                "\"sigv4\" needs a key; set access_key_id and secret_access_key",
            );
            ManagementAuth::SigV4
        }
        (None, true, Some(address)) => {
            let message = format!(
                "{address} is reachable from other hosts and the management API has no keys; set access_key_id and \
                 secret_access_key, or listen on loopback, or ask for an open API by management.auth = \"none\""
            );
            reader.fault(place, "management.auth".to_owned(), message);
            ManagementAuth::SigV4
        }
    };
    Management { auth, keys, clock_skew }
}

fn default_node_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_str().unwrap_or("gatecast").to_owned()
}

#[cfg(test)]
mod tests;
