//! What is kept in Redis, and the ways to it: connections, names of keys and channels.
//!
//! Rule: everything of one channel, and everything of one node, shares a hash tag, so that a script touches one slot; every
//! name starts with the prefix, so that clusters can share a Redis. Only `store`, `broker::redis`, `peers` and
//! `registry::redis` know Redis, through the driver `redis`.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use redis::{ErrorKind, FromRedisValue, ParsingError, RedisError, Value, cmd};

pub(crate) use self::calls::{Call, Outcome, Script};
use self::refusals::Refusals;
pub(crate) use self::resp::Breach;
use self::topology::Topology;
use crate::config::RedisSettings;
use crate::model::broker::Channel;
use crate::model::id::{ConnectionId, NodeTag};
use crate::model::trouble::RedisRefusal;
use crate::ops::metrics::Metrics;

mod calls;
pub(crate) mod connection;
mod greeting;
pub(crate) mod refusal;
mod refusals;
mod resp;
pub(crate) mod server;
mod slots;
pub(crate) mod steady;
pub(crate) mod topology;
mod wire;

/// Longest wait for a connection, its making included. Redis is on the same network, or it is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest wait for an answer. A command that takes longer is in doubt, and its caller is told so.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Handle on Redis; clones share the connections.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    topology: Arc<Topology>,
    prefix: Arc<str>,
}

/// Why Redis did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// No connection could be made; the class is that of what the server said, if it said anything.
    #[error("no connection to Redis: {1}")]
    Connect(Option<RedisRefusal>, String),
    /// A command failed.
    #[error("Redis: {0}")]
    Command(#[from] RedisError),
    /// The connection ended.
    #[error("the connection to Redis ended")]
    Closed,
    /// No answer came in time.
    #[error("Redis did not answer in time")]
    Timeout,
    /// The server holds a copy of another's data. Some replicas take writes, and lose them.
    #[error("the server is a replica (role:slave)")]
    Replica,
    /// The server lacks commands that are needed.
    #[error("the server's version is {version}, and {}.{} or later is needed", .needed.0, .needed.1)]
    TooOld { version: String, needed: (u32, u32) },
    /// What came cannot be an answer of Redis to what was asked.
    #[error("{0}")]
    Broken(Breach),
    /// It is not known where Redis is.
    #[error("{0}")]
    NotFound(&'static str),
    /// The Cluster is there, and not whole.
    #[error("{0}")]
    Unserved(&'static str),
    /// The settings cannot be meant.
    #[error("{0}")]
    Settings(String),
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        Self::Command(error.into())
    }
}

impl From<ParsingError> for StoreError {
    fn from(error: ParsingError) -> Self {
        Self::Command(error.into())
    }
}

impl StoreError {
    /// Returns whether nothing was carried out: the server was not reached, or has said no.
    pub(crate) fn is_certain(&self) -> bool {
        match self {
            Self::Connect(..)
            | Self::Replica
            | Self::TooOld { .. }
            | Self::NotFound(_)
            | Self::Unserved(_)
            | Self::Settings(_) => true,
            // A script may have done a part before a command that the user has no right to.
            Self::Command(error) if RedisRefusal::is_halfway(error) => false,
            Self::Command(error) => matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension),
            Self::Broken(_) | Self::Closed | Self::Timeout => false,
        }
    }

    /// Returns it as what keeps a connection from being made, so that nothing was asked over it.
    fn before_it_began(self) -> Self {
        match self {
            Self::Command(_) | Self::Broken(_) | Self::Closed | Self::Timeout => {
                Self::Connect(self.class(), self.to_string())
            }
            certain => certain,
        }
    }

    /// Returns the class of what Redis said; `None` if it is away, or has not said anything.
    pub(crate) fn class(&self) -> Option<RedisRefusal> {
        match self {
            Self::Connect(class, _) => *class,
            Self::Command(error) => RedisRefusal::of(error),
            Self::Replica => Some(RedisRefusal::ReadOnly),
            Self::TooOld { .. } => Some(RedisRefusal::TooOld),
            Self::Broken(_) => Some(RedisRefusal::Broken),
            Self::Unserved(_) => Some(RedisRefusal::ClusterDown),
            Self::Closed | Self::Timeout | Self::NotFound(_) | Self::Settings(_) => None,
        }
    }

    /// Returns whether the server may not be the right one any more.
    fn is_of_topology(&self) -> bool {
        let is_moved_on = self.class().is_some_and(RedisRefusal::is_moved_on);
        match self {
            Self::Command(error) => error.is_unrecoverable_error() || is_moved_on,
            Self::Connect(..) | Self::Broken(_) | Self::Closed | Self::Timeout | Self::Replica => true,
            Self::TooOld { .. } | Self::NotFound(_) | Self::Unserved(_) | Self::Settings(_) => false,
        }
    }
}

impl Store {
    /// Makes a handle; connects to nothing yet.
    ///
    /// # Errors
    /// What is set for TLS is wrong.
    pub(crate) fn new(
        settings: &RedisSettings,
        message_bytes: usize,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StoreError> {
        let topology = Arc::new(Topology::new(settings, message_bytes, &Arc::new(Refusals::new(metrics)))?);
        Ok(Self { topology, prefix: settings.prefix.as_str().into() })
    }

    /// Returns what counts refusals.
    pub(crate) fn refusals(&self) -> &Refusals {
        self.topology.refusals()
    }

    /// Returns what knows the servers.
    pub(crate) fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// Reads the answer to a call on `name`; what cannot be read is counted, and told, as what is refused is.
    pub(crate) fn read<T: FromRedisValue>(&self, name: &str, answer: Value) -> Result<T, StoreError> {
        T::from_redis_value(answer).map_err(|error| {
            let error = StoreError::from(error);
            if let Ok(server) = self.topology.server_of(name) {
                self.refusals().on_error(&server.address, &error);
            }
            error
        })
    }

    /// Returns for how long the server of a key has served this node steadily.
    pub(crate) fn steady_time(&self, name: &str) -> Duration {
        self.topology.map().server_of(name).map_or(Duration::ZERO, |server| server.steady_time())
    }

    /// Publishes; returns how many listen.
    pub(crate) async fn publish(&self, channel: &str, payload: &[u8]) -> Result<u64, StoreError> {
        let command = cmd(self.publish_command()).arg(channel).arg(payload).to_owned();
        self.ask(channel, command).await
    }

    /// Returns the command that publishes.
    pub(crate) fn publish_command(&self) -> &'static str {
        if self.topology.is_cluster() { "SPUBLISH" } else { "PUBLISH" }
    }

    /// Returns the commands that subscribe and unsubscribe.
    pub(crate) fn subscribe_commands(&self) -> (&'static str, &'static str) {
        if self.topology.is_cluster() { ("SSUBSCRIBE", "SUNSUBSCRIBE") } else { ("SUBSCRIBE", "UNSUBSCRIBE") }
    }

    /// Returns the subcommand of `PUBSUB` that counts who listens.
    pub(crate) fn listeners_command(&self) -> &'static str {
        if self.topology.is_cluster() { "SHARDNUMSUB" } else { "NUMSUB" }
    }

    /// Returns the name of a channel.
    pub(crate) fn channel(&self, channel: &Channel) -> String {
        let prefix = &self.prefix;
        match channel {
            Channel::Broadcast => format!("{prefix}:{{all}}"),
            Channel::Group(name) => format!("{prefix}:{{group:{name}}}"),
            Channel::User(name) => format!("{prefix}:{{user:{name}}}"),
        }
    }

    /// Returns the key of a channel's epoch and offset.
    pub(crate) fn meta(name: &str) -> String {
        format!("{name}:meta")
    }

    /// Returns the key of a channel's last messages.
    pub(crate) fn stream(name: &str) -> String {
        format!("{name}:stream")
    }

    /// Returns the key of where the message of an idempotency key is. Names of channels end with a brace and keys are
    /// without, so that no group's name and key together are those of another group.
    pub(crate) fn key(name: &str, key: &str) -> String {
        format!("{name}:key:{}", key.replace('%', "%25").replace('}', "%7D"))
    }

    /// Returns the key that says that the end of a connection was published; the id is there without its padding. No
    /// idempotency key gives it.
    pub(crate) fn end(name: &str, id: &ConnectionId) -> String {
        format!("{name}:end:{}", id.as_str().trim_end_matches('='))
    }

    /// Returns the name of a node's own channel.
    pub(crate) fn node_channel(&self, tag: NodeTag) -> String {
        format!("{}:{{node:{tag}}}", self.prefix)
    }

    /// Returns the name of a channel for a node's heartbeats, and of the key that they write, at the server that has the hash
    /// tag.
    pub(crate) fn beat_channel(&self, tag: &str, node: NodeTag) -> String {
        format!("{}:{{{tag}}}:beat:{node}", self.prefix)
    }

    /// Returns the key of a node's lease.
    pub(crate) fn lease(&self, tag: &str) -> String {
        format!("{}:{{node:{tag}}}:lease", self.prefix)
    }

    /// Returns the key that marks a node as reaped.
    pub(crate) fn reaped(&self, tag: &str) -> String {
        format!("{}:{{node:{tag}}}:reaped", self.prefix)
    }

    /// Returns the key of a node's connection records.
    pub(crate) fn records(&self, tag: &str) -> String {
        format!("{}:{{node:{tag}}}:connections", self.prefix)
    }

    /// Returns the key of the set of all nodes' tags.
    pub(crate) fn nodes(&self) -> String {
        format!("{}:nodes", self.prefix)
    }
}

/// Returns a time as Redis counts it.
pub(crate) fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Draws the name of an epoch.
pub(crate) fn new_epoch() -> String {
    format!("{:08x}", rand::rng().random::<u32>())
}

/// Returns whether a text names an epoch.
pub(crate) fn is_epoch(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// An error that the server has answered with is an error.
fn refused_or(value: Value) -> Result<Value, StoreError> {
    match value {
        Value::ServerError(error) => Err(StoreError::Command(error.into())),
        value => Ok(value),
    }
}
