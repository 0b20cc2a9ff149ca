//! Keeps a subscriber connection ([`super::link`]) to every server of Redis, and each channel subscribed to where it is.
//!
//! One server, a master that Sentinels name, or all masters of a Cluster: the store's map says which. A channel that moves is
//! read from its stream where it went, so nothing is missed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::channels::Channels;
use super::health::Health;
use super::link::{Beats, Link};
use crate::cluster::peers::Peers;
use crate::cluster::store::Store;
use crate::cluster::store::topology::Map;
use crate::ops::lifecycle::Lifecycle;
use crate::ops::metrics::Metrics;

/// Commands taken at a time.
const BATCH: usize = 512;
/// Commands on their way to one connection.
const COMMANDS: usize = 262_144;
/// Pause before a channel that a server has given away is looked for again.
const PAUSE: Duration = Duration::from_millis(50);

/// What the broker wants of the connections.
#[derive(Clone, Debug)]
pub(super) enum Command {
    Subscribe(String),
    /// `true` with it if the channel has had messages.
    Unsubscribe(String, bool),
}

/// What connections work with.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub(super) store: Store,
    pub(super) channels: Arc<Channels>,
    pub(super) peers: Arc<Peers>,
    pub(super) health: Arc<Health>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) heartbeat: Duration,
    /// Takes channels that this node has left.
    pub(super) left: mpsc::Sender<String>,
    /// Longest message, in bytes.
    pub(super) message_bytes: usize,
}

/// See the head of this file.
pub(super) struct Subscriber {
    parts: Parts,
    lifecycle: Lifecycle,
    commands: mpsc::Receiver<Command>,
    links: HashMap<String, Handle>,
    beats: Arc<Beats>,
}

/// The manager's end of a connection; dropping it ends the connection.
struct Handle {
    /// First, since fields are dropped in order: the link is told to end before it can see that nobody commands it.
    _ended: tokio_util::sync::DropGuard,
    commands: mpsc::Sender<Command>,
}

impl Subscriber {
    pub(super) fn new(parts: Parts, lifecycle: Lifecycle, commands: mpsc::Receiver<Command>) -> Self {
        let beats = Arc::new(Beats::new(Arc::clone(&parts.health)));
        Self { parts, lifecycle, commands, links: HashMap::new(), beats }
    }

    /// Runs for ever.
    pub(super) async fn run(mut self) {
        let mut maps = self.parts.store.topology().watch();
        let mut map = Arc::clone(&maps.borrow_and_update());
        self.follow(&Map::default(), &map);
        let channels = Arc::clone(&self.parts.channels);
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                changed = maps.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let new = Arc::clone(&maps.borrow_and_update());
                    self.follow(&map, &new);
                    map = new;
                }
                count = self.commands.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    batch.drain(..).for_each(|command| self.route(&map, command));
                }
                () = channels.astray.notified() => {
                    self.parts.store.topology().suspect();
                    tokio::time::sleep(PAUSE).await;
                    self.resubscribe(&map);
                }
            }
        }
    }

    /// Connects to servers that are new, leaves those that have nothing any more, and moves channels.
    fn follow(&mut self, old: &Map, new: &Arc<Map>) {
        let addresses: Vec<_> = new.servers().iter().map(|server| server.address.clone()).collect();
        self.links.retain(|address, _| addresses.contains(address));
        self.beats.expect(&addresses);
        for server in new.servers() {
            if self.links.contains_key(&server.address) {
                continue;
            }
            let (commands, to_command) = mpsc::channel(COMMANDS);
            let ended = self.lifecycle.ending().child_token();
            let link = Link {
                parts: self.parts.clone(),
                server: Arc::clone(server),
                beats: Arc::clone(&self.beats),
                commands: to_command,
            };
            let token = ended.clone();
            self.lifecycle.spawn_vital("link to Redis", ended.clone(), async move {
                token.run_until_cancelled(Box::pin(link.run())).await;
            });
            let handle = Handle { commands, _ended: ended.drop_guard() };
            self.links.insert(server.address.clone(), handle);
        }
        let address = |map: &Map, name: &str| map.server_of(name).map(|server| server.address.clone());
        self.parts.channels.lead_astray(|name| {
            let before = address(old, name);
            before.is_some() && before != address(new, name)
        });
    }

    /// Subscribes, where they are now, to channels that their servers have given away.
    fn resubscribe(&mut self, map: &Map) {
        for name in self.parts.channels.take_astray() {
            self.route(map, Command::Subscribe(name));
        }
    }

    fn route(&mut self, map: &Map, command: Command) {
        let Some(address) = map.server_of(command.name()).map(|server| &server.address) else { return };
        let Some(link) = self.links.get(address) else { return };
        if link.commands.try_send(command).is_err() {
            // A new connection subscribes to everything that is wanted by then.
            tracing::warn!(server = address, "too many subscriptions under way; connecting anew");
            self.links.remove(address);
            self.follow(map, &self.parts.store.topology().map());
        }
    }
}

impl Command {
    pub(super) fn is_subscribe(&self) -> bool {
        matches!(self, Self::Subscribe(_))
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Subscribe(name) | Self::Unsubscribe(name, _) => name,
        }
    }
}
