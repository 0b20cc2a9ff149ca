//! How a node ends: not ready, a time for load balancers to notice, no more handshakes, what is
//! open closed over the drain window, back ends told, and nothing left behind.

use std::future::Future;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Losses, Node};
use crate::config::Drain;
use crate::drain::Drainer;
use crate::model::phase::Phase;
use crate::ops::metrics::DropReason;

/// Longest wait for shards to end, once there is nothing more for them to do.
const JOIN_TIMEOUT: Duration = Duration::from_secs(1);

/// A node that has lost a part closes what it can within this.
const FAILED_GRACE: Duration = Duration::from_secs(2);

/// Longest wait for what `$disconnect` publishes to be accepted, once all connections are closed.
const ENDS_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for the registry to know that this node ends.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

impl Node {
    /// Ends the node: returns how many connections were cut rather than closed, because `hurry`
    /// came, time was up, or a client took too little of what waited for it, and how many messages
    /// waited for clients that were cut.
    pub(crate) async fn shut_down(self, hurry: impl Future<Output = ()>) -> Losses {
        let Drain { mut notice, mut window, mut grace, min_rate } = self.snapshots.latest().drain;
        if self.backend.fenced.is_cancelled() {
            // A ghost: others act in its name already.
            (notice, window) = (Duration::ZERO, Duration::ZERO);
        }
        if self.lifecycle.has_failed() {
            (notice, window, grace) = (Duration::ZERO, Duration::ZERO, grace.min(FAILED_GRACE));
        }
        self.lifecycle.enter(Phase::Draining);
        self.metrics.draining.set(1);
        tokio::pin!(hurry);
        let deadline = tokio::time::Instant::now() + notice + window + grace;
        let cut_before = self.metrics.dropped_by(DropReason::Cut);
        let (drainer, fenced) = (self.drainer(min_rate), &self.backend.fenced);
        let close_all = async {
            fenced.run_until_cancelled(tokio::time::sleep(notice)).await;
            self.lifecycle.stop_accepting();
            self.places.close();
            if fenced.run_until_cancelled(drainer.run(window)).await.is_none() {
                drainer.run(Duration::ZERO).await;
            }
        };
        let closed = tokio::select! {
            done = tokio::time::timeout_at(deadline, close_all) => done.is_ok(),
            () = &mut hurry => false,
        };
        let connections = self.places.cut() + if closed { 0 } else { self.places.taken() };
        if closed {
            tokio::select! {
                () = self.leave(deadline) => {}
                () = &mut hurry => {}
            }
            tokio::select! {
                () = self.back_ends.shut_down(deadline) => {}
                () = &mut hurry => {}
            }
        }
        self.lifecycle.finish().await;
        self.hub.stop();
        let ended = async {
            while !self.shards.iter().all(JoinHandle::is_finished) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(JOIN_TIMEOUT, ended).await.is_err() {
            tracing::error!("a shard does not end");
        }
        let access = Arc::clone(&self.access);
        if tokio::task::spawn_blocking(move || access.finish()).await.is_err() {
            tracing::error!("the access log's end has panicked");
        }
        let messages = self.metrics.dropped_by(DropReason::Cut) - cut_before;
        Losses { connections, messages, is_fenced: self.backend.fenced.is_cancelled() }
    }

    /// Gives up the lease, unless others have to find what is not done: then they wait for the
    /// lease to end.
    async fn leave(&self, deadline: tokio::time::Instant) {
        if self.backend.fenced.is_cancelled() {
            return;
        }
        // A back end has all the time that there is.
        let has_calls = self.ends.untold() > 0;
        let soon = tokio::time::Instant::now() + ENDS_TIMEOUT;
        let deadline = if has_calls { deadline } else { deadline.min(soon) };
        if tokio::time::timeout_at(deadline, self.ends.settled()).await.is_err() {
            tracing::warn!(
                left = self.ends.untold(),
                "not every $disconnect was taken: another node runs the rest when the lease ends, if there is one"
            );
        } else if tokio::time::timeout(LEAVE_TIMEOUT, self.backend.registry.leave()).await.is_err()
        {
            tracing::warn!("Redis is away: other nodes wait for the lease to end");
        }
    }

    fn drainer(&self, min_rate: usize) -> Drainer {
        Drainer {
            hub: Arc::clone(&self.hub),
            places: Arc::clone(&self.places),
            registry: Arc::clone(&self.backend.registry),
            metrics: Arc::clone(&self.metrics),
            renewal: self
                .backend
                .shared
                .as_ref()
                .map_or(Duration::ZERO, |shared| shared.settings.lease / 3),
            min_rate,
        }
    }
}
