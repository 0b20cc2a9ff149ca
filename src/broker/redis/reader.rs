//! Reads streams: where a subscription begins, and what was missed.
//!
//! Many channels a round trip, so that a reconnect with thousands of groups is done in a moment; what cannot be read now is
//! tried again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use deadpool_redis::redis::streams::StreamRangeReply;
use deadpool_redis::redis::{FromRedisValue as _, Script, Value, pipe};

use super::channels::{Channels, Next};
use super::track::{Position, Reading};
use crate::store::{Store, StoreError, answered, new_epoch};

/// Channels read in one pipeline.
const BATCH: usize = 64;
/// Messages read of one channel at a time.
const MESSAGES: usize = 256;
/// Pause before what could not be read is tried again: Redis is away, or an inbox is full.
const PAUSE: Duration = Duration::from_millis(50);

/// See the head of this file.
pub(super) struct Reader {
    pub(super) store: Store,
    pub(super) channels: Arc<Channels>,
}

impl Reader {
    /// Runs for ever.
    pub(super) async fn run(self) {
        loop {
            let batch = self.channels.take_unread(BATCH);
            if batch.is_empty() {
                self.channels.to_read.notified().await;
                continue;
            }
            if let Err(error) = self.read_batch(&batch).await {
                tracing::debug!(%error, channels = batch.len(), "reading streams");
                self.channels.put_back(batch.into_iter().map(|(name, _)| name));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn read_batch(&self, batch: &[(String, u64)]) -> Result<(), StoreError> {
        let readings = self.read(batch).await?;
        let mut again = Vec::new();
        for ((name, _), reading) in batch.iter().zip(readings) {
            match self.channels.on_reading(name, reading) {
                Next::Done => {}
                Next::Again => again.push(name.clone()),
                Next::NewEpoch(epoch, offset) => {
                    self.begin_epoch(name, &epoch, offset).await?;
                    again.push(name.clone());
                }
            }
        }
        if !again.is_empty() {
            self.channels.put_back(again);
        }
        Ok(())
    }

    async fn read(&self, batch: &[(String, u64)]) -> Result<Vec<Reading<Bytes>>, StoreError> {
        let script = Script::new(include_str!("read.lua"));
        let mut connection = self.store.connection("").await?;
        answered(script.load_async(&mut connection)).await?;
        let mut pipeline = pipe();
        for (name, after) in batch {
            let mut call = script.key(Store::meta(name));
            call.key(Store::stream(name)).arg(format!("{after}-0")).arg(MESSAGES + 1);
            pipeline.invoke_script(&call);
        }
        let answers: Vec<(Value, Value)> = answered(pipeline.query_async(&mut connection)).await?;
        answers.iter().map(|(meta, messages)| reading(meta, messages)).collect()
    }

    async fn begin_epoch(&self, name: &str, seen: &str, offset: u64) -> Result<(), StoreError> {
        let mut connection = self.store.connection(name).await?;
        let script = Script::new(include_str!("rewind.lua"));
        let mut call = script.key(Store::meta(name));
        call.key(Store::stream(name)).arg(seen).arg(offset).arg(new_epoch());
        answered(call.invoke_async::<Value>(&mut connection)).await?;
        tracing::warn!(channel = name, "the offset went backwards: a new epoch begins");
        Ok(())
    }
}

fn reading(meta: &Value, messages: &Value) -> Result<Reading<Bytes>, StoreError> {
    let wrong = |error| StoreError::Command(deadpool_redis::redis::RedisError::from(error));
    let (epoch, offset) = <(Option<String>, Option<u64>)>::from_redis_value_ref(meta).map_err(wrong)?;
    let range = StreamRangeReply::from_redis_value_ref(messages).map_err(wrong)?;
    let is_cut = range.ids.len() > MESSAGES;
    let messages = range.ids.into_iter().take(MESSAGES).filter_map(|entry| {
        let offset = entry.id.split('-').next()?.parse().ok()?;
        Some((offset, Bytes::from(entry.get::<Vec<u8>>("f")?)))
    });
    let now = Position { epoch: epoch.unwrap_or_default(), offset: offset.unwrap_or(0) };
    Ok(Reading { now, messages: messages.collect(), is_cut })
}
