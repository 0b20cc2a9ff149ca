//! Takes publications to Redis, in order, as many at a time as have come together.
//!
//! A publication is never sent twice: what fails is answered as failed, and its sender decides.

use std::sync::Arc;

use deadpool_redis::Connection;
use deadpool_redis::redis::{Script, ScriptInvocation, pipe};
use tokio::sync::mpsc;

use crate::broker::{Offset, Publication, PublishError};
use crate::config::RedisSettings;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError, answered, milliseconds, new_epoch};

/// Publications in one pipeline; at 256 short ones Redis is busy for some 2 ms.
const BATCH: usize = 256;

/// See the head of this file.
pub(super) struct Publisher {
    pub(super) store: Store,
    pub(super) settings: RedisSettings,
    pub(super) hub: Arc<Hub>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) publications: mpsc::Receiver<Publication>,
}

impl Publisher {
    /// Runs until the broker is dropped.
    pub(super) async fn run(mut self) {
        let script = Script::new(include_str!("publish.lua"));
        let mut batch = Vec::with_capacity(BATCH);
        while self.publications.recv_many(&mut batch, BATCH).await > 0 {
            let result = self.publish(&script, &batch).await;
            if let Err(error) = &result {
                self.metrics.redis_errors.inc();
                tracing::warn!(%error, messages = batch.len(), "publishing");
            }
            let offsets = result.unwrap_or_default();
            self.metrics.published.inc_by(offsets.len() as u64);
            let mut offsets = offsets.into_iter().map(|(_, offset)| Ok(Offset(offset)));
            for Publication { receipt, .. } in batch.drain(..) {
                self.hub.answer(receipt, offsets.next().unwrap_or(Err(PublishError::Unavailable)));
            }
        }
    }

    async fn publish(
        &self,
        script: &Script,
        batch: &[Publication],
    ) -> Result<Vec<(String, u64)>, StoreError> {
        let mut connection: Connection = self.store.connection("").await?;
        // Loading is idempotent, and Redis may be another than before.
        answered(script.load_async(&mut connection)).await?;
        let epoch = new_epoch();
        let age = milliseconds(self.settings.stream_age);
        let mut pipeline = pipe();
        for Publication { channel, frame, .. } in batch {
            let name = self.store.channel(channel);
            let mut call: ScriptInvocation<'_> = script.key(Store::meta(&name));
            call.key(Store::stream(&name))
                .arg(&name)
                .arg(&frame[..])
                .arg(self.settings.stream_entries)
                .arg(age)
                .arg(&epoch);
            pipeline.invoke_script(&call);
        }
        answered(pipeline.query_async(&mut connection)).await
    }
}
