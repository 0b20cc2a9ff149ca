//! What is kept in Redis, and the ways to it: connections, names of keys and channels.
//!
//! Rule: everything of one channel, and everything of one node, shares a hash tag, so that a script
//! touches one slot; every name starts with the prefix, so that clusters can share a Redis. Only
//! `store`, `broker::redis`, `peers` and `registry::redis` know Redis, through the driver `redis`.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use redis::{Cmd, FromRedisValue, Value, cmd};

pub(crate) use self::calls::{Call, Outcome};
pub(crate) use self::connection::ANSWER_TIMEOUT;
pub(crate) use self::error::StoreError;
use self::refusals::Refusals;
pub(crate) use self::resp::Breach;
pub(crate) use self::script::Script;
use self::topology::Topology;
use crate::config::RedisSettings;
use crate::model::broker::Channel;
use crate::model::id::{ConnectionId, NodeTag};
use crate::ops::metrics::Metrics;

mod calls;
pub(crate) mod connection;
mod error;
mod greeting;
pub(crate) mod refusal;
mod refusals;
mod resp;
mod script;
pub(crate) mod server;
mod slots;
pub(crate) mod steady;
pub(crate) mod topology;
mod wire;

/// Handle on Redis; clones share the connections.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    topology: Arc<Topology>,
    prefix: Arc<str>,
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
        let topology =
            Arc::new(Topology::new(settings, message_bytes, &Arc::new(Refusals::new(metrics)))?);
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

    /// Reads the answer to a call on `name`; what cannot be read is counted, and told, as what is
    /// refused is.
    pub(crate) fn read<T: FromRedisValue>(
        &self,
        name: &str,
        answer: Value,
    ) -> Result<T, StoreError> {
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

    /// Carries out a command.
    pub(crate) async fn ask<T: FromRedisValue>(
        &self,
        name: &str,
        command: Cmd,
    ) -> Result<T, StoreError> {
        self.ask_all(None, name, vec![command]).await
    }

    /// Runs a script.
    pub(crate) async fn ask_script<T: FromRedisValue>(
        &self,
        script: &Script,
        name: &str,
        command: Cmd,
    ) -> Result<T, StoreError> {
        self.ask_all(Some(script), name, vec![command]).await
    }

    /// Carries out commands on keys that share the hash tag of `name`, of whose answers none
    /// matters.
    pub(crate) async fn run(&self, name: &str, commands: Vec<Cmd>) -> Result<(), StoreError> {
        self.ask_all::<Value>(None, name, commands).await.map(drop)
    }

    /// Returns the last answer, or the first error.
    async fn ask_all<T: FromRedisValue>(
        &self,
        script: Option<&Script>,
        name: &str,
        commands: Vec<Cmd>,
    ) -> Result<T, StoreError> {
        let calls: Vec<_> =
            commands.into_iter().map(|command| Call::new(name.to_owned(), command)).collect();
        let mut last = Value::Nil;
        for outcome in self.run_all(script, &calls).await {
            last = outcome.result?;
        }
        self.read(name, last)
    }

    /// Carries out calls, in one round trip to each server; those on one name are carried out in
    /// their order. `script` is loaded before them. A call is sent again only where a server has
    /// said that it did not carry it out.
    pub(crate) async fn run_all(&self, script: Option<&Script>, calls: &[Call]) -> Vec<Outcome> {
        self.topology.run_all(script, calls).await
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
        if self.topology.is_cluster() {
            ("SSUBSCRIBE", "SUNSUBSCRIBE")
        } else {
            ("SUBSCRIBE", "UNSUBSCRIBE")
        }
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

    /// Returns the key of where the message of an idempotency key is. Names of channels end with a
    /// brace and keys are without, so that no group's name and key together are those of another
    /// group.
    pub(crate) fn key(name: &str, key: &str) -> String {
        format!("{name}:key:{}", key.replace('%', "%25").replace('}', "%7D"))
    }

    /// Returns the key that says that the end of a connection was published; the id is there
    /// without its padding. No idempotency key gives it.
    pub(crate) fn end(name: &str, id: &ConnectionId) -> String {
        format!("{name}:end:{}", id.as_str().trim_end_matches('='))
    }

    /// Returns the name of a node's own channel.
    pub(crate) fn node_channel(&self, tag: NodeTag) -> String {
        format!("{}:{{node:{tag}}}", self.prefix)
    }

    /// Returns the name of a channel for a node's heartbeats, and of the key that they write, at
    /// the server that has the hash tag.
    pub(crate) fn beat_channel(&self, tag: &str, node: NodeTag) -> String {
        format!("{}:{{{tag}}}:beat:{node}", self.prefix)
    }

    /// Returns the key of a stream that workers read.
    pub(crate) fn work(&self, name: &str) -> String {
        format!("{}:work:{name}", self.prefix)
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
