//! Which servers there are, and which of them has a key: one, the master that Sentinels name, or
//! those of a Cluster.
//!
//! Who meets an error that says "not here" or "not there any more" asks for a new map by
//! [`Topology::suspect`]; one task draws maps ([`Topology::keep`]). Names are resolved anew with
//! every connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::{Cmd, FromRedisValue as _, Value, cmd};
use tokio::sync::{Notify, watch};

use super::connection::Access;
use super::error::{StoreError, refused_or};
use super::refusals::Refusals;
use super::server::{Server, ServerCommand};
use super::slots;
use crate::config::{RedisSettings, RedisTopology};

/// Between looks at a Cluster that gives no reason to.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long a view that is older than one seen before is not believed: who tells it may be cut off
/// from the others.
const OLD_VIEW_AFTER: Duration = Duration::from_secs(60);
/// Longest time between two while Redis has not been found.
const RETRY_EVERY: Duration = Duration::from_millis(500);
/// Shortest time between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Topology {
    form: RedisTopology,
    access: Access,
    /// Whom to ask first: the server, Sentinels, or some servers of the Cluster.
    seeds: Vec<Arc<Server>>,
    /// Servers by address, so that a server that is seen again keeps its connections.
    known: Mutex<HashMap<String, Arc<Server>>>,
    map: watch::Sender<Arc<Map>>,
    suspected: Notify,
    /// Why the last look has found nothing, if it has not.
    missed: Mutex<Option<StoreError>>,
    /// The newest epoch of a view, and when it was last told.
    newest: Mutex<Option<(u64, Instant)>>,
    refusals: Arc<Refusals>,
}

/// A map, and the epoch (of Sentinels, or of the Cluster) in which it is right.
struct View {
    epoch: u64,
    map: Map,
}

/// What a server answered to some questions.
type Said = (Arc<Server>, Result<Vec<Value>, StoreError>);

/// Which server has what. Empty until one has been drawn.
#[derive(Debug, Default)]
pub(crate) struct Map {
    servers: Vec<Arc<Server>>,
    /// For each slot of a Cluster its server's index, [`NOWHERE`] for a slot that has none; empty
    /// elsewhere.
    slots: Vec<u16>,
}

const NOWHERE: u16 = u16::MAX;
const UNSERVED: &str = "no server of the Cluster has the slot";

impl Map {
    /// Returns the servers that have something.
    pub(crate) fn servers(&self) -> &[Arc<Server>] {
        &self.servers
    }

    /// Returns the server that has a key or channel.
    pub(crate) fn server_of(&self, name: &str) -> Option<&Arc<Server>> {
        if self.slots.is_empty() {
            return self.servers.first();
        }
        let index = self.slots.get(usize::from(slots::of(name)))?;
        self.servers.get(usize::from(*index))
    }

    /// Returns whether a key or channel is at the server of this address.
    pub(crate) fn is_at(&self, name: &str, address: &str) -> bool {
        self.server_of(name).is_some_and(|server| server.address == address)
    }

    /// Returns a hash tag of which the names are at the server of this address.
    pub(crate) fn tag_at(&self, address: &str) -> Option<String> {
        let index = self.servers.iter().position(|server| server.address == address)?;
        let at = |slot: &u16| usize::from(*slot) == index;
        let slot = self.slots.iter().position(at).map_or(Ok(0), u16::try_from);
        slot.ok().map(slots::tag_for)
    }

    fn addresses(&self) -> Vec<&str> {
        self.servers.iter().map(|server| server.address.as_str()).collect()
    }
}

impl PartialEq for Map {
    fn eq(&self, other: &Self) -> bool {
        self.addresses() == other.addresses() && self.slots == other.slots
    }
}

impl Topology {
    /// Makes a handle; asks nobody yet.
    ///
    /// # Errors
    /// What is set for TLS is wrong.
    pub(super) fn new(
        settings: &RedisSettings,
        message_bytes: usize,
        refusals: &Arc<Refusals>,
    ) -> Result<Self, StoreError> {
        let url = &settings.url;
        let access = Access::to_data(settings, message_bytes, refusals)?;
        let to_seeds = match url.topology {
            RedisTopology::Sentinel(_) => access.to_sentinels(settings),
            RedisTopology::Cluster => access.to_guides(),
            RedisTopology::Single => access.clone(),
        };
        let seed = |(host, port): &(String, u16)| Server::new(host, *port, &to_seeds, true);
        let seeds: Vec<_> = url.hosts.iter().map(seed).collect();
        let first = match url.topology {
            RedisTopology::Single => Map { servers: seeds.clone(), slots: Vec::new() },
            RedisTopology::Sentinel(_) | RedisTopology::Cluster => Map::default(),
        };
        Ok(Self {
            form: url.topology.clone(),
            access,
            seeds,
            known: Mutex::default(),
            map: watch::Sender::new(Arc::new(first)),
            suspected: Notify::new(),
            missed: Mutex::default(),
            newest: Mutex::default(),
            refusals: Arc::clone(refusals),
        })
    }

    /// Returns what counts refusals.
    pub(super) fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Returns whether channels have slots, so that messages are published to one server's
    /// subscribers only.
    pub(super) fn is_cluster(&self) -> bool {
        self.form == RedisTopology::Cluster
    }

    /// Returns the present map.
    pub(crate) fn map(&self) -> Arc<Map> {
        Arc::clone(&self.map.borrow())
    }

    /// Returns the server that has a key or channel.
    ///
    /// # Errors
    /// It is not known; then a new map is asked for.
    pub(super) fn server_of(&self, name: &str) -> Result<Arc<Server>, StoreError> {
        let map = self.map();
        if let Some(server) = map.server_of(name) {
            return Ok(Arc::clone(server));
        }
        self.suspect();
        let unserved = (!map.servers.is_empty()).then_some(StoreError::Unserved(UNSERVED));
        let missed = unserved.or_else(|| self.missed.lock().clone());
        Err(missed
            .unwrap_or(StoreError::NotFound("it is not known yet which server of Redis to ask")))
    }

    /// Returns a way to wait for other maps.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Map>> {
        self.map.subscribe()
    }

    /// Waits for a new connection for commands, to any server that has data. *Cancel safe.*
    pub(crate) async fn joined(&self) {
        self.access.joined().await;
    }

    /// Asks for a new map.
    pub(crate) fn suspect(&self) {
        self.suspected.notify_one();
    }

    /// Draws maps for ever: when asked to, and every `heartbeat` where Sentinels may have named
    /// another master.
    pub(crate) async fn keep(self: Arc<Self>, heartbeat: Duration) {
        let every = match self.form {
            RedisTopology::Single => return std::future::pending().await,
            RedisTopology::Sentinel(_) => heartbeat,
            RedisTopology::Cluster => LOOK_EVERY,
        };
        let mut is_known = true;
        loop {
            let drawn = self.draw().await;
            *self.missed.lock() = drawn.as_ref().err().cloned();
            match drawn {
                Ok(view) => {
                    is_known = true;
                    self.believe(view);
                }
                Err(error) => {
                    if matches!(error, StoreError::Unserved(_)) {
                        let asked: Vec<_> =
                            self.seeds.iter().map(|seed| seed.address.as_str()).collect();
                        self.refusals.on_error(&asked.join(","), &error);
                    } else if is_known {
                        tracing::warn!(%error, "where Redis is cannot be found out");
                    }
                    is_known = false;
                }
            }
            tokio::time::sleep(LOOK_PAUSE).await;
            let wait = if is_known { every } else { every.min(RETRY_EVERY) };
            drop(tokio::time::timeout(wait, self.suspected.notified()).await);
        }
    }

    /// Takes a view, unless it is older than one before. A server that was master once would else
    /// be followed again, and what it alone has accepted would be delivered after what came since.
    fn believe(&self, View { epoch, map }: View) {
        let mut newest = self.newest.lock();
        if newest.is_some_and(|(known, told)| epoch < known && told.elapsed() < OLD_VIEW_AFTER) {
            tracing::debug!(epoch, "a view of Redis that is older than one before");
            return;
        }
        *newest = Some((epoch, Instant::now()));
        drop(newest);
        self.replace(map);
    }

    fn replace(&self, map: Map) {
        let is_new = self.map.send_if_modified(|present| {
            let is_new = **present != map;
            *present = Arc::new(map);
            is_new
        });
        if is_new {
            let map = self.map();
            tracing::info!(servers = ?map.addresses(), "Redis is at other servers than before");
            let mut known = self.known.lock();
            known.retain(|address, _| map.servers.iter().any(|server| server.address == *address));
        }
    }

    async fn draw(&self) -> Result<View, StoreError> {
        match &self.form {
            RedisTopology::Single => {
                Ok(View { epoch: 0, map: Map { servers: self.seeds.clone(), slots: Vec::new() } })
            }
            RedisTopology::Sentinel(name) => self.ask_sentinels(name).await,
            RedisTopology::Cluster => self.ask_cluster().await,
        }
    }

    /// Asks all Sentinels; the one whose view is the newest is right.
    async fn ask_sentinels(&self, name: &str) -> Result<View, StoreError> {
        let question = cmd("SENTINEL").arg("MASTER").arg(name).to_owned();
        let answers = self.ask_all(&self.seeds, &[question]).await;
        let views = answers.iter().filter_map(|(_, answer)| {
            let fields =
                HashMap::<String, String>::from_redis_value_ref(answer.as_ref().ok()?.first()?)
                    .ok()?;
            let epoch: u64 = fields.get("config-epoch")?.parse().ok()?;
            Some((epoch, fields.get("ip")?.clone(), fields.get("port")?.parse::<u16>().ok()?))
        });
        let newest = views.max_by_key(|(epoch, ..)| *epoch);
        let Some((epoch, host, port)) = newest else {
            let unknown = StoreError::NotFound("no Sentinel knows the master of this name");
            return Err(refused(&answers).unwrap_or(unknown));
        };
        Ok(View { epoch, map: Map { servers: vec![self.server(&host, port)], slots: Vec::new() } })
    }

    /// Asks all servers of the Cluster; the one whose view is the newest is right.
    async fn ask_cluster(&self) -> Result<View, StoreError> {
        let mut servers = self.map().servers.clone();
        servers.extend(self.seeds.iter().cloned());
        let question = |word| cmd("CLUSTER").arg(word).to_owned();
        let questions = [question("INFO"), question("SLOTS")];
        let answers = self.ask_all(&servers, &questions).await;
        let views = answers.iter().filter_map(|(server, answer)| {
            let [info, slots] = answer.as_ref().ok()?.as_slice() else { return None };
            let info = String::from_redis_value_ref(info).ok()?;
            let field = |name| info.lines().find_map(|line| line.trim().strip_prefix(name));
            let epoch: u64 = field("cluster_current_epoch:")?.parse().ok()?;
            (field("cluster_state:") == Some("ok")).then_some((epoch, server, slots))
        });
        let newest = views.max_by_key(|(epoch, ..)| *epoch);
        let Some((epoch, asked, slots)) = newest else {
            let text = "no server of the Cluster says that it is well";
            let is_there = answers.iter().any(|(_, answer)| answer.is_ok());
            let unwell =
                if is_there { StoreError::Unserved(text) } else { StoreError::NotFound(text) };
            return Err(refused(&answers).unwrap_or(unwell));
        };
        Ok(View { epoch, map: self.read_slots(asked, slots.clone())? })
    }

    /// Reads what `CLUSTER SLOTS` answers: ranges, each with its master first.
    fn read_slots(&self, asked: &Server, answer: Value) -> Result<Map, StoreError> {
        let mut map = Map { servers: Vec::new(), slots: vec![NOWHERE; usize::from(slots::COUNT)] };
        for range in Vec::<Value>::from_redis_value(answer)? {
            let Ok(parts) = Vec::<Value>::from_redis_value(range) else { continue };
            let [first, last, master, ..] = parts.as_slice() else { continue };
            let bounds = (u16::from_redis_value_ref(first), u16::from_redis_value_ref(last));
            let (Ok(first), Ok(last)) = bounds else { continue };
            let Ok(master) = Vec::<Value>::from_redis_value_ref(master) else { continue };
            let host = master.first().and_then(|host| String::from_redis_value_ref(host).ok());
            let Some(Ok(port)) = master.get(1).map(u16::from_redis_value_ref) else { continue };
            let host = host
                .filter(|host| !host.is_empty() && host != "?")
                .unwrap_or_else(|| asked.host.clone());
            let server = self.server(&host, port);
            let known = map.servers.iter().position(|other| other.address == server.address);
            let index = known.unwrap_or_else(|| {
                map.servers.push(server);
                map.servers.len() - 1
            });
            let index = u16::try_from(index).unwrap_or(NOWHERE);
            if let Some(slots) = map.slots.get_mut(usize::from(first)..=usize::from(last)) {
                slots.fill(index);
            }
        }
        Ok(map)
    }

    /// Returns the server of an address, which another has named.
    pub(super) fn server(&self, host: &str, port: u16) -> Arc<Server> {
        let is_first = self.map().servers.is_empty();
        let mut known = self.known.lock();
        let server = known.entry(format!("{host}:{port}"));
        Arc::clone(server.or_insert_with(|| Server::new(host, port, &self.access, is_first)))
    }

    /// Asks every server that has something; leaves out who does not answer.
    pub(crate) async fn ask_each(&self, question: Cmd) -> Vec<Value> {
        let answers = self.ask_all(self.map().servers(), &[question]).await;
        answers.into_iter().filter_map(|(_, answer)| answer.ok()).flatten().collect()
    }

    /// Asks all at once; who answers one question with an error has answered none.
    async fn ask_all(&self, servers: &[Arc<Server>], questions: &[Cmd]) -> Vec<Said> {
        let command = |command| ServerCommand { command, needs_id: false };
        let commands: Vec<_> = questions.iter().map(command).collect();
        let ask = async |server: &Arc<Server>| {
            let answer = server.run(None, &commands).await.and_then(|answers| {
                answers.values.into_iter().map(refused_or).collect::<Result<Vec<_>, _>>()
            });
            if let Err(error) = &answer {
                self.refusals.on_error(&server.address, error);
                tracing::debug!(server = server.address, %error, "asking where Redis is");
            }
            (Arc::clone(server), answer)
        };
        join_all(servers.iter().map(ask)).await
    }
}

/// Returns why somebody who was there did not answer.
fn refused(answers: &[Said]) -> Option<StoreError> {
    let mut errors = answers.iter().filter_map(|(_, answer)| answer.as_ref().err());
    errors.find(|error| error.class().is_some()).cloned()
}
