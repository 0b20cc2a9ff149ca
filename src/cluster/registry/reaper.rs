//! Ends the connections of nodes that are dead, in their name.
//!
//! Every node looks after the one before it in the ring of tags, and after the one before that
//! while the first gives no sign of life, so that the cluster's work is O(nodes). Who is dead is
//! found out by [`crate::cluster::registry::watch`]. One survivor claims a dead node by a mark that
//! nobody else can have changed since; it moves the mark with every batch of records, so that it
//! can be found dead at this work itself, and another goes on. A record goes only after what is
//! owed for it was accepted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Cmd, FromRedisValue as _, Value, cmd};

use crate::cluster::peers::Peers;
use crate::cluster::registry::ends::Ends;
use crate::cluster::registry::tenure::Tenure;
use crate::cluster::registry::watch::{Life, Look, Sign, Watch};
use crate::cluster::store::{Script, Store, StoreError, milliseconds};
use crate::model::id::{ConnectionId, NodeTag};
use crate::model::registry::{Lease, MARK_KEPT, Record};
use crate::model::trouble::RedisRefusal;
use crate::ops::metrics::{Metrics, as_i64};

/// Records read at a time.
const BATCH: usize = 128;
/// Shortest pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// Marks of nodes that nobody has to look after any more.
const LEFT: &str = "left";
const DONE: &str = "done";

/// See the [module documentation](self).
pub(crate) struct Reaper {
    pub(crate) store: Store,
    pub(crate) tag: NodeTag,
    pub(crate) lease: Duration,
    /// Who cannot say of itself that it lives judges nobody.
    pub(crate) tenure: Tenure,
    pub(crate) metrics: Arc<Metrics>,
    /// Told which nodes there are.
    pub(crate) peers: Arc<Peers>,
    pub(crate) ends: Arc<Ends>,
}

/// What becomes of one node.
enum Found {
    Alive,
    /// Dead perhaps, and certainly after this time.
    Silent(Duration),
    /// Dead, or gone.
    Over,
}

/// The marks of this reaper, no two of them the same.
struct Marks {
    tag: NodeTag,
    moves: u64,
}

impl Marks {
    fn next(&mut self) -> String {
        self.moves += 1;
        format!("{}:{}", self.tag, self.moves)
    }

    fn is_own(&self, mark: &str) -> bool {
        mark.split_once(':').is_some_and(|(tag, _)| NodeTag::parse(tag) == Some(self.tag))
    }
}

impl Reaper {
    /// Runs for ever.
    pub(crate) async fn run(self) {
        let (mut watch, mut marks) = (Watch::new(self.lease), Marks { tag: self.tag, moves: 0 });
        loop {
            let pause = match self.look_around(&mut watch, &mut marks).await {
                Ok(pause) => pause.clamp(PAUSE, self.lease / 3),
                Err(error) => {
                    tracing::debug!(%error, "looking after other nodes");
                    watch.clear();
                    self.lease / 3
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Looks at the nodes before this one in the ring, up to the first that lives; reaps the dead.
    /// Returns how soon another may be found dead.
    async fn look_around(
        &self,
        watch: &mut Watch,
        marks: &mut Marks,
    ) -> Result<Duration, StoreError> {
        let nodes = self.store.nodes();
        let named: Result<Vec<String>, _> = self.store.ask(&nodes, Cmd::smembers(&nodes)).await;
        let named = named.inspect_err(|_| self.tenure.name_again())?;
        let own = self.tag.to_string();
        // A Redis that has begun anew does not know this one, nor others, dead ones among them.
        self.metrics.nodes.set(1 + as_i64(named.iter().filter(|tag| **tag != own).count()));
        if !named.contains(&own) {
            self.tenure.name_again();
        }
        let mut known = self.peers.see(&named);
        watch.keep(&known);
        let at = known.partition_point(|node| *node <= self.tag);
        known.rotate_left(at);
        known.retain(|node| *node != self.tag);
        let mut soonest = Duration::MAX;
        for node in known {
            match self.look_after(node, watch, marks).await {
                Ok(Found::Alive) => break,
                Ok(Found::Silent(left)) => soonest = soonest.min(left),
                Ok(Found::Over) => {}
                // A key that somebody else has written keeps this node from its end, and no other.
                Err(error) if error.class() == Some(RedisRefusal::WrongType) => watch.forget(node),
                Err(error) => return Err(error),
            }
        }
        Ok(soonest)
    }

    async fn look_after(
        &self,
        node: NodeTag,
        watch: &mut Watch,
        marks: &mut Marks,
    ) -> Result<Found, StoreError> {
        let look = self.look(node, marks).await?;
        let sign = look.sign.clone();
        let mark = sign.mark.as_deref();
        if sign
            .lease
            .as_deref()
            .and_then(Lease::from_json)
            .is_some_and(|lease| lease.renewals.is_none())
        {
            // One of an earlier version, which ends by itself if it is not renewed.
            watch.forget(node);
            return Ok(Found::Alive);
        }
        let is_over = mark.is_some_and(|mark| mark == LEFT || mark == DONE);
        if is_over && !self.has_records(node).await? {
            self.forget(node).await?;
            return Ok(Found::Over);
        }
        match watch.saw(node, look) {
            // Its own work, which has been interrupted.
            _ if mark.is_some_and(|mark| marks.is_own(mark)) => {}
            Life::Moved => return Ok(Found::Alive),
            Life::Still(left) => return Ok(Found::Silent(left)),
            Life::Dead => {}
        }
        watch.forget(node);
        if self.tenure.held().await.is_ok()
            && let Some(mark) = self.claim(node, sign, marks).await?
        {
            self.reap(node, mark, marks).await?;
        }
        Ok(Found::Over)
    }

    async fn look(&self, node: NodeTag, marks: &mut Marks) -> Result<Look, StoreError> {
        let script = Script::new(include_str!("look.lua"));
        let [lease, mark, _] = self.keys(node);
        let mut look = script.command(&[&lease, &mark]);
        look.arg(milliseconds(MARK_KEPT)).arg(format!("?{}", marks.next()));
        let sent = Instant::now();
        let answer: Value = self.store.ask_script(&script, &lease, look).await?;
        let (answered, steady) = (Instant::now(), self.store.steady_time(&lease));
        let (lease, mark, replication_id) =
            <(Option<String>, Option<String>, String)>::from_redis_value(answer)?;
        Ok(Look { sign: Sign { lease, mark }, replication_id, sent, answered, steady })
    }

    /// Returns the keys of a node: lease, mark, records.
    fn keys(&self, node: NodeTag) -> [String; 3] {
        let tag = node.to_string();
        [self.store.lease(&tag), self.store.reaped(&tag), self.store.records(&tag)]
    }

    async fn has_records(&self, node: NodeTag) -> Result<bool, StoreError> {
        let [.., records] = self.keys(node);
        self.store.ask(&records, Cmd::exists(&records)).await
    }

    async fn forget(&self, node: NodeTag) -> Result<(), StoreError> {
        let nodes = self.store.nodes();
        self.store.run(&nodes, vec![Cmd::srem(&nodes, node.to_string())]).await
    }

    /// Takes a node over, unless it has moved since it was looked at; returns the mark that says
    /// so.
    async fn claim(
        &self,
        node: NodeTag,
        seen: Sign,
        marks: &mut Marks,
    ) -> Result<Option<String>, StoreError> {
        let script = Script::new(include_str!("claim.lua"));
        let [lease, key, _] = self.keys(node);
        let (mark, mut claim) = (marks.next(), script.command(&[&lease, &key]));
        claim.arg(seen.lease.unwrap_or_default()).arg(seen.mark.unwrap_or_default());
        claim.arg(&mark).arg(milliseconds(MARK_KEPT));
        let is_claimed: bool = self.store.ask_script(&script, &lease, claim).await?;
        Ok(is_claimed.then_some(mark))
    }

    /// Ends the connections of a node. What is not accepted stays, and is tried again with the next
    /// look.
    async fn reap(
        &self,
        node: NodeTag,
        mut mark: String,
        marks: &mut Marks,
    ) -> Result<(), StoreError> {
        let [_, _, key] = self.keys(node);
        let (mut count, mut cursor) = (0, 0_u64);
        loop {
            let scan = cmd("HSCAN").arg(&key).arg(cursor).arg("COUNT").arg(BATCH).to_owned();
            let page: (u64, Vec<(String, String)>) = self.store.ask(&key, scan).await?;
            cursor = page.0;
            let ended = self.end(page.1).await;
            count += ended.len();
            let next = marks.next();
            match self.remove(node, &mark, &next, &ended).await? {
                Reaped::Done => break,
                Reaped::More if cursor != 0 => mark = next,
                Reaped::More => return Ok(()),
                Reaped::ByAnother => {
                    tracing::debug!(%node, "another ends its connections");
                    return Ok(());
                }
            }
        }
        self.forget(node).await?;
        tracing::warn!(%node, connections = count, "a node is dead; its connections are ended in its name");
        Ok(())
    }

    /// Tries to end connections of a dead node; returns the fields of those whose records may go.
    async fn end(&self, fields: Vec<(String, String)>) -> Vec<String> {
        let (mut over, mut records) = (Vec::new(), Vec::new());
        for (id, text) in fields {
            match Record::from_json(&text) {
                Some(record) if record.id.as_str() == id => records.push(record),
                _ => {
                    tracing::warn!(conn.id = id, "a record of another node cannot be read");
                    over.push(id);
                }
            }
        }
        over.extend(self.ends.end_lost(records).await.iter().map(ConnectionId::to_string));
        over
    }

    /// Removes records, and moves the mark.
    async fn remove(
        &self,
        node: NodeTag,
        mark: &str,
        next: &str,
        ids: &[String],
    ) -> Result<Reaped, StoreError> {
        let script = Script::new(include_str!("reap.lua"));
        let [lease, key, records] = self.keys(node);
        let mut removal = script.command(&[&lease, &key, &records]);
        removal.arg(mark).arg(next).arg(milliseconds(MARK_KEPT)).arg(ids);
        Ok(match self.store.ask_script(&script, &lease, removal).await? {
            0 => Reaped::ByAnother,
            1 => Reaped::More,
            _ => Reaped::Done,
        })
    }
}

/// How far a node is reaped.
enum Reaped {
    ByAnother,
    More,
    Done,
}
