//! A subscriber connection to one server: reads what is published, subscribes and unsubscribes, and
//! is thrown away when it goes deaf.
//!
//! Rule: nothing here makes the reading wait. A heartbeat is written to Redis, and then goes
//! through it to a channel of this connection's own, all the time, busy or not; while it comes
//! back, messages do. (A replica and a Redis that is full take messages, and write nothing.)

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use redis::{Cmd, Pipeline, PushInfo, PushKind, Value, cmd};
use tokio::sync::{Notify, mpsc};

use super::channels::{Channels, UNKEPT};
use super::health::Health;
use super::subscription::{Shared, Subscription};
use crate::cluster::peers::Peers;
use crate::cluster::store::connection::Connection;
use crate::cluster::store::server::Server;
use crate::cluster::store::{ANSWER_TIMEOUT, Breach, StoreError, is_epoch};
use crate::model::broker::Channel;
use crate::model::trouble::RedisRefusal;
use crate::ops::jitter::jittered;
use crate::ops::metrics::{Foreign, Metrics};
use crate::protocol::codec;

/// Subscriptions in one round trip.
const BATCH: usize = 512;
/// Heartbeats that may be missing before the connection is thrown away.
const PATIENCE: u32 = 3;
/// Heartbeats for which what they wrote stays.
const KEPT_BEATS: u32 = 10;
/// Heartbeats from one look at whether the server is a master still to the next.
const CHECK_BEATS: u32 = 10;
/// First pause before connecting again, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Pause before a subscription that was refused is tried again.
const REFUSED_PAUSE: Duration = Duration::from_secs(2);

/// See the [module documentation](self).
pub(super) struct Link {
    pub(super) parts: Shared,
    pub(super) server: Arc<Server>,
    pub(super) beats: Arc<Beats>,
    pub(super) commands: mpsc::Receiver<Subscription>,
}

/// From which servers heartbeats come back, written: messages go through Redis while they do from
/// all.
#[derive(Debug)]
pub(super) struct Beats {
    health: Arc<Health>,
    /// By address of the server.
    signs: Mutex<HashMap<String, Sign>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sign {
    /// Whether one has come back over this connection.
    is_heard: bool,
    /// Whether the last was written.
    is_written: bool,
}

/// What the connection's reading works with.
struct LinkReader {
    channels: Arc<Channels>,
    peers: Arc<Peers>,
    beats: Arc<Beats>,
    metrics: Arc<Metrics>,
    message_bytes: usize,
    address: String,
    /// This node's channel, and the one of the heartbeats.
    own: String,
    beat: String,
    /// The channel of all.
    all: String,
    heard: Mutex<Instant>,
    ended: Notify,
}

impl Beats {
    pub(super) fn new(health: Arc<Health>) -> Self {
        Self { health, signs: Mutex::default() }
    }

    /// Notes which servers there are.
    pub(super) fn expect(&self, addresses: &[String]) {
        let mut signs = self.signs.lock();
        signs.retain(|address, _| addresses.contains(address));
        for address in addresses {
            signs.entry(address.clone()).or_default();
        }
    }

    fn came(&self, address: &str, stamp: &[u8]) {
        let mut signs = self.signs.lock();
        if let Some(sign) = signs.get_mut(address) {
            sign.is_heard = true;
        }
        let is_whole = signs.values().all(|sign| sign.is_heard && sign.is_written);
        drop(signs);
        if is_whole {
            self.health.on_beat(stamp);
        }
    }

    /// A heartbeat was written, or not. No answer says nothing yet.
    fn wrote(&self, address: &str, error: Option<&StoreError>) {
        let refused = error.filter(|error| error.is_certain() || error.class().is_some());
        if let Some(sign) = self.signs.lock().get_mut(address)
            && (refused.is_some() || error.is_none())
        {
            sign.is_written = refused.is_none();
        }
        if let Some(error) = refused {
            self.health.lost(error);
        }
    }

    /// Returns whether a heartbeat had come back over the connection.
    fn ended(&self, address: &str, error: &StoreError) -> bool {
        self.health.lost(error);
        self.signs.lock().get_mut(address).is_some_and(|sign| std::mem::take(&mut sign.is_heard))
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
            let was_up = self.beats.ended(&address, &error);
            if matches!(error, StoreError::Closed | StoreError::Command(_))
                && error.class().is_none()
            {
                // Whether it is away, or has cut connections only, is seen in a moment.
                tracing::info!(server = address, %error, "Redis has ended a connection; connecting anew");
            } else {
                self.parts.store.refusals().on_lost(&address, &error);
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
        let Shared { store, channels, peers, .. } = &self.parts;
        let address = self.server.address.clone();
        let map = store.topology().map();
        let Some(tag) = map.tag_at(&address) else { return StoreError::Closed };
        let own = store.node_channel(peers.tag());
        let reader = Arc::new(LinkReader {
            channels: Arc::clone(channels),
            peers: Arc::clone(peers),
            beats: Arc::clone(&self.beats),
            beat: store.beat_channel(&tag, peers.tag()),
            own: own.clone(),
            all: store.channel(&Channel::Broadcast),
            heard: Mutex::new(Instant::now()),
            ended: Notify::new(),
            metrics: Arc::clone(&self.parts.metrics),
            message_bytes: self.parts.message_bytes,
            address: address.clone(),
        });
        // Who does not do what it is asked is not worth any subscriptions if another may.
        if let Err(error) = write(&self.parts, &reader).await
            && error.class().is_none_or(RedisRefusal::is_moved_on)
        {
            return error;
        }
        let hearing = Arc::clone(&reader);
        let mut connection = match self.server.subscriber(move |push| hearing.on_push(push)).await {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        let ended = connection.clone();
        let mut names = vec![reader.beat.clone()];
        names.extend(map.is_at(&own, &address).then_some(own));
        names.extend(channels.suspect_all(|name| map.is_at(name, &address)));
        let commands = names.into_iter().map(Subscription::Subscribe).collect();
        tokio::select! {
            error = follow(&self.parts, &reader, &mut connection, commands, &mut self.commands) => error,
            error = beat(&self.parts, &self.server, &reader) => error,
            () = self.server.moved() => StoreError::Replica,
            () = reader.ended.notified() => ended.why_ended(),
        }
    }
}

impl LinkReader {
    /// Returns whether the node cannot work without a subscription.
    fn needs(&self, name: &str) -> bool {
        [&self.own, &self.beat, &self.all].iter().any(|needed| *needed == name)
    }

    /// Takes what the server sends; must not wait.
    fn on_push(&self, push: PushInfo) {
        let PushInfo { kind, data } = push;
        match kind {
            PushKind::Message | PushKind::SMessage => self.on_message(data),
            PushKind::SUnsubscribe => {
                if let Some(Value::BulkString(name)) = data.into_iter().next()
                    && let Ok(name) = String::from_utf8(name)
                {
                    self.channels.mark_moved(&name);
                }
            }
            PushKind::Disconnection => self.ended.notify_one(),
            _ => {}
        }
    }

    fn on_message(&self, data: Vec<Value>) {
        let mut data = data.into_iter();
        let (Some(Value::BulkString(name)), Some(Value::BulkString(payload))) =
            (data.next(), data.next())
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
    parts: &Shared,
    reader: &LinkReader,
    connection: &mut Connection,
    first: Vec<Subscription>,
    commands: &mut mpsc::Receiver<Subscription>,
) -> StoreError {
    let mut refused = Vec::new();
    for batch in first.chunks(BATCH) {
        match carry_out(parts, reader, connection, batch).await {
            Ok(again) => refused.extend(again),
            Err(error) => return error,
        }
    }
    let mut batch = Vec::new();
    loop {
        let pause = if refused.is_empty() { Duration::MAX } else { REFUSED_PAUSE };
        match tokio::time::timeout(pause, commands.recv_many(&mut batch, BATCH)).await {
            Ok(0) => return StoreError::Closed,
            Ok(_) => {}
            Err(_) => batch.extend(refused.drain(..refused.len().min(BATCH))),
        }
        match carry_out(parts, reader, connection, &batch).await {
            Ok(again) => refused.extend(again),
            Err(error) => return error,
        }
        batch.clear();
    }
}

/// Returns the subscriptions that the server refuses though there are members already.
async fn carry_out(
    parts: &Shared,
    reader: &LinkReader,
    connection: &mut Connection,
    commands: &[Subscription],
) -> Result<Vec<Subscription>, StoreError> {
    let (subscribe, unsubscribe) = parts.store.subscribe_commands();
    let mut pipeline = Pipeline::new();
    for command in commands {
        // One name each, so that each has its own answer.
        let word = if command.is_subscribe() { subscribe } else { unsubscribe };
        pipeline.add_command(cmd(word).arg(command.name()).to_owned());
    }
    let answers = connection.ask(&pipeline).await?;
    let (mut confirmed, mut refused) = (Vec::new(), Vec::new());
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
                if let Subscription::Unsubscribe(name, true) = command
                    && parts.left.try_send(name.clone()).is_err()
                {
                    tracing::debug!(channel = name, "too many channels are left to let each go");
                }
            }
            Value::ServerError(error) if command.is_subscribe() => {
                let error = StoreError::Command(error.into());
                if error.class() == Some(RedisRefusal::ClusterDown) {
                    tracing::debug!(%error, channel = command.name(), "subscribing");
                    parts.channels.mark_moved(command.name());
                } else if reader.needs(command.name())
                    || error.class().is_some_and(RedisRefusal::is_moved_on)
                {
                    return Err(error);
                } else {
                    parts.store.refusals().on_error(&reader.address, &error);
                    refused.extend(parts.channels.refuse(command.name()).then(|| command.clone()));
                }
            }
            Value::ServerError(_) => {}
            // A slot was given away meanwhile: the answers cannot be told apart any more.
            Value::Push { .. } => return Err(StoreError::Closed),
            _ => return Err(StoreError::Broken(Breach::Unfit("SUBSCRIBE"))),
        }
    }
    parts.channels.confirm(&confirmed);
    Ok(refused)
}

/// Sends heartbeats; ends when too many have not come back, or when the server is none to ask any
/// more.
async fn beat(parts: &Shared, server: &Server, reader: &LinkReader) -> StoreError {
    let mut ticks = tokio::time::interval(parts.heartbeat);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for number in 1_u32.. {
        ticks.tick().await;
        parts.store.refusals().settle();
        if reader.heard.lock().elapsed() > parts.heartbeat * PATIENCE + ANSWER_TIMEOUT {
            break;
        }
        if number % CHECK_BEATS == 0
            && let Err(error @ StoreError::Replica) = server.check().await
        {
            return error;
        }
        match write(parts, reader).await {
            Err(error) if error.class().is_some_and(RedisRefusal::is_moved_on) => return error,
            Err(error) => tracing::debug!(%error, "writing a heartbeat"),
            Ok(()) => {}
        }
        let stamp = parts.health.stamp().to_string();
        if let Err(error) = parts.store.publish(&reader.beat, stamp.as_bytes()).await {
            tracing::debug!(%error, "heartbeat");
            if error.class().is_some() {
                // What was not sent cannot be heard, which says nothing of the connection.
                *reader.heard.lock() = Instant::now();
                parts.health.lost(&error);
            }
        }
    }
    StoreError::Timeout
}

/// Writes a heartbeat: whoever takes it takes this node's other writes.
async fn write(parts: &Shared, reader: &LinkReader) -> Result<(), StoreError> {
    let kept = u64::try_from((parts.heartbeat * KEPT_BEATS).as_millis()).unwrap_or(u64::MAX);
    let command = Cmd::pset_ex(&reader.beat, "1", kept);
    let result = match parts.store.ask::<Value>(&reader.beat, command).await {
        Ok(Value::Okay) => Ok(()),
        Ok(_) => {
            let error = StoreError::Broken(Breach::Unfit("PSETEX"));
            parts.store.refusals().on_error(&reader.address, &error);
            Err(error)
        }
        Err(error) => Err(error),
    };
    reader.beats.wrote(&reader.address, result.as_ref().err());
    result
}
