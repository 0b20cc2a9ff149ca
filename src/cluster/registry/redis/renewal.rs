//! Keeps this node's lease, and gives it up.
//!
//! A lease does not end by the clock of Redis, which keeps it for a day so that it does not stay
//! for ever. The others see it move: it is renewed every third of its time, and at once when Redis
//! may have forgotten it.

use std::time::Duration;

use redis::Cmd;
use tokio::sync::{mpsc, oneshot};

use super::reconcile::Suspicion;
use super::{PAUSE, RegistryTask, Write};
use crate::cluster::store::{Script, StoreError, milliseconds};
use crate::model::registry::MARK_KEPT;
use crate::model::trouble::Trouble;
use crate::ops::metrics::as_i64;

/// How long Redis keeps a lease that nobody renews.
const LEASE_KEPT: Duration = Duration::from_secs(24 * 3_600);

impl RegistryTask {
    /// Gives up the lease.
    pub(super) async fn leave(&self, done: oneshot::Sender<()>) {
        self.left.cancel();
        match self.give_up().await {
            Ok(()) => crate::shard::inbox::answer(done, ()),
            Err(error) => tracing::debug!(%error, "giving up the lease"),
        }
    }

    async fn give_up(&self) -> Result<(), StoreError> {
        let script = Script::new(include_str!("../give_up.lua"));
        let (lease, mark) = (self.store.lease(&self.tag), self.store.reaped(&self.tag));
        let mut giving_up = script.command(&[&lease, &mark]);
        giving_up.arg(milliseconds(MARK_KEPT));
        let answer: i64 = self.store.ask_script(&script, &lease, giving_up).await?;
        if answer < 0 {
            self.tenure.fence();
            return Ok(());
        }
        let nodes = self.store.nodes();
        self.store.run(&nodes, vec![Cmd::srem(&nodes, &self.tag)]).await
    }

    /// Keeps the lease until it is given up.
    pub(super) async fn renew(self, writes: mpsc::Sender<Write>) {
        let left = self.left.clone();
        left.run_until_cancelled(async {
            self.renew_until_fenced(writes).await;
            std::future::pending::<()>().await;
        })
        .await;
    }

    async fn renew_until_fenced(&self, writes: mpsc::Sender<Write>) {
        let mut suspicion = Suspicion::default();
        let mut ticks = tokio::time::interval(self.lease / 3);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut phases, mut maps) =
            (self.presence.lifecycle.phases(), self.store.topology().watch());
        let (mut has_failed, mut is_named) = (false, false);
        for number in 1.. {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.tenure.wanted() => {}
                // The others need not wait to learn that this node is there for their clients, or
                // not any more.
                _ = phases.changed(), if !has_failed => {}
                // Whoever is there now may not know this node.
                () = self.store.topology().joined(), if !has_failed => is_named = false,
                _ = maps.changed(), if !has_failed => is_named = false,
            }
            // Whoever looks at the others reads who they are, and says so if this node is not among
            // them.
            is_named &= !self.tenure.take_unnamed();
            let sent = self.tenure.begin();
            let renewed = self.renew_once(number).await;
            match &renewed {
                Ok(count) if *count < 0 => return self.tenure.fence(),
                Ok(_) => self.tenure.renewed(sent),
                Err(error) => self.tenure.failed(Trouble::from(error)),
            }
            // The set of all nodes may be at another server, without which this node may speak all
            // the same.
            let renewed = match renewed {
                Ok(count) if !is_named => self.name_once().await.map(|()| count),
                renewed => renewed,
            };
            self.presence.health.on_renewal(renewed.as_ref().err());
            (has_failed, is_named) = (renewed.is_err(), renewed.is_ok());
            match renewed {
                Ok(count) => {
                    let is_wrong = suspicion.on_counts(as_i64(self.local.len()), count);
                    if is_wrong && writes.try_send(Write::Reconcile).is_err() {
                        tracing::debug!("too many writes under way to compare records");
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "renewing the lease");
                    ticks.reset_after(PAUSE);
                }
            }
        }
    }

    /// Returns how many records of this node there are, less than none if others have taken it for
    /// dead.
    async fn renew_once(&self, number: u64) -> Result<i64, StoreError> {
        let script = Script::new(include_str!("../renew.lua"));
        let lease = self.store.lease(&self.tag);
        let (mark, records) = (self.store.reaped(&self.tag), self.store.records(&self.tag));
        let mut renewal = script.command(&[&lease, &mark, &records]);
        renewal.arg(self.presence.lease(number).to_json()).arg(milliseconds(LEASE_KEPT));
        self.store.ask_script(&script, &lease, renewal).await
    }

    /// Says that this node is one.
    async fn name_once(&self) -> Result<(), StoreError> {
        let nodes = self.store.nodes();
        self.store.run(&nodes, vec![Cmd::sadd(&nodes, &self.tag)]).await?;
        self.known.cancel();
        Ok(())
    }
}
