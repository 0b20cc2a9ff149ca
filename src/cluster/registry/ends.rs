//! Runs `$disconnect` for every connection that has ended, until what it publishes was accepted.
//!
//! The first try is made at once, by whoever drops the ticket. What fails waits here, and is tried
//! again at a pace that Redis is no worse for: a batch at a time, with pauses for as long as none
//! of it is accepted. The record of a connection goes only when its end is over ([`End`]), so that
//! another node finds it if this one dies before. A frame is made anew for each try: what waits is
//! a record, which the open connection held too.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{join, join_all};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::cluster::registry::end::{End, EndAnswer};
use crate::cluster::registry::notices::{Notices, note};
use crate::config::{Snapshot, Snapshots};
use crate::limits::ticket::Disconnects;
use crate::model::broker::{
    Accepted, Answered, Broker, Channel, Key, Publication, PublishError, PublishResult, Receipt,
    Recipient,
};
use crate::model::call::Backends;
use crate::model::id::ConnectionId;
use crate::model::registry::{Record, Registry};
use crate::ops::access::{AccessLog, EntryEnd};
use crate::ops::metrics::{GivenUp, Metrics};
use crate::ops::telemetry::Telemetry;
use crate::protocol::close::Close;
use crate::routing::gateway::Action;

/// Ends that are tried again at a time.
const BATCH: usize = 256;
/// Shortest and longest pause while nothing is accepted.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Ends {
    snapshots: Snapshots,
    notices: Arc<Notices>,
    broker: Arc<dyn Broker>,
    registry: Arc<dyn Registry>,
    metrics: Arc<Metrics>,
    access: Arc<AccessLog>,
    /// Others have taken this node for dead, and end its connections.
    fenced: CancellationToken,
    failed: Mutex<VecDeque<Ending>>,
    has_failed: Notify,
    /// Ends of this node's connections that are not over.
    open: AtomicUsize,
    closed: Notify,
}

/// A connection that has ended.
#[derive(Debug)]
struct Ending {
    record: Arc<Record>,
    end: End,
    /// Whose `$disconnect` runs: the same at each try, or it would be published to two channels.
    snapshot: Arc<Snapshot>,
}

/// A first try, on its way.
#[derive(Debug)]
struct FirstTry {
    ends: Arc<Ends>,
    ending: Ending,
    channel: Channel,
}

impl Answered for FirstTry {
    fn answered(self: Box<Self>, result: PublishResult) {
        let Self { ends, ending, channel } = *self;
        ends.settle(ending.on_result(result), Some(channel));
    }
}

impl Ending {
    fn on_result(self, result: PublishResult) -> Self {
        let answer = match result {
            // What is accepted on this node alone leaves no name behind.
            Ok(Accepted::Duplicate(_) | Accepted::Locally) => EndAnswer::Found,
            Ok(Accepted::At(_) | Accepted::Unkept) => EndAnswer::Accepted,
            Err(PublishError::Overload | PublishError::Refused(_)) => EndAnswer::NotTaken,
            Err(PublishError::Unavailable) => EndAnswer::InDoubt,
            Err(PublishError::KeyUnkept | PublishError::TooLong) => EndAnswer::Never,
        };
        Self { end: self.end.on_answer(answer), ..self }
    }

    fn key(&self) -> Option<Key> {
        Some(Key::End { id: self.record.id, in_doubt: self.end.is_in_doubt() })
    }
}

impl Disconnects for Ends {
    fn begin(self: Arc<Self>, record: &Arc<Record>, close: &Close) {
        self.registry.end(&record.id);
        if self.fenced.is_cancelled() {
            return;
        }
        let snapshot = self.snapshots.latest();
        if snapshot.gateway.calls_at_end() {
            return self.notices.begin(record, close, snapshot);
        }
        note(&self.access, record, close, EntryEnd::OK);
        let Some(Action::Publish { channel, frame, .. }) =
            snapshot.gateway.on_disconnect(record, &Close::Lost, false)
        else {
            return self.registry.remove(&record.id, None);
        };
        self.open.fetch_add(1, Ordering::SeqCst);
        let ending = Ending { record: Arc::clone(record), end: End::OWN, snapshot };
        let key = ending.key();
        let first = FirstTry { ends: Arc::clone(&self), ending, channel: channel.clone() };
        let receipt = Receipt::new(Recipient::Told(Box::new(first)));
        self.broker.publish(&mut vec![Publication { channel, frame, key, receipt }]);
    }
}

/// Who is told of ends.
pub(crate) struct Carriers {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) backends: Arc<dyn Backends>,
}

impl Ends {
    pub(crate) fn new(
        snapshots: Snapshots,
        carriers: Carriers,
        telemetry: &Telemetry,
        fenced: CancellationToken,
    ) -> Self {
        let Carriers { broker, registry, backends } = carriers;
        let notices = Notices::new(backends, Arc::clone(&registry), telemetry);
        Self {
            snapshots,
            notices: Arc::new(notices),
            broker,
            registry,
            metrics: Arc::clone(&telemetry.metrics),
            access: Arc::clone(&telemetry.access),
            fenced,
            failed: Mutex::default(),
            has_failed: Notify::new(),
            open: AtomicUsize::new(0),
            closed: Notify::new(),
        }
    }

    /// Tries again what has failed, until this node is fenced.
    pub(crate) async fn run(self: Arc<Self>) {
        let notices = Arc::clone(&self.notices).run();
        self.fenced.run_until_cancelled(join(self.try_for_ever(), notices)).await;
        self.failed.lock().clear();
        std::future::pending::<()>().await;
    }

    async fn try_for_ever(&self) {
        let (shortest, longest) = PAUSES;
        let mut pause = shortest;
        loop {
            let batch = self.take_failed();
            if batch.is_empty() {
                self.has_failed.notified().await;
                pause = shortest;
                continue;
            }
            tokio::time::sleep(pause).await;
            self.metrics.disconnects_retried.inc_by(batch.len() as u64);
            let tried = self.try_all(batch, true).await;
            let has_moved = tried.iter().any(|(ending, _)| ending.end.is_over());
            pause = if has_moved { Duration::ZERO } else { (2 * pause).clamp(shortest, longest) };
            for (ending, channel) in tried {
                self.settle(ending, channel);
            }
        }
    }

    fn take_failed(&self) -> Vec<Ending> {
        let mut failed = self.failed.lock();
        let count = failed.len().min(BATCH);
        failed.drain(..count).collect()
    }

    /// Waits until nothing is left to be done for those that have ended; or others do it. *Cancel
    /// safe.*
    pub(crate) async fn settled(&self) {
        self.fenced.run_until_cancelled(self.notices.settled()).await;
        let closed = self.closed.notified();
        tokio::pin!(closed);
        while self.open.load(Ordering::SeqCst) > 0 && !self.fenced.is_cancelled() {
            tokio::select! {
                () = &mut closed => closed.set(self.closed.notified()),
                () = self.fenced.cancelled() => {}
            }
        }
    }

    /// Returns how many back ends are still to be told of connections of this node.
    pub(crate) fn untold(&self) -> usize {
        self.notices.open()
    }

    /// Tries once to end connections of a node that is dead; returns those whose records may go.
    pub(crate) async fn end_lost(&self, records: Vec<Record>) -> Vec<ConnectionId> {
        let snapshot = self.snapshots.latest();
        let records: Vec<_> = records.into_iter().map(Arc::new).collect();
        if snapshot.gateway.calls_at_end() {
            let over = self.notices.end_lost(records, &snapshot).await;
            self.metrics.reaped.inc_by(over.len() as u64);
            return over;
        }
        let reaped = |record| Ending { record, end: End::REAPED, snapshot: Arc::clone(&snapshot) };
        let tried = self.try_all(records.into_iter().map(reaped).collect(), false).await;
        let over: Vec<_> =
            tried.into_iter().map(|(ending, _)| ending).filter(|it| it.end.is_over()).collect();
        over.iter()
            .filter(|ending| ending.end == End::GivenUp)
            .for_each(|it| self.give_up(it, GivenUp::TooLong));
        self.metrics.reaped.inc_by(over.len() as u64);
        over.iter().for_each(|it| note(&self.access, &it.record, &Close::Lost, EntryEnd::OK));
        over.into_iter().map(|ending| ending.record.id).collect()
    }

    /// Tries each once more; returns them with the channels that they were for.
    async fn try_all(
        &self,
        endings: Vec<Ending>,
        is_repeat: bool,
    ) -> Vec<(Ending, Option<Channel>)> {
        let mut publications = Vec::with_capacity(endings.len());
        let mut tries = Vec::with_capacity(endings.len());
        for ending in endings {
            match ending.snapshot.gateway.on_disconnect(&ending.record, &Close::Lost, is_repeat) {
                Some(Action::Publish { channel, frame, .. }) => {
                    let (caller, answer) = oneshot::channel();
                    let receipt = Receipt::new(Recipient::Caller(caller));
                    publications.push(Publication {
                        channel: channel.clone(),
                        frame,
                        key: ending.key(),
                        receipt,
                    });
                    tries.push((ending, Some((channel, answer))));
                }
                _ => tries.push((ending, None)),
            }
        }
        self.broker.publish(&mut publications);
        join_all(tries.into_iter().map(|(ending, attempt)| async move {
            let Some((channel, answer)) = attempt else {
                return (Ending { end: End::NOTHING, ..ending }, None);
            };
            let result = answer.await.unwrap_or(Err(PublishError::Unavailable));
            (ending.on_result(result), Some(channel))
        }))
        .await
    }

    /// Does what a try has led to.
    fn settle(&self, ending: Ending, channel: Option<Channel>) {
        if self.fenced.is_cancelled() {
            return;
        }
        if !ending.end.is_over() {
            let mut failed = self.failed.lock();
            if failed.len() < self.snapshots.latest().limits.max_connections {
                failed.push_back(ending);
                return self.has_failed.notify_one();
            }
            drop(failed);
            self.give_up(&ending, GivenUp::QueueFull);
        } else if ending.end == End::GivenUp {
            self.give_up(&ending, GivenUp::TooLong);
        }
        self.registry.remove(&ending.record.id, channel.filter(|_| ending.end.forgets_name()));
        if self.open.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.closed.notify_waiters();
        }
    }

    fn give_up(&self, ending: &Ending, reason: GivenUp) {
        self.metrics.count_given_up(reason);
        tracing::warn!(conn.id = %ending.record.id, reason = reason.label(), "$disconnect is given up");
    }
}
