//! Tells back ends of connections that have ended, where `$disconnect` calls one.
//!
//! Any answer is the end of it, an error of the back end's own included. What was not taken, did
//! not arrive, or was not answered in time is tried again under the same request id, [`TRIES`]
//! times in all and within [`WITHIN`] of the first, then given up and counted. Until then the
//! record stays, so that another node does it if this one dies; it then begins anew.
//!
//! Of a dead node's connections the caller, a reaper, is told when they are over; it does not wait
//! for long, since it has to be seen to move.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::Snapshot;
use crate::model::call::{Backends, CallError, CallReceipt, CallResult};
use crate::model::id::{ConnectionId, RequestId};
use crate::model::registry::{Record, Registry};
use crate::ops::access::{AccessLog, Entry, EntryEnd, EntryKind};
use crate::ops::jitter::jittered;
use crate::ops::metrics::{GivenUp, Metrics};
use crate::ops::telemetry::Telemetry;
use crate::protocol::close::Close;
use crate::routing::gateway::Action;

/// Calls of this node under way at a time; the others wait here, and not with the messages of
/// clients.
const UNDER_WAY: usize = 256;
/// How often one is tried.
const TRIES: usize = 5;
/// Before each try but the first.
const PAUSES: [Duration; TRIES - 1] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(120),
];
/// From the first try to the last.
const WITHIN: Duration = Duration::from_secs(600);
/// Longest time that a reaper waits for what it has asked for.
const PATIENCE: Duration = Duration::from_secs(1);

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Notices {
    backends: Arc<dyn Backends>,
    registry: Arc<dyn Registry>,
    metrics: Arc<Metrics>,
    access: Arc<AccessLog>,
    state: Mutex<State>,
    /// Tells that there is something to begin.
    changed: Notify,
    /// Tells that something is over.
    over: Notify,
    /// Of this node's own connections, those that are not over.
    open: AtomicUsize,
    pauses: [Duration; TRIES - 1],
}

#[derive(Debug, Default)]
struct State {
    notices: HashMap<ConnectionId, Notice>,
    due: BinaryHeap<Reverse<(Instant, ConnectionId)>>,
    under_way: usize,
}

/// A connection that has ended.
#[derive(Debug)]
struct Notice {
    record: Arc<Record>,
    close: Close,
    /// Whose `$disconnect` runs, at each try.
    snapshot: Arc<Snapshot>,
    tries: usize,
    began: Instant,
    /// When it was tried last.
    asked: Instant,
    of: Owner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    ThisNode,
    /// A dead one; since then it is over, if it is.
    Dead(Option<Instant>),
}

impl Notices {
    pub(super) fn new(
        backends: Arc<dyn Backends>,
        registry: Arc<dyn Registry>,
        telemetry: &Telemetry,
    ) -> Self {
        let (state, open) = Default::default();
        Self {
            backends,
            registry,
            metrics: Arc::clone(&telemetry.metrics),
            access: Arc::clone(&telemetry.access),
            state,
            changed: Notify::new(),
            over: Notify::new(),
            open,
            pauses: PAUSES,
        }
    }

    /// Takes a connection of this node that has ended.
    pub(super) fn begin(&self, record: &Arc<Record>, close: &Close, snapshot: Arc<Snapshot>) {
        if self.state.lock().notices.len() >= snapshot.limits.max_connections {
            self.metrics.count_given_up(GivenUp::QueueFull);
            let end = EntryEnd::of_call(Some(CallError::Overload), Duration::ZERO);
            note(&self.access, record, close, end);
            return self.registry.remove(&record.id, None);
        }
        self.open.fetch_add(1, Ordering::SeqCst);
        let (record, close, of) = (Arc::clone(record), close.clone(), Owner::ThisNode);
        let began = Instant::now();
        self.add(Notice { record, close, snapshot, tries: 0, began, asked: began, of });
    }

    /// Tells of connections of a dead node; returns those that are over.
    pub(super) async fn end_lost(
        &self,
        records: Vec<Arc<Record>>,
        snapshot: &Arc<Snapshot>,
    ) -> Vec<ConnectionId> {
        let ids: Vec<_> = records.iter().map(|record| record.id).collect();
        for record in records {
            let is_known = self.state.lock().notices.contains_key(&record.id);
            if !is_known {
                let (close, began, of) = (Close::Lost, Instant::now(), Owner::Dead(None));
                self.add(Notice {
                    record,
                    close,
                    snapshot: Arc::clone(snapshot),
                    tries: 0,
                    began,
                    asked: began,
                    of,
                });
            }
        }
        let all_over = async {
            loop {
                let over = self.over.notified();
                if self.are_over(&ids) {
                    return;
                }
                over.await;
            }
        };
        // Those that are not are asked for again.
        let _late = tokio::time::timeout(PATIENCE, all_over).await.is_err();
        self.take_over(&ids)
    }

    /// Begins what is due, for ever.
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            let next = self.begin_due();
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
    }

    /// Returns how many of this node's connections are not over.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Waits until none of this node's connections is left. *Cancel safe.*
    pub(super) async fn settled(&self) {
        loop {
            let over = self.over.notified();
            if self.open() == 0 {
                return;
            }
            over.await;
        }
    }

    fn add(&self, notice: Notice) {
        let mut state = self.state.lock();
        let id = notice.record.id;
        state.due.push(Reverse((notice.began, id)));
        state.notices.insert(id, notice);
        drop(state);
        self.changed.notify_one();
    }

    /// Begins what is due; returns when the next is, unless as many are under way as may be.
    fn begin_due(self: &Arc<Self>) -> Option<Instant> {
        let now = Instant::now();
        loop {
            let mut state = self.state.lock();
            let Reverse((at, id)) = *state.due.peek().filter(|_| state.under_way < UNDER_WAY)?;
            if at > now {
                return Some(at);
            }
            state.due.pop();
            let Some(notice) = state.notices.get_mut(&id) else { continue };
            notice.tries += 1;
            notice.asked = now;
            let (tries, record) = (notice.tries, Arc::clone(&notice.record));
            let (snapshot, close) = (Arc::clone(&notice.snapshot), notice.close.clone());
            state.under_way += 1;
            drop(state);
            let action = snapshot.gateway.on_disconnect(&record, &close, tries > 1);
            let Some(Action::Call(call)) = action else {
                self.on_result(id, Ok(()));
                continue;
            };
            if tries > 1 {
                self.metrics.disconnects_retried.inc();
            }
            let notices = Arc::clone(self);
            let receipt =
                CallReceipt::new(move |result: CallResult| notices.on_result(id, result.map(drop)));
            // May be answered before it returns.
            self.backends.call(call.with(receipt));
        }
    }

    fn on_result(&self, id: ConnectionId, result: Result<(), CallError>) {
        let mut state = self.state.lock();
        state.under_way -= 1;
        let State { notices, due, .. } = &mut *state;
        if let Some(notice) = notices.get_mut(&id) {
            let is_answered = matches!(result, Ok(()) | Err(CallError::Failed));
            let pause = self.pauses.get(notice.tries - 1).map(|pause| jittered(*pause));
            let next = pause
                .map(|pause| Instant::now() + pause)
                .filter(|next| *next <= notice.began + WITHIN);
            match next {
                Some(next) if !is_answered => due.push(Reverse((next, id))),
                _ => {
                    if !is_answered {
                        self.metrics.count_given_up(GivenUp::BackEnd);
                        tracing::warn!(conn.id = %id, tries = notice.tries, "$disconnect is given up: its back end does not answer");
                    }
                    let end = EntryEnd::of_call(result.err(), notice.asked.elapsed());
                    note(&self.access, &notice.record, &notice.close, end);
                    self.is_over(notices, id);
                }
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    fn is_over(&self, notices: &mut HashMap<ConnectionId, Notice>, id: ConnectionId) {
        if let Some(notice) = notices.get_mut(&id)
            && let Owner::Dead(over) = &mut notice.of
        {
            *over = Some(Instant::now());
        } else {
            notices.remove(&id);
            self.registry.remove(&id, None);
            self.open.fetch_sub(1, Ordering::SeqCst);
        }
        self.over.notify_waiters();
    }

    fn are_over(&self, ids: &[ConnectionId]) -> bool {
        let state = self.state.lock();
        ids.iter().all(|id| state.notices.get(id).is_none_or(Notice::is_over))
    }

    /// Takes out those of these that are over, and whatever nobody has asked for since.
    fn take_over(&self, ids: &[ConnectionId]) -> Vec<ConnectionId> {
        let mut state = self.state.lock();
        let over =
            ids.iter().filter(|id| state.notices.get(id).is_some_and(Notice::is_over)).copied();
        let over: Vec<_> = over.collect();
        for id in &over {
            state.notices.remove(id);
        }
        let now = Instant::now();
        state.notices.retain(|_, notice| match notice.of {
            Owner::Dead(Some(over)) => now < over + WITHIN,
            Owner::Dead(None) | Owner::ThisNode => true,
        });
        over
    }
}

impl Notice {
    fn is_over(&self) -> bool {
        matches!(self.of, Owner::Dead(Some(_)))
    }
}

/// Writes the end of a connection into the access log.
pub(super) fn note(log: &AccessLog, record: &Record, close: &Close, end: EntryEnd<'_>) {
    if log.is_on() {
        log.note(&Entry {
            kind: EntryKind::Disconnect,
            route: Some("$disconnect"),
            request: RequestId::of_end(&record.id),
            message: None,
            who: record.into(),
            at: Timestamp::now(),
            end,
            close: Some((close.code(), close.reason())),
        });
    }
}

#[cfg(test)]
mod tests;
