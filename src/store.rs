//! What is kept in Redis, and the ways to it: connections, names of keys and channels.
//!
//! Rule: everything of one channel, and everything of one node, shares a hash tag, so that a script touches one slot; every
//! name starts with the prefix, so that clusters can share a Redis. Only `store`, `broker::redis`, `peers` and
//! `registry::redis` know Redis, through `deadpool_redis`, so that two versions of the driver cannot part.

use std::time::Duration;

use deadpool_redis::redis::aio::PubSub;
use deadpool_redis::redis::{Client, Pipeline, RedisError};
use deadpool_redis::{Config, Connection, Pool, PoolConfig, PoolError, Runtime, Timeouts};
use rand::RngExt as _;

use crate::broker::Channel;
use crate::config::RedisSettings;
use crate::id::NodeTag;

/// Connections for commands. A pipeline is under way on each; more do not make Redis faster.
const POOL_SIZE: usize = 16;

/// Longest wait for a connection, its making included. Redis is on the same network, or it is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest wait for an answer. A command that takes longer is in doubt, and its caller is told so.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Handle on Redis; clones share the pool.
#[derive(Clone)]
pub(crate) struct Store {
    client: Client,
    pool: Pool,
    prefix: String,
}

/// Why Redis did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// No connection is to be had.
    #[error("no connection to Redis: {0}")]
    Connect(#[from] PoolError),
    /// A command failed.
    #[error("Redis: {0}")]
    Command(#[from] RedisError),
    /// The connection ended.
    #[error("the connection to Redis ended")]
    Closed,
    /// No answer came in time.
    #[error("Redis did not answer in time")]
    Timeout,
    /// The settings are no settings of a pool.
    #[error("{0}")]
    Settings(#[from] deadpool_redis::CreatePoolError),
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Store {
    /// Makes a handle; connects to nothing yet.
    ///
    /// # Errors
    /// The URL is none.
    pub(crate) fn new(settings: &RedisSettings) -> Result<Self, StoreError> {
        let url = settings.url.expose();
        let mut config = Config::from_url(url);
        let timeouts = Timeouts {
            wait: Some(CONNECT_TIMEOUT),
            create: Some(CONNECT_TIMEOUT),
            recycle: Some(CONNECT_TIMEOUT),
        };
        config.pool = Some(PoolConfig { max_size: POOL_SIZE, timeouts, ..PoolConfig::default() });
        let pool = config.create_pool(Some(Runtime::Tokio1))?;
        Ok(Self { client: Client::open(url)?, pool, prefix: settings.prefix.clone() })
    }

    /// Takes a connection for commands to the server that has a key or channel.
    pub(crate) async fn connection(&self, _name: &str) -> Result<Connection, StoreError> {
        Ok(self.pool.get().await?)
    }

    /// Carries out commands on keys that share the hash tag of `name`, whose answers say nothing but that they were carried out.
    pub(crate) async fn run(&self, name: &str, pipeline: &Pipeline) -> Result<(), StoreError> {
        let mut connection = self.connection(name).await?;
        answered(pipeline.query_async(&mut connection)).await
    }

    /// Opens a connection for subscriptions, of its own.
    pub(crate) async fn subscriber(&self) -> Result<PubSub, StoreError> {
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, self.client.get_async_pubsub()).await;
        Ok(opened.map_err(|_| StoreError::Timeout)??)
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

    /// Returns the name of a node's own channel.
    pub(crate) fn node_channel(&self, tag: NodeTag) -> String {
        format!("{}:{{node:{tag}}}", self.prefix)
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

/// Waits for an answer, but not for ever.
pub(crate) async fn answered<T>(
    answer: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, StoreError> {
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, answer).await;
    Ok(answer.map_err(|_| StoreError::Timeout)??)
}
