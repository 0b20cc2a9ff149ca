//! Keeps a subscriber connection ([`super::link`]) to every server of Redis, and each channel
//! subscribed to where it is.
//!
//! One server, a master that Sentinels name, or all masters of a Cluster: the store's map says
//! which. A channel that moves is read from its stream where it went, so nothing is missed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::link::{Beats, Link};
use super::subscription::{Shared, Subscription};
use crate::cluster::store::topology::Map;
use crate::ops::lifecycle::Lifecycle;

/// Commands taken at a time.
const BATCH: usize = 512;
/// Commands on their way to one connection.
const COMMANDS: usize = 262_144;
/// Pause before a channel that a server has given away is looked for again.
const PAUSE: Duration = Duration::from_millis(50);

/// See the [module documentation](self).
pub(super) struct Subscriber {
    parts: Shared,
    lifecycle: Lifecycle,
    commands: mpsc::Receiver<Subscription>,
    links: HashMap<String, Handle>,
    beats: Arc<Beats>,
}

/// The manager's end of a connection; dropping it ends the connection.
struct Handle {
    /// First, since fields are dropped in order: the link is told to end before it can see that
    /// nobody commands it.
    _ended: tokio_util::sync::DropGuard,
    commands: mpsc::Sender<Subscription>,
}

impl Subscriber {
    pub(super) fn new(
        parts: Shared,
        lifecycle: Lifecycle,
        commands: mpsc::Receiver<Subscription>,
    ) -> Self {
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
                () = channels.moved.notified() => {
                    self.parts.store.topology().suspect();
                    tokio::time::sleep(PAUSE).await;
                    self.resubscribe(&map);
                }
            }
        }
    }

    /// Connects to servers that are new, leaves those that have nothing any more, and moves
    /// channels.
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
        let address =
            |map: &Map, name: &str| map.server_of(name).map(|server| server.address.clone());
        self.parts.channels.mark_all_moved(|name| {
            let before = address(old, name);
            before.is_some() && before != address(new, name)
        });
    }

    /// Subscribes, where they are now, to channels that their servers have given away.
    fn resubscribe(&mut self, map: &Map) {
        for name in self.parts.channels.take_moved() {
            self.route(map, Subscription::Subscribe(name));
        }
    }

    fn route(&mut self, map: &Map, command: Subscription) {
        let Some(address) = map.server_of(command.name()).map(|server| &server.address) else {
            return;
        };
        let Some(link) = self.links.get(address) else { return };
        if link.commands.try_send(command).is_err() {
            // A new connection subscribes to everything that is wanted by then.
            tracing::warn!(server = address, "too many subscriptions under way; connecting anew");
            self.links.remove(address);
            self.follow(map, &self.parts.store.topology().map());
        }
    }
}
