//! Reads channels: where a subscription begins, and what was missed.
//!
//! Two readers, so that a join, which asks only where the channel is, waits for no repair. A repair is read in pages, whose
//! channels take turns: together they have a bound in bytes, and what a channel has more than its page waits behind the
//! others. What cannot be read now is tried again; what Redis refuses is answered to who waits, and concerns no other channel.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::channels::{Channels, Errand, Next};
use super::page::{Pages, Wanted};
use super::track::Reading;
use crate::store::refusal::Class;
use crate::store::{Call, Store, StoreError};

/// Channels read in one pipeline.
const BATCH: usize = 64;
/// Messages read of one channel at a time.
const MESSAGES: usize = 256;
/// Bytes read in one pipeline, but for a last message of each channel.
const BYTES: usize = 1 << 20;
/// Pause before what could not be read is tried again: Redis is away, or an inbox is full.
const PAUSE: Duration = Duration::from_millis(50);
/// Pause before a channel that Redis refuses to read is tried again.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// See the head of this file.
pub(super) struct Reader {
    pub(super) store: Store,
    pub(super) channels: Arc<Channels>,
    pub(super) pages: Pages,
    /// What this reader reads.
    pub(super) errand: Errand,
}

impl Reader {
    /// Runs for ever.
    pub(super) async fn run(self) {
        let mut later = BTreeSet::<(Instant, String)>::new();
        loop {
            let now = Instant::now();
            while later.first().is_some_and(|(at, _)| *at <= now)
                && let Some((_, name)) = later.pop_first()
            {
                self.channels.put_back(&name);
            }
            let batch = self.channels.take_unread(self.errand, BATCH);
            if !batch.is_empty() {
                self.read_batch(batch, &mut later).await;
                continue;
            }
            let next = later.first().map(|(at, _)| (*at).into());
            let come = self.channels.to_read(self.errand);
            match next {
                Some(at) => drop(tokio::time::timeout_at(at, come).await),
                None => come.await,
            }
        }
    }

    /// Reads what can be read; the rest is for later.
    async fn read_batch(&self, batch: Vec<(String, Option<u64>)>, later: &mut BTreeSet<(Instant, String)>) {
        let readings = self.read(&batch).await;
        for ((name, after), reading) in batch.into_iter().zip(readings) {
            let pause = match reading.map(|reading| self.channels.on_reading((&name, after), reading)) {
                Ok(Next::Done) => continue,
                Ok(Next::Again) => {
                    self.channels.put_back(&name);
                    continue;
                }
                Ok(Next::Later) => PAUSE,
                Err(error)
                    if error.class().is_some_and(|class| !class.is_moved_on() && class != Class::Busy) =>
                {
                    tracing::debug!(channel = name, %error, "reading a channel");
                    self.channels.on_refused(&name);
                    REFUSED_PAUSE
                }
                Err(error) => {
                    tracing::debug!(channel = name, %error, "reading a channel");
                    PAUSE
                }
            };
            later.insert((Instant::now() + pause, name));
        }
    }

    async fn read(&self, batch: &[(String, Option<u64>)]) -> Vec<Result<Reading<Bytes>, StoreError>> {
        let bytes = BYTES / batch.len().max(1);
        let call = |(name, after): &(String, Option<u64>)| {
            let wanted = Wanted { after: *after, messages: MESSAGES, bytes };
            Call::new(name.clone(), self.pages.command(name, wanted))
        };
        let calls: Vec<Call> = batch.iter().map(call).collect();
        let outcomes = self.store.run_all(Some(&self.pages.script), &calls).await;
        outcomes.into_iter().map(|outcome| self.pages.read(outcome.result?)).collect()
    }
}
