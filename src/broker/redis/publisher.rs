//! Takes publications to Redis, in order, as many at a time as have come together.
//!
//! A publication is never sent twice: what fails is answered as failed, and its sender decides.

use std::sync::Arc;

use deadpool_redis::redis::{FromRedisValue as _, Value};
use tokio::sync::mpsc;

use crate::broker::{Offset, Publication, PublishError};
use crate::config::RedisSettings;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::store::{Call, Outcome, Script, Store, StoreError, milliseconds, new_epoch};

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
            let calls = self.calls(&script, &batch);
            let outcomes = self.store.run_all(Some(&script), &calls).await;
            let mut refused = 0;
            for (publication, outcome) in batch.drain(..).zip(outcomes) {
                let accepted = self.read(&publication, outcome).await;
                if let Err(error) = &accepted {
                    refused += 1;
                    tracing::debug!(%error, "publishing");
                }
                self.hub.answer(publication.receipt, accepted.map_err(|_| PublishError::Unavailable));
            }
            self.metrics.published.inc_by(calls.len() as u64 - refused);
            if refused > 0 {
                self.metrics.redis_errors.inc_by(refused);
                tracing::warn!(messages = refused, "Redis did not take messages; their senders are told");
            }
        }
    }

    fn calls(&self, script: &Script, batch: &[Publication]) -> Vec<Call> {
        let epoch = new_epoch();
        let age = milliseconds(self.settings.stream_age);
        let call = |Publication { channel, frame, .. }: &Publication| {
            let name = self.store.channel(channel);
            let mut command = script.command(&[&Store::meta(&name), &Store::stream(&name)]);
            command.arg(&name).arg(&frame[..]).arg(self.settings.stream_entries).arg(age).arg(&epoch);
            command.arg(self.store.publish_command());
            Call::of_server(name, command)
        };
        batch.iter().map(call).collect()
    }

    /// Reads the place that a message was given.
    async fn read(&self, publication: &Publication, outcome: Outcome) -> Result<Offset, StoreError> {
        let (epoch, offset, _) = <(String, u64, Value)>::from_redis_value(outcome.result?)?;
        if outcome.is_ahead {
            // The slot is moving: the subscribers are still where it comes from. What is missed here is read once it has moved.
            let name = self.store.channel(&publication.channel);
            let payload = [format!("{epoch} {offset} ").as_bytes(), &publication.frame].concat();
            if let Err(error) = self.store.publish(&name, &payload).await {
                tracing::debug!(%error, "publishing where a slot comes from");
            }
        }
        Ok(Offset(offset))
    }
}
