//! Ends the connections of nodes that are dead, in their name: `$disconnect` for each, once.
//!
//! Every node looks after the next alive one in the ring of tags, so that the cluster's work is O(nodes). Who claims a dead
//! node takes its records out one by one; a record is taken out before its `$disconnect` runs, so it never runs twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Cmd, cmd};

use super::Record;
use super::tenure::Tenure;
use crate::admission::ends::Ends;
use crate::id::ConnectionId;
use crate::metrics::{Metrics, as_i64};
use crate::peers::Peers;
use crate::store::refusal::Class;
use crate::store::{Script, Store, StoreError, milliseconds};

/// Records read at a time.
const BATCH: usize = 128;
/// Pause while Redis takes no `$disconnect`.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a reaped node stays fenced.
const FENCE: Duration = Duration::from_secs(24 * 3_600);

/// See the head of this file.
pub(crate) struct Reaper {
    pub(crate) store: Store,
    /// This node's tag.
    pub(crate) tag: String,
    pub(crate) lease: Duration,
    /// Who cannot say of itself that it lives judges nobody.
    pub(crate) tenure: Tenure,
    pub(crate) metrics: Arc<Metrics>,
    /// Told which nodes there are.
    pub(crate) peers: Arc<Peers>,
    pub(crate) ends: Arc<Ends>,
}

enum Life {
    Alive,
    Dead,
}

impl Reaper {
    /// Runs for ever.
    pub(crate) async fn run(self) {
        let mut ticks = tokio::time::interval(self.lease / 3);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // While Redis was away, or this node asleep, nobody could renew a lease: everybody is given the time to.
        let mut seen = Instant::now();
        let mut fair_since = seen + self.lease;
        loop {
            ticks.tick().await;
            let result = self.look(fair_since <= Instant::now()).await;
            if let Err(error) = &result {
                tracing::debug!(%error, "looking after other nodes");
            }
            if result.is_err() || seen.elapsed() > self.lease {
                fair_since = Instant::now() + self.lease;
            }
            seen = Instant::now();
        }
    }

    /// Looks at the nodes behind this one in the ring, up to the first that lives; reaps the dead, if that is fair.
    async fn look(&self, is_fair: bool) -> Result<(), StoreError> {
        let nodes = self.store.nodes();
        let mut tags: Vec<String> = self.store.ask(&nodes, Cmd::smembers(&nodes)).await?;
        self.peers.see(&tags);
        // A Redis that has begun anew does not know this one yet.
        self.metrics.nodes.set(1 + as_i64(tags.iter().filter(|tag| **tag != self.tag).count()));
        tags.sort();
        let at = tags.partition_point(|tag| *tag <= self.tag);
        tags.rotate_left(at);
        for tag in tags.iter().filter(|tag| **tag != self.tag) {
            match self.look_after(tag, is_fair).await {
                Ok(Life::Alive) => break,
                Ok(Life::Dead) => {}
                // A key that somebody else has written keeps this node from its end, and no other.
                Err(error) if error.class() == Some(Class::WrongType) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn look_after(&self, tag: &str, is_fair: bool) -> Result<Life, StoreError> {
        if self.exists(&self.store.lease(tag)).await? {
            return Ok(Life::Alive);
        }
        if is_fair && self.tenure.held().await.is_ok() && self.claim(tag).await? {
            self.reap(tag).await?;
        } else if !self.exists(&self.store.records(tag)).await? {
            // It has left, or its reaper died at the very end.
            self.forget(tag).await?;
        }
        Ok(Life::Dead)
    }

    async fn exists(&self, key: &str) -> Result<bool, StoreError> {
        self.store.ask(key, Cmd::exists(key)).await
    }

    async fn forget(&self, tag: &str) -> Result<(), StoreError> {
        let nodes = self.store.nodes();
        self.store.run(&nodes, vec![Cmd::srem(&nodes, tag)]).await
    }

    async fn claim(&self, tag: &str) -> Result<bool, StoreError> {
        let script = Script::new(include_str!("claim.lua"));
        let lease = self.store.lease(tag);
        let mut claim = script.command(&[&lease, &self.store.reaped(tag)]);
        claim.arg(&self.tag).arg(milliseconds(self.lease * 3));
        self.store.ask_script(&script, &lease, claim).await
    }

    async fn reap(&self, tag: &str) -> Result<(), StoreError> {
        let (key, mark) = (self.store.records(tag), self.store.reaped(tag));
        let mut count = 0_usize;
        loop {
            let scan = cmd("HSCAN").arg(&key).arg(0).arg("COUNT").arg(BATCH).to_owned();
            let (_, fields): (u64, Vec<(String, String)>) = self.store.ask(&key, scan).await?;
            if fields.is_empty() {
                break;
            }
            let over = self.end(fields).await;
            count += over.len();
            if over.is_empty() {
                tokio::time::sleep(PAUSE).await;
            } else {
                self.store.run(&key, vec![Cmd::hdel(&key, over)]).await?;
            }
            // Still at it: nobody else needs to go on, and the node stays fenced.
            self.store.run(&mark, vec![Cmd::pexpire(&mark, milliseconds(self.lease * 3))]).await?;
        }
        self.store.run(&mark, vec![Cmd::pexpire(&mark, milliseconds(FENCE))]).await?;
        self.forget(tag).await?;
        tracing::warn!(
            node = tag,
            connections = count,
            "a node is dead; its connections are ended in its name"
        );
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
}
