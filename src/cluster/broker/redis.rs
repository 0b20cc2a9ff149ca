//! The broker of many nodes: Redis carries the messages.
//!
//! A message is accepted by one script (offset, stream, publish); a node delivers what comes in
//! order and reads from the stream what did not come ([`track`]). `publisher` and `reader` use
//! pooled connections, `subscriber` one of its own.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use uuid::Uuid;

use self::channels::{Channels, Errand};
use self::health::Health;
use self::leaver::Leaver;
use self::page::Pages;
use self::pressure::Pressure;
use self::publisher::Publisher;
use self::queue::Coming;
use self::reader::Reader;
use self::subscriber::Subscriber;
use self::subscription::{Shared, Subscription};
use crate::cluster::peers::Peers;
use crate::cluster::registry::tenure::Tenure;
use crate::cluster::store::{Store, milliseconds};
use crate::config::{OnOutage, RedisSettings, Snapshots};
use crate::limits::budget::{Gauge, Kind};
use crate::model::broker::{
    Broker, Channel, History, Offset, Publication, PublishError, Standing, Terms,
};
use crate::ops::lifecycle::Lifecycle;
use crate::ops::metrics::{DropReason, Metrics};
use crate::ops::telemetry::Telemetry;
use crate::shard::hub::Hub;

mod channels;
pub(crate) mod health;
mod history;
mod leaver;
mod link;
mod pace;
mod page;
mod pressure;
mod publisher;
mod queue;
mod reader;
mod subscriber;
mod subscription;
mod track;

/// Publications on their way to the publisher; a quarter of the memory budget, or 64 MiB, bounds
/// them as well.
const PUBLICATIONS: usize = 16_384;
/// Counted for each besides its frame, in bytes.
const PUBLICATION: usize = 512;
/// Subscriptions and their ends on their way to the subscriber.
const COMMANDS: usize = 262_144;

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct RedisBroker {
    store: Store,
    terms: Terms,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    channels: Arc<Channels>,
    pages: Pages,
    publications: mpsc::Sender<Coming>,
    /// What publications hold until they are answered.
    held: Gauge,
    commands: mpsc::Sender<Subscription>,
}

/// What the broker works with.
pub(crate) struct BrokerParts {
    pub(crate) store: Store,
    pub(crate) settings: RedisSettings,
    pub(crate) terms: Terms,
    pub(crate) snapshots: Snapshots,
    pub(crate) hub: Arc<Hub>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) health: Arc<Health>,
    pub(crate) tenure: Tenure,
    pub(crate) telemetry: Telemetry,
}

impl RedisBroker {
    /// Starts the broker's tasks.
    pub(crate) fn start(parts: BrokerParts, lifecycle: &Lifecycle) -> Self {
        let BrokerParts { store, settings, terms, snapshots, telemetry, .. } = parts;
        let BrokerParts { hub, peers, health, tenure, .. } = parts;
        let metrics = Arc::clone(&telemetry.metrics);
        let is_local = settings.on_outage == OnOutage::Local;
        let channels = Arc::new(Channels::new(Arc::clone(&hub), telemetry.clone(), is_local));
        let (publications, to_publish) = mpsc::channel(PUBLICATIONS);
        let (commands, to_command) = mpsc::channel(COMMANDS);
        let (left, to_leave) = mpsc::channel(COMMANDS);
        let shared = Shared {
            store: store.clone(),
            channels: Arc::clone(&channels),
            peers,
            health: Arc::clone(&health),
            metrics: Arc::clone(&metrics),
            heartbeat: settings.heartbeat,
            left,
            message_bytes: terms.message_bytes,
        };
        let subscriber = Subscriber::new(shared, lifecycle.clone(), to_command);
        lifecycle
            .spawn_until_end("map of Redis", Arc::clone(store.topology()).keep(settings.heartbeat));
        let leaver = Leaver { store: store.clone(), age: milliseconds(settings.stream_age) };
        let pressure = Arc::new(Pressure::new(store.clone(), &settings, Arc::clone(&metrics)));
        lifecycle.spawn_until_end("watch over memory", Arc::clone(&pressure).watch());
        let publisher = Publisher {
            pressure,
            store: store.clone(),
            settings,
            terms: terms.clone(),
            snapshots: snapshots.clone(),
            hub: Arc::clone(&hub),
            channels: Arc::clone(&channels),
            health,
            tenure,
            telemetry,
            instance: Uuid::new_v4().simple().to_string(),
            ending: lifecycle.ending(),
            warned_at: parking_lot::Mutex::default(),
        };
        let pages = Pages::new(terms.message_bytes);
        lifecycle.spawn_vital("publisher", lifecycle.ending(), publisher.run(to_publish));
        let reader = |errand| {
            let (store, channels, pages) = (store.clone(), Arc::clone(&channels), pages.clone());
            Reader { store, channels, pages, errand, snapshots: snapshots.clone() }.run()
        };
        lifecycle.spawn_until_end("reader of streams", reader(Errand::Beginning));
        lifecycle.spawn_until_end("reader of streams", reader(Errand::Repair));
        lifecycle.spawn_until_end("leaver of channels", leaver.run(to_leave));
        lifecycle.spawn_until_end("subscriber", subscriber.run());
        let held = hub.budget().gauge(Kind::Publications, 0);
        let broker =
            Self { store, terms, hub, metrics, channels, pages, publications, held, commands };
        for shard in 0..broker.hub.shard_count() {
            broker.subscribe(shard, &Channel::Broadcast);
        }
        broker
    }
}

impl Broker for RedisBroker {
    fn publish(&self, publications: &mut Vec<Publication>) {
        if self.hub.budget().is_tight() {
            return self.hub.refuse_for_memory(publications);
        }
        let most = self.hub.budget().queue_bytes(1);
        let mut refused = 0;
        for publication in publications.drain(..) {
            let is_end = publication.is_end();
            if publication.key.is_some() && !is_end && !self.terms.keeps(&publication.channel) {
                self.hub.answer(publication.receipt, Err(PublishError::KeyUnkept));
                continue;
            }
            if !self.terms.allows(&publication.frame) {
                self.hub.answer(publication.receipt, Err(PublishError::TooLong));
                continue;
            }
            let refusal = match self.held.try_hold(publication.frame.len() + PUBLICATION, most) {
                Some(held) => self
                    .publications
                    .try_send(Coming { publication, held })
                    .err()
                    .map(|error| error.into_inner().publication),
                None => Some(publication),
            };
            if let Some(publication) = refusal {
                refused += usize::from(!is_end);
                self.hub.answer(publication.receipt, Err(PublishError::Overload));
            }
        }
        if refused > 0 {
            self.metrics.count_dropped(DropReason::Overload, refused);
        }
    }

    fn subscribe(&self, shard: usize, channel: &Channel) -> Standing {
        let name = self.store.channel(channel);
        let (standing, is_new) =
            self.channels.add(&name, channel, self.terms.keeps(channel), shard);
        if is_new && self.commands.try_send(Subscription::Subscribe(name.clone())).is_err() {
            self.channels.remove(&name, shard);
            return Standing::Refused;
        }
        standing
    }

    fn has_begun(&self) -> bool {
        self.channels.has_begun(&self.store.channel(&Channel::Broadcast))
    }

    fn history(
        &self,
        channel: &Channel,
        after: Offset,
        limit: usize,
    ) -> BoxFuture<'_, Result<Option<History>, PublishError>> {
        let channel = channel.clone();
        Box::pin(async move {
            history::read(&self.store, &self.pages, &channel, after, limit).await.map(Some).map_err(
                |error| {
                    tracing::debug!(%error, "reading a history");
                    error.class().map_or(PublishError::Unavailable, PublishError::Refused)
                },
            )
        })
    }

    fn unsubscribe(&self, shard: usize, channel: &Channel) {
        let name = self.store.channel(channel);
        if let Some(is_used) = self.channels.remove(&name, shard)
            && self.commands.try_send(Subscription::Unsubscribe(name, is_used)).is_err()
        {
            // Messages for nobody are ignored; the next connection does not subscribe to it any
            // more.
            tracing::debug!("too many subscriptions under way to end one");
        }
    }
}
