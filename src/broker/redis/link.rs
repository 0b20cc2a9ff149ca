//! A subscriber connection to one server: reads what is published, subscribes and unsubscribes, and is thrown away when it
//! goes deaf.
//!
//! Rule: nothing here makes the reading wait. A heartbeat goes through Redis to a channel of this connection's own all the
//! time, busy or not; while it comes back, messages do.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use deadpool_redis::redis::aio::{ConnectionLike as _, MultiplexedConnection};
use deadpool_redis::redis::{Pipeline, PushInfo, PushKind, Value, cmd};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::channels::{Channels, UNKEPT};
use super::health::Health;
use super::subscriber::{Command, Parts};
use crate::codec;
use crate::connection::jittered;
use crate::metrics::{Foreign, Metrics};
use crate::peers::Peers;
use crate::store::server::Server;
use crate::store::{ANSWER_TIMEOUT, StoreError, answered, is_epoch};

/// Subscriptions in one round trip.
const BATCH: usize = 512;
/// Heartbeats that may be missing before the connection is thrown away.
const PATIENCE: u32 = 3;
/// First pause before connecting again, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// See the head of this file.
pub(super) struct Link {
    pub(super) parts: Parts,
    pub(super) server: Arc<Server>,
    pub(super) beats: Arc<Beats>,
    pub(super) commands: mpsc::Receiver<Command>,
}

/// From which connections heartbeats come back: messages go through Redis while they do from all.
#[derive(Debug)]
pub(super) struct Beats {
    health: Arc<Health>,
    /// By address of the server.
    is_up: Mutex<HashMap<String, bool>>,
}

/// What the connection's reading works with.
struct Ears {
    channels: Arc<Channels>,
    peers: Arc<Peers>,
    beats: Arc<Beats>,
    metrics: Arc<Metrics>,
    message_bytes: usize,
    address: String,
    /// This node's channel, and the one of the heartbeats.
    own: String,
    beat: String,
    heard: Mutex<Instant>,
    ended: Notify,
}

impl Beats {
    pub(super) fn new(health: Arc<Health>) -> Self {
        Self { health, is_up: Mutex::default() }
    }

    /// Notes which servers there are.
    pub(super) fn expect(&self, addresses: &[String]) {
        let mut is_up = self.is_up.lock();
        is_up.retain(|address, _| addresses.contains(address));
        for address in addresses {
            is_up.entry(address.clone()).or_insert(false);
        }
    }

    fn came(&self, address: &str, stamp: &[u8]) {
        let mut is_up = self.is_up.lock();
        if let Some(is_up) = is_up.get_mut(address) {
            *is_up = true;
        }
        let is_whole = is_up.values().all(|is_up| *is_up);
        drop(is_up);
        if is_whole {
            self.health.on_beat(stamp);
        }
    }

    /// Returns whether a heartbeat had come back over the connection, and whether its end is news.
    fn ended(&self, address: &str) -> (bool, bool) {
        let was_up = self.is_up.lock().get_mut(address).is_some_and(std::mem::take);
        (was_up, self.health.lost())
    }
}

impl Link {
    /// Runs for ever: connects, serves, and when that ends connects again.
    pub(super) async fn run(mut self) {
        let mut pause = BACKOFF.0;
        let address = self.server.address.clone();
        loop {
            let error = self.serve().await;
            if self.commands.is_closed() {
                return;
            }
            self.parts.store.refusals().on_error(&address, &error);
            let (was_up, is_news) = self.beats.ended(&address);
            if is_news && error.class().is_none() {
                tracing::warn!(server = address, %error, "Redis is away; connections stay, and messages are refused");
            }
            self.parts.metrics.redis_reconnects.inc();
            self.parts.store.topology().suspect();
            let map = self.parts.store.topology().map();
            self.parts.channels.refuse_waiting(|name| map.is_at(name, &address));
            pause = if was_up { BACKOFF.0 } else { (pause * 2).min(BACKOFF.1) };
            tokio::time::sleep(jittered(pause)).await;
        }
    }

    /// Serves one connection to its end; returns why it ended.
    async fn serve(&mut self) -> StoreError {
        let Parts { store, channels, peers, .. } = &self.parts;
        let address = self.server.address.clone();
        let map = store.topology().map();
        let Some(tag) = map.tag_at(&address) else { return StoreError::Closed };
        let own = store.node_channel(peers.tag());
        let ears = Arc::new(Ears {
            channels: Arc::clone(channels),
            peers: Arc::clone(peers),
            beats: Arc::clone(&self.beats),
            beat: store.beat_channel(&tag, peers.tag()),
            own: own.clone(),
            heard: Mutex::new(Instant::now()),
            ended: Notify::new(),
            metrics: Arc::clone(&self.parts.metrics),
            message_bytes: self.parts.message_bytes,
            address: address.clone(),
        });
        let hearing = Arc::clone(&ears);
        let mut connection = match self.server.subscriber(move |push| hearing.on_push(push)).await {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        let mut names = vec![ears.beat.clone()];
        names.extend(map.is_at(&own, &address).then_some(own));
        names.extend(channels.suspect_all(|name| map.is_at(name, &address)));
        let commands = names.into_iter().map(Command::Subscribe).collect();
        tokio::select! {
            error = follow(&self.parts, &mut connection, commands, &mut self.commands) => error,
            error = beat(&self.parts, &ears) => error,
            () = ears.ended.notified() => StoreError::Closed,
        }
    }
}

impl Ears {
    /// Takes what the server sends; must not wait.
    fn on_push(&self, push: PushInfo) {
        let PushInfo { kind, data } = push;
        match kind {
            PushKind::Message | PushKind::SMessage => self.on_message(data),
            PushKind::SUnsubscribe => {
                if let Some(Value::BulkString(name)) = data.into_iter().next()
                    && let Ok(name) = String::from_utf8(name)
                {
                    self.channels.went_astray(&name);
                }
            }
            PushKind::Disconnection => self.ended.notify_one(),
            _ => {}
        }
    }

    fn on_message(&self, data: Vec<Value>) {
        let mut data = data.into_iter();
        let (Some(Value::BulkString(name)), Some(Value::BulkString(payload))) = (data.next(), data.next())
        else {
            return;
        };
        let Ok(name) = str::from_utf8(&name) else { return };
        if name == self.beat {
            *self.heard.lock() = Instant::now();
            self.beats.came(&self.address, &payload);
        } else if name == self.own {
            self.peers.on_message(&payload);
        } else {
            let payload = Bytes::from(payload);
            match parse(&payload, self.message_bytes) {
                Some((epoch, offset, frame)) => {
                    self.channels.on_message(name, epoch, offset, &payload.slice_ref(frame));
                }
                None => self.metrics.count_foreign(Foreign::Message, 1),
            }
        }
    }
}

/// Splits `EPOCH OFFSET FRAME`; `None` if it is not what a node publishes.
fn parse(payload: &[u8], message_bytes: usize) -> Option<(&str, u64, &[u8])> {
    let mut parts = payload.splitn(3, |byte| *byte == b' ');
    let epoch = str::from_utf8(parts.next()?).ok()?;
    let offset = str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let frame = parts.next()?;
    let is_ours = (epoch == UNKEPT || is_epoch(epoch)) && codec::is_message(frame, message_bytes);
    is_ours.then_some((epoch, offset, frame))
}

/// Carries out `first`, and then what the broker wishes, many at a time.
async fn follow(
    parts: &Parts,
    connection: &mut MultiplexedConnection,
    first: Vec<Command>,
    commands: &mut mpsc::Receiver<Command>,
) -> StoreError {
    for batch in first.chunks(BATCH) {
        if let Err(error) = carry_out(parts, connection, batch).await {
            return error;
        }
    }
    let mut batch = Vec::new();
    while commands.recv_many(&mut batch, BATCH).await > 0 {
        if let Err(error) = carry_out(parts, connection, &batch).await {
            return error;
        }
        batch.clear();
    }
    StoreError::Closed
}

async fn carry_out(
    parts: &Parts,
    connection: &mut MultiplexedConnection,
    commands: &[Command],
) -> Result<(), StoreError> {
    let (subscribe, unsubscribe) = parts.store.subscribe_commands();
    let mut pipeline = Pipeline::new();
    for command in commands {
        // One name each, so that each has its own answer.
        let word = if command.is_subscribe() { subscribe } else { unsubscribe };
        pipeline.add_command(cmd(word).arg(command.name()).to_owned());
    }
    let answers = answered(connection.req_packed_commands(&pipeline, 0, commands.len())).await?;
    let mut confirmed = Vec::new();
    for (command, answer) in commands.iter().zip(answers) {
        match answer {
            Value::Push { kind: PushKind::Subscribe | PushKind::SSubscribe, .. }
                if command.is_subscribe() =>
            {
                confirmed.push(command.name().to_owned());
            }
            Value::Push { kind: PushKind::Unsubscribe | PushKind::SUnsubscribe, .. }
                if !command.is_subscribe() =>
            {
                if let Command::Unsubscribe(name, true) = command
                    && parts.left.try_send(name.clone()).is_err()
                {
                    tracing::debug!(channel = name, "too many channels are left to let each go");
                }
            }
            Value::ServerError(error) if command.is_subscribe() => {
                tracing::debug!(%error, channel = command.name(), "subscribing");
                parts.channels.went_astray(command.name());
            }
            Value::ServerError(_) => {}
            // A slot was given away meanwhile: the answers cannot be told apart any more.
            _ => return Err(StoreError::Closed),
        }
    }
    parts.channels.confirm(&confirmed);
    Ok(())
}

/// Sends heartbeats; ends when too many have not come back.
async fn beat(parts: &Parts, ears: &Ears) -> StoreError {
    let mut ticks = tokio::time::interval(parts.heartbeat);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        parts.store.refusals().settle();
        if ears.heard.lock().elapsed() > parts.heartbeat * PATIENCE + ANSWER_TIMEOUT {
            return StoreError::Timeout;
        }
        if let Err(error) = parts.store.publish(&ears.beat, parts.health.stamp().to_string().as_bytes()).await
        {
            tracing::debug!(%error, "heartbeat");
        }
    }
}
