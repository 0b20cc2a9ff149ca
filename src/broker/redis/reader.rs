//! Reads streams: where a subscription begins, and what was missed.
//!
//! Many channels a round trip, so that a reconnect with thousands of groups is done in a moment; what cannot be read now is
//! tried again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use deadpool_redis::redis::streams::StreamRangeReply;
use deadpool_redis::redis::{FromRedisValue as _, Value};

use super::channels::{Channels, Next};
use super::track::{Position, Reading};
use crate::store::{Call, Script, Store, StoreError};

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
            if let Err(error) = self.read_batch(batch).await {
                tracing::debug!(%error, "reading streams");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Reads what can be read, and puts the rest back.
    async fn read_batch(&self, batch: Vec<(String, u64)>) -> Result<(), StoreError> {
        let readings = self.read(&batch).await;
        let (mut again, mut failed) = (Vec::new(), Ok(()));
        for ((name, after), reading) in batch.into_iter().zip(readings) {
            match reading.map(|reading| self.channels.on_reading((&name, after), reading)) {
                Ok(Next::Done) => {}
                Ok(Next::Again) => again.push(name),
                Err(error) => {
                    again.push(name);
                    failed = Err(error);
                }
            }
        }
        if !again.is_empty() {
            self.channels.put_back(again);
        }
        failed
    }

    async fn read(&self, batch: &[(String, u64)]) -> Vec<Result<Reading<Bytes>, StoreError>> {
        let script = Script::new(include_str!("read.lua"));
        let call = |(name, after): &(String, u64)| {
            let mut command = script.command(&[&Store::meta(name), &Store::stream(name)]);
            command.arg(format!("{after}-0")).arg(MESSAGES + 1);
            Call::new(name.clone(), command)
        };
        let calls: Vec<Call> = batch.iter().map(call).collect();
        let outcomes = self.store.run_all(Some(&script), &calls).await;
        outcomes.into_iter().map(|outcome| reading(outcome.result?)).collect()
    }
}

/// A channel's epoch and offset, and its last epochs.
type Meta = (Option<String>, Option<u64>, Option<String>);

pub(super) fn reading(answer: Value) -> Result<Reading<Bytes>, StoreError> {
    let ((epoch, offset, epochs), range) = <(Meta, StreamRangeReply)>::from_redis_value(answer)?;
    let is_cut = range.ids.len() > MESSAGES;
    let messages = range.ids.into_iter().take(MESSAGES).filter_map(|entry| {
        let offset = entry.id.split('-').next()?.parse().ok()?;
        Some((offset, Bytes::from(entry.get::<Vec<u8>>("f")?)))
    });
    let now = Position { epoch: epoch.unwrap_or_default(), offset: offset.unwrap_or(0) };
    let epochs = epochs.as_deref().unwrap_or_default().split(' ').filter_map(|text| {
        let (epoch, offset) = text.split_once('@')?;
        Some(Position { epoch: epoch.to_owned(), offset: offset.parse().ok()? })
    });
    Ok(Reading { now, epochs: epochs.collect(), messages: messages.collect(), is_cut })
}
