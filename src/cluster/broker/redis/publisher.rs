//! Takes publications to Redis, in order, as many at a time as have come together.
//!
//! A publication is never sent twice blindly. What fails is answered as failed, and its sender
//! decides; or, with `on_outage = "buffer"`, it waits and is sent again, named so that Redis knows
//! what it has accepted already; or, with `"local"`, it is handed to the members on this node, if
//! it is certain that Redis has not seen it, and it has no key.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use redis::{Value, cmd};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::channels::{Channels, UNKEPT};
use super::health::Health;
use super::pressure::Pressure;
use super::queue::{Coming, Fate, Parted, Queue, Waiting, part};
use crate::cluster::registry::tenure::{Lapsed, Tenure};
use crate::cluster::store::{Call, Outcome, Script, Store, StoreError, milliseconds, new_epoch};
use crate::config::{OnOutage, RedisSettings, Snapshots};
use crate::model::broker::{Accepted, Key, Offset, Publication, PublishError, Terms};
use crate::model::trouble::Trouble;
use crate::ops::metrics::{DropReason, as_i64};
use crate::ops::telemetry::Telemetry;
use crate::shard::hub::Hub;

/// Publications in one pipeline; at 256 short ones Redis is busy for some 2 ms.
const BATCH: usize = 256;
/// A pipeline takes publications until it has this many bytes: on its way it is there up to four
/// times.
const BATCH_BYTES: usize = 1 << 20;
/// Pause before what failed is sent again.
const PAUSE: Duration = Duration::from_millis(100);
/// How long Redis remembers what may be sent again: longer than it may be held up between two
/// tries.
const MEMORY: Duration = Duration::from_secs(60);
/// How long it remembers the end of a connection, which another node may publish once its own is
/// taken for dead.
const MEMORY_OF_END: Duration = Duration::from_secs(24 * 3_600);
/// Times the stream's age for which a channel that somebody listens to keeps its offset.
const OFFSET_AGES: u32 = 1_440;
/// Between two warnings of one outage.
const WARN_EVERY: Duration = Duration::from_secs(10);
/// How long a node that ends waits for Redis to take what is left.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(400);

/// See the [module documentation](self).
pub(super) struct Publisher {
    pub(super) store: Store,
    pub(super) pressure: Arc<Pressure>,
    pub(super) settings: RedisSettings,
    pub(super) terms: Terms,
    pub(super) snapshots: Snapshots,
    pub(super) hub: Arc<Hub>,
    pub(super) channels: Arc<Channels>,
    pub(super) health: Arc<Health>,
    pub(super) tenure: Tenure,
    pub(super) telemetry: Telemetry,
    /// Names this node's publications, together with their numbers.
    pub(super) instance: String,
    pub(super) ending: CancellationToken,
    pub(super) warned_at: Mutex<Option<Instant>>,
}

impl Publisher {
    /// Runs until the node ends.
    pub(super) async fn run(self, mut publications: mpsc::Receiver<Coming>) {
        let script = Script::new(include_str!("publish.lua"));
        let mut queue = Queue::new(self.settings.buffer_bytes, self.settings.buffer_age);
        let mut failed_at = None;
        while !self.ending.is_cancelled()
            && (!queue.is_empty() || self.receive(&mut publications, &mut queue).await)
        {
            if self.is_alone_since(failed_at) {
                for waiting in queue.take(usize::MAX) {
                    self.go_alone(waiting, Fate::Untaken);
                }
                continue;
            }
            let batch = queue.take_batch(BATCH, BATCH_BYTES);
            let fates = self.publish(&script, &batch);
            let fates = self.meanwhile(fates, &mut publications, &mut queue).await;
            if self.settle(batch, fates, &mut queue) {
                continue;
            }
            failed_at = Some(Instant::now());
            if !queue.is_empty() {
                self.meanwhile(tokio::time::sleep(PAUSE), &mut publications, &mut queue).await;
            }
        }
        self.finish(&script, publications, queue).await;
    }

    /// Waits for publications; returns false when the node ends.
    async fn receive(&self, publications: &mut mpsc::Receiver<Coming>, queue: &mut Queue) -> bool {
        let mut come = Vec::with_capacity(BATCH);
        let receiving = publications.recv_many(&mut come, BATCH);
        let count = self.ending.run_until_cancelled(receiving).await.unwrap_or(0);
        self.push(come, queue);
        count > 0
    }

    /// Waits for something, and takes in what comes meanwhile where it may wait; not for long when
    /// the node ends.
    async fn meanwhile<T>(
        &self,
        event: impl Future<Output = T>,
        publications: &mut mpsc::Receiver<Coming>,
        queue: &mut Queue,
    ) -> Option<T> {
        tokio::pin!(event);
        let buffers = self.buffers();
        let mut come = Vec::new();
        loop {
            let deadline = queue.deadline().map(tokio::time::Instant::from_std);
            let too_old = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                done = &mut event => return Some(done),
                () = self.ending.cancelled() => return tokio::time::timeout(FLUSH_TIMEOUT, event).await.ok(),
                () = too_old => {}
                _ = publications.recv_many(&mut come, BATCH), if buffers && queue.wants_more() && !publications.is_closed() => {}
            }
            self.push(std::mem::take(&mut come), queue);
            self.refuse(queue.take_old(Instant::now()), DropReason::BufferAge);
            self.show(queue);
        }
    }

    fn push(&self, come: Vec<Coming>, queue: &mut Queue) {
        let now = Instant::now();
        for coming in come {
            let is_end = coming.publication.is_end();
            if let Err(receipt) = queue.push(coming, now) {
                self.telemetry.metrics.count_dropped(DropReason::BufferFull, usize::from(!is_end));
                self.hub.answer(receipt, Err(PublishError::Unavailable));
            }
        }
    }

    /// Answers what was taken, and does with the rest what was asked for; returns whether there is
    /// none that says anything of Redis itself.
    fn settle(&self, batch: Vec<Waiting>, fates: Option<Vec<Fate>>, queue: &mut Queue) -> bool {
        let fates = fates.unwrap_or_else(|| vec![Fate::InDoubt; batch.len()]);
        // An end waits where it comes from.
        let may_wait = |publication: &Publication| {
            self.buffers() && self.terms.keeps(&publication.channel) && !publication.is_end()
        };
        let Parted { taken, again, failed } = part(batch, fates.into_iter(), may_wait);
        let is_done = again.is_empty() && failed.iter().all(|(_, fate)| fate.is_confined());
        for (waiting, accepted) in taken {
            let accepted = waiting.answer(accepted);
            match accepted {
                Accepted::Duplicate(_) => self.telemetry.metrics.duplicates.inc(),
                _ => self.telemetry.metrics.published.inc(),
            }
            self.hub.answer(waiting.publication.receipt, Ok(accepted));
        }
        for (waiting, fate) in failed {
            let is_local = self.settings.on_outage == OnOutage::Local && self.health.has_been_up();
            match fate {
                Fate::Untaken | Fate::Refused(_) if is_local && !fate.is_confined() => {
                    self.go_alone(waiting, fate);
                }
                fate => self.fail(waiting, DropReason::Unavailable, fate),
            }
        }
        queue.put_back(again);
        self.refuse(queue.take_old(Instant::now()), DropReason::BufferAge);
        self.show(queue);
        is_done
    }

    fn fail(&self, Waiting { publication, .. }: Waiting, reason: DropReason, fate: Fate) {
        let error = match fate {
            Fate::Refused(class) => PublishError::Refused(class),
            _ => PublishError::Unavailable,
        };
        self.telemetry.metrics.count_dropped(reason, usize::from(!publication.is_end()));
        self.hub.answer(publication.receipt, Err(error));
    }

    fn refuse(&self, refused: impl IntoIterator<Item = Waiting>, reason: DropReason) {
        for waiting in refused {
            self.fail(waiting, reason, Fate::InDoubt);
        }
    }

    /// Hands a message to the members on this node alone; but not one with a key, which another
    /// node may have been given, or will be: the members here would have it twice. Nor the end of a
    /// connection that Redis may have accepted.
    fn go_alone(&self, waiting: Waiting, fate: Fate) {
        if matches!(waiting.publication.key, Some(Key::Given(_) | Key::End { in_doubt: true, .. }))
        {
            return self.fail(waiting, DropReason::Unavailable, fate);
        }
        let Publication { channel, frame, receipt, .. } = waiting.publication;
        let result = self.channels.deliver_here(&self.store.channel(&channel), &frame);
        match result {
            Ok(_) => self.telemetry.metrics.published_locally.inc(),
            Err(_) => self.telemetry.metrics.count_dropped(DropReason::Overload, 1),
        }
        self.hub.answer(receipt, result);
    }

    /// Returns whether messages stay on this node: publishing failed, and no heartbeat has come
    /// back since.
    fn is_alone_since(&self, failed_at: Option<Instant>) -> bool {
        self.settings.on_outage == OnOutage::Local
            && failed_at.is_some_and(|at| self.health.last_beat().is_some_and(|beat| beat < at))
    }

    fn buffers(&self) -> bool {
        self.settings.on_outage == OnOutage::Buffer
    }

    fn show(&self, queue: &Queue) {
        if self.buffers() {
            self.telemetry.metrics.buffer_messages.set(as_i64(queue.len()));
            self.telemetry.metrics.buffer_bytes.set(as_i64(queue.bytes()));
        }
    }

    /// Gives Redis a last chance to take what is left; the rest is refused.
    async fn finish(
        &self,
        script: &Script,
        mut publications: mpsc::Receiver<Coming>,
        mut queue: Queue,
    ) {
        publications.close();
        let mut come = Vec::new();
        while publications.recv_many(&mut come, BATCH).await > 0 {
            self.push(std::mem::take(&mut come), &mut queue);
        }
        let deadline = tokio::time::Instant::now() + FLUSH_TIMEOUT;
        while !queue.is_empty() {
            let batch = queue.take_batch(BATCH, BATCH_BYTES);
            let fates = tokio::time::timeout_at(deadline, self.publish(script, &batch)).await;
            if !self.settle(batch, fates.ok(), &mut queue) {
                break;
            }
        }
        self.refuse(queue.take(usize::MAX), DropReason::Unavailable);
        self.show(&queue);
    }

    /// Sends publications to Redis; returns what became of each. Others may speak for this node's
    /// connections once its tenure has lapsed: nothing is sent then.
    async fn publish(&self, script: &Script, batch: &[Waiting]) -> Vec<Fate> {
        if let Err(lapsed) = self.tenure.held().await {
            tracing::debug!(%lapsed, "publishing");
            self.warn(batch.len() as u64);
            let fate = match lapsed {
                Lapsed::Fenced => Fate::Never,
                Lapsed::Unrenewed(Trouble::Refused(class)) => Fate::Refused(class),
                Lapsed::Unrenewed(Trouble::Away) => Fate::Untaken,
            };
            return vec![fate; batch.len()];
        }
        let calls = self.calls(script, batch);
        let outcomes = self.store.run_all(Some(script), &calls).await;
        let (mut fates, mut failed) = (Vec::with_capacity(batch.len()), 0);
        for ((waiting, call), outcome) in batch.iter().zip(&calls).zip(outcomes) {
            fates.push(match self.read(&waiting.publication, call.name(), outcome).await {
                Ok(accepted) => Fate::Taken(accepted),
                Err(error) => {
                    tracing::debug!(%error, "publishing");
                    failed += 1;
                    match error.class() {
                        // The script meets a key of somebody else before it writes anything.
                        Some(class) if class.is_confined() || error.is_certain() => {
                            Fate::Refused(class)
                        }
                        None if error.is_certain() => Fate::Untaken,
                        _ => Fate::InDoubt,
                    }
                }
            });
        }
        if failed > 0 {
            self.warn(failed);
        }
        fates
    }

    /// Says so, but not with every batch of an outage.
    fn warn(&self, messages: u64) {
        let mut warned_at = self.warned_at.lock();
        if warned_at.is_none_or(|at| at.elapsed() > WARN_EVERY) {
            *warned_at = Some(Instant::now());
            tracing::warn!(messages, "Redis did not take messages, or did not say so");
        }
    }

    fn calls(&self, script: &Script, batch: &[Waiting]) -> Vec<Call> {
        let epoch = new_epoch();
        let clock = Timestamp::now().as_millisecond();
        let (bytes, age) = self.pressure.allowance();
        let age = milliseconds(age);
        let memory_of_offset = milliseconds(self.settings.stream_age * OFFSET_AGES);
        let call = |waiting: &Waiting| {
            let Publication { channel, frame, key, .. } = &waiting.publication;
            let name = self.store.channel(channel);
            let (meta, stream) = (Store::meta(&name), Store::stream(&name));
            let (mut keys, mut payload) = (vec![meta.as_str(), &stream], frame.clone());
            if !self.terms.keeps(channel) {
                payload = unkept(frame).into();
                if key.is_none() {
                    let command =
                        cmd(self.store.publish_command()).arg(&name).arg(&payload[..]).to_owned();
                    return Call::new(name, command);
                }
                keys.clear();
            }
            let memory = self.memory(&name, waiting);
            keys.extend(memory.as_ref().map(|(key, _)| key.as_str()));
            let mut command = script.command(&keys);
            command.arg(&name).arg(&payload[..]).arg(self.store.publish_command()).arg(&epoch);
            command.arg(self.settings.stream_entries).arg(bytes).arg(age).arg(memory_of_offset);
            command.arg(memory.as_ref().map_or(0, |(_, age)| milliseconds(*age))).arg(clock);
            command.arg(waiting.publication.is_end());
            Call::of_server(name, command)
        };
        batch.iter().map(call).collect()
    }

    /// Returns where Redis remembers a message, and for how long, if it must not be accepted twice.
    fn memory(&self, name: &str, waiting: &Waiting) -> Option<(String, Duration)> {
        match &waiting.publication.key {
            Some(Key::Given(key)) => {
                Some((Store::key(name, key), self.snapshots.latest().limits.idempotency_age))
            }
            Some(Key::End { id, .. }) => Some((Store::end(name, id), MEMORY_OF_END)),
            None if self.buffers() => {
                let own = format!("{}-{}", self.instance, waiting.number);
                Some((Store::key(name, &own), MEMORY))
            }
            None => None,
        }
    }

    /// Reads how a message was accepted.
    async fn read(
        &self,
        publication: &Publication,
        name: &str,
        outcome: Outcome,
    ) -> Result<Accepted, StoreError> {
        let Publication { channel, frame, key, receipt } = publication;
        let (mut place, mut trace) = (None, None);
        let (value, is_kept) = (outcome.result?, self.terms.keeps(channel));
        if is_kept || key.is_some() {
            let (epoch, offset, is_duplicate, _): (String, u64, bool, Value) =
                self.store.read(name, value)?;
            if is_duplicate {
                return Ok(Accepted::Duplicate(Offset(offset)));
            }
            if is_kept {
                self.channels.on_accepted(name, &epoch, offset);
                trace = self.telemetry.tracer.message(name, &epoch, offset);
                place = Some((epoch, offset));
            }
        }
        self.telemetry.tracer.published(trace, receipt.trace, channel.kind(), receipt.since);
        if outcome.is_ahead {
            // The slot is moving: the subscribers are still where it comes from. What is missed
            // here is read once it has moved.
            let payload = match &place {
                Some((epoch, offset)) => [format!("{epoch} {offset} ").as_bytes(), frame].concat(),
                None => unkept(frame),
            };
            if let Err(error) = self.store.publish(name, &payload).await {
                tracing::debug!(%error, "publishing where a slot comes from");
            }
        }
        Ok(place.map_or(Accepted::Unkept, |(_, offset)| Accepted::At(Offset(offset))))
    }
}

/// Returns the payload of a message that is neither counted nor kept.
fn unkept(frame: &[u8]) -> Vec<u8> {
    [format!("{UNKEPT} 0 ").as_bytes(), frame].concat()
}
