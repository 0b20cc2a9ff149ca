//! The subscriber connection: reads what is published, subscribes and unsubscribes, and is thrown away when it goes deaf.
//!
//! Rule: nothing here makes the reading wait. A heartbeat goes through Redis to this node's own channel all the time, busy or
//! not; while it comes back, messages do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use deadpool_redis::redis::AsyncCommands as _;
use deadpool_redis::redis::aio::{PubSubSink, PubSubStream};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use super::channels::Channels;
use super::health::Health;
use crate::connection::jittered;
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::store::{Store, StoreError, answered};

/// Names in one SUBSCRIBE or UNSUBSCRIBE.
const BATCH: usize = 512;
/// Heartbeats that may be missing before the connection is thrown away.
const PATIENCE: u32 = 3;
/// First pause before connecting again, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// What the broker wants of the connection.
#[derive(Debug)]
pub(super) enum Command {
    Subscribe(String),
    Unsubscribe(String),
}

/// See the head of this file.
pub(super) struct Subscriber {
    pub(super) store: Store,
    pub(super) channels: Arc<Channels>,
    pub(super) peers: Arc<Peers>,
    pub(super) health: Arc<Health>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) heartbeat: Duration,
    pub(super) commands: mpsc::Receiver<Command>,
}

impl Subscriber {
    /// Runs for ever: connects, serves, and when that ends connects again.
    pub(super) async fn run(mut self) {
        let mut pause = BACKOFF.0;
        loop {
            let began = Instant::now();
            let error = self.serve().await;
            if self.health.lost() {
                tracing::warn!(%error, "Redis is away; connections stay, and messages are refused");
            }
            self.metrics.redis_reconnects.inc();
            self.channels.refuse_waiting();
            pause = if began.elapsed() > BACKOFF.1 { BACKOFF.0 } else { (pause * 2).min(BACKOFF.1) };
            tokio::time::sleep(jittered(pause)).await;
        }
    }

    /// Serves one connection to its end; returns why it ended.
    async fn serve(&mut self) -> StoreError {
        let (sink, stream) = match self.store.subscriber().await {
            Ok(connection) => connection.split(),
            Err(error) => return error,
        };
        let names = self.channels.suspect_all();
        let own = self.store.node_channel(self.peers.tag());
        let heard = parking_lot::Mutex::new(Instant::now());
        let reading = read(stream, &self.channels, |payload| {
            *heard.lock() = Instant::now();
            match payload.strip_prefix(b"beat ") {
                Some(sent) => self.health.on_beat(sent),
                None => self.peers.on_message(payload),
            }
        });
        let commanding = command(sink, &self.channels, &own, names, &mut self.commands);
        let beating = beat(&self.store, &self.health, &own, self.heartbeat, &heard);
        tokio::select! {
            error = reading => error,
            error = commanding => error,
            error = beating => error,
        }
    }
}

/// Reads messages until the connection ends.
async fn read(mut stream: PubSubStream, channels: &Channels, on_own: impl Fn(&[u8])) -> StoreError {
    while let Some(message) = stream.next().await {
        let name = message.get_channel_name();
        match parse(message.get_payload_bytes()) {
            Some((epoch, offset, frame)) if !name.contains("{node:") => {
                channels.on_message(name, epoch, offset, &Bytes::copy_from_slice(frame));
            }
            _ => on_own(message.get_payload_bytes()),
        }
    }
    StoreError::Closed
}

/// Splits `EPOCH OFFSET FRAME`.
fn parse(payload: &[u8]) -> Option<(&str, u64, &[u8])> {
    let mut parts = payload.splitn(3, |byte| *byte == b' ');
    let epoch = str::from_utf8(parts.next()?).ok()?;
    let offset = str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    Some((epoch, offset, parts.next()?))
}

/// Subscribes to all there is, and then follows the broker's wishes, many at a time.
async fn command(
    mut sink: PubSubSink,
    channels: &Channels,
    own: &str,
    names: Vec<String>,
    commands: &mut mpsc::Receiver<Command>,
) -> StoreError {
    if let Err(error) = answered(sink.subscribe(own)).await {
        return error;
    }
    for batch in names.chunks(BATCH) {
        if let Err(error) = answered(sink.subscribe(batch)).await {
            return error;
        }
        channels.confirm(batch);
    }
    let mut batch = Vec::new();
    while commands.recv_many(&mut batch, BATCH).await > 0 {
        // In order, in runs of one kind.
        for run in batch.chunk_by(|a, b| a.is_subscribe() == b.is_subscribe()) {
            let names: Vec<String> = run.iter().map(|command| command.name().to_owned()).collect();
            let is_subscribe = run.first().is_some_and(Command::is_subscribe);
            let done = if is_subscribe {
                answered(sink.subscribe(&names)).await
            } else {
                answered(sink.unsubscribe(&names)).await
            };
            match done {
                Ok(()) if is_subscribe => channels.confirm(&names),
                Ok(()) => {}
                Err(error) => return error,
            }
        }
        batch.clear();
    }
    StoreError::Closed
}

impl Command {
    fn is_subscribe(&self) -> bool {
        matches!(self, Self::Subscribe(_))
    }

    fn name(&self) -> &str {
        match self {
            Self::Subscribe(name) | Self::Unsubscribe(name) => name,
        }
    }
}

/// Sends heartbeats; ends when too many have not come back.
async fn beat(
    store: &Store,
    health: &Health,
    own: &str,
    interval: Duration,
    heard: &parking_lot::Mutex<Instant>,
) -> StoreError {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if heard.lock().elapsed() > interval * PATIENCE + crate::store::ANSWER_TIMEOUT {
            return StoreError::Timeout;
        }
        let beat = format!("beat {}", health.stamp());
        let sent = async {
            let mut connection = store.connection(own).await?;
            answered(connection.publish::<_, _, u64>(own, beat)).await
        };
        if let Err(error) = sent.await {
            tracing::debug!(%error, "heartbeat");
        }
    }
}
