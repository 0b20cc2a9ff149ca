//! The places of a port's HTTP connections: what each connection does, how long it may, and who
//! gives way when others wait.
//!
//! A connection has a place from when it is accepted, except while its request is served: then it
//! has one among the handshakes or among the calls, so that none of the three can keep the others
//! out. When all places are taken and somebody waits, the connection that has been idle longest is
//! ended, otherwise the one that has kept the node waiting longest.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use slab::Slab;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

pub(crate) use self::bounds::{Bounds, BoundsSource};
use super::request;
use crate::ops::metrics::{CutCause, HttpMetrics, HttpState, RequestRefusal};
use crate::ops::refusals::{Refusals, Told};

mod bounds;

/// An answer has to be taken at this rate at least, in bytes a second, once the time for its
/// beginning is over.
const ANSWER_RATE: u64 = 16 << 10;

/// An idle connection is kept for this long beyond what its client was told, whose last request may
/// be on its way.
const IDLE_GRACE: Duration = Duration::from_secs(1);

/// A head is given this long to come whole, however many wait: its packets may be under way.
const HEAD_AGE: Duration = Duration::from_millis(200);

/// As long for a body, an answer, or a request that waits for its turn.
const AGE: Duration = Duration::from_secs(1);

/// Between two looks for somebody who gives way, unless a place is freed before.
const LOOK: Duration = Duration::from_millis(20);

/// What a request asks for.
#[derive(Clone, Copy, Debug)]
pub(super) enum RequestKind {
    Handshake,
    Call,
}

/// What a connection does. *Invariant:* only `Serve` has no deadline, since what is done then has
/// deadlines of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Head,
    Body,
    Queue,
    Serve,
    Answer,
    Idle,
}

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Slots {
    source: BoundsSource,
    most: usize,
    metrics: HttpMetrics,
    refusals: Arc<Refusals>,
    began: Instant,
    visits: Mutex<Slab<Arc<Slot>>>,
    /// Connections whose request is not being served.
    taken: AtomicUsize,
    freed: Notify,
    crowded: AtomicBool,
    handshakes: Arc<Semaphore>,
    calls: Arc<Semaphore>,
}

#[derive(Debug)]
struct Slot {
    /// The stage in three bits, and since when in milliseconds.
    stage: AtomicU64,
    /// Bytes of the answer that were taken.
    written: AtomicU64,
    /// Whether the HTTP server has the whole answer.
    is_whole: AtomicBool,
    leaving: AtomicBool,
    told_to_leave: Notify,
}

/// One connection among the others; clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Visit(Arc<Stay>);

#[derive(Debug)]
struct Stay {
    slots: Arc<Slots>,
    slot: Arc<Slot>,
    bounds: Bounds,
    key: usize,
    peer: SocketAddr,
    /// Whom a PROXY header names instead.
    named: OnceLock<SocketAddr>,
}

/// The right to be served.
#[derive(Debug)]
pub(super) struct Turn {
    _place: OwnedSemaphorePermit,
}

/// As many requests of a kind are served as may be.
#[derive(Debug)]
pub(super) struct Busy;

impl Stage {
    const ALL: [Self; 6] =
        [Self::Head, Self::Body, Self::Queue, Self::Serve, Self::Answer, Self::Idle];

    /// Returns what is counted when a connection is ended; nobody ends it while it is served.
    pub(super) fn state(self) -> Option<HttpState> {
        match self {
            Self::Head => Some(HttpState::Head),
            Self::Body => Some(HttpState::Body),
            Self::Queue => Some(HttpState::Queue),
            Self::Answer => Some(HttpState::Answer),
            Self::Idle => Some(HttpState::Idle),
            Self::Serve => None,
        }
    }

    /// Returns how long a connection keeps its place whoever waits.
    fn safe_for(self) -> Duration {
        match self {
            Self::Idle => Duration::ZERO,
            Self::Head => HEAD_AGE,
            Self::Body | Self::Queue | Self::Answer => AGE,
            Self::Serve => Duration::MAX,
        }
    }
}

impl Slots {
    pub(super) fn new(
        source: BoundsSource,
        metrics: HttpMetrics,
        refusals: Arc<Refusals>,
    ) -> Arc<Self> {
        let most = source.bounds().places;
        let places = || Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self {
            source,
            most,
            metrics,
            refusals,
            began: Instant::now(),
            visits: Mutex::default(),
            taken: AtomicUsize::new(0),
            freed: Notify::new(),
            crowded: AtomicBool::new(false),
            handshakes: places(),
            calls: places(),
        })
    }

    /// Waits for a place, and has others give way. *Cancel safe.* To be called by one at a time.
    pub(super) async fn enter(self: &Arc<Self>, peer: SocketAddr) -> Visit {
        loop {
            let freed = self.freed.notified();
            if self.taken.load(Ordering::SeqCst) < self.most {
                break;
            }
            self.crowded.store(true, Ordering::Relaxed);
            self.evict();
            // Whether a place is free is looked at again either way.
            drop(timeout(LOOK, freed).await);
        }
        self.crowded.store(false, Ordering::Relaxed);
        self.taken.fetch_add(1, Ordering::SeqCst);
        let slot = Arc::new(Slot {
            stage: AtomicU64::new(self.stamp(Stage::Head)),
            written: AtomicU64::new(0),
            is_whole: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            told_to_leave: Notify::new(),
        });
        let key = self.visits.lock().insert(Arc::clone(&slot));
        let bounds = self.source.bounds();
        Visit(Arc::new(Stay {
            slots: Arc::clone(self),
            slot,
            bounds,
            key,
            peer,
            named: OnceLock::new(),
        }))
    }

    /// Tells one connection to give way, if there is one that may be told.
    fn evict(&self) {
        let now = self.began.elapsed();
        let visits = self.visits.lock();
        let may_leave = visits.iter().filter_map(|(_, slot)| {
            let (stage, since) = slot.stage();
            let is_safe = slot.leaving.load(Ordering::Relaxed)
                || stage == Stage::Serve
                || now.saturating_sub(since) < stage.safe_for();
            (!is_safe).then_some(((stage != Stage::Idle, since), slot))
        });
        if let Some((_, slot)) = may_leave.min_by_key(|(order, _)| *order) {
            slot.leaving.store(true, Ordering::Relaxed);
            slot.told_to_leave.notify_one();
        }
    }

    fn free(&self) {
        self.taken.fetch_sub(1, Ordering::SeqCst);
        self.freed.notify_one();
    }

    fn stamp(&self, stage: Stage) -> u64 {
        let since = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX >> 3);
        since << 3 | stage as u64
    }
}

impl Slot {
    fn stage(&self) -> (Stage, Duration) {
        let stamp = self.stage.load(Ordering::Relaxed);
        let stage =
            Stage::ALL.into_iter().find(|stage| *stage as u64 == stamp & 7).unwrap_or(Stage::Serve);
        (stage, Duration::from_millis(stamp >> 3))
    }
}

impl Visit {
    pub(super) fn stage(&self) -> Stage {
        self.0.slot.stage().0
    }

    /// Goes on to another stage; its time begins.
    pub(super) fn enter(&self, stage: Stage) {
        let Stay { slots, slot, .. } = &*self.0;
        let before = self.stage();
        slot.stage.store(slots.stamp(stage), Ordering::Relaxed);
        match (before == Stage::Serve, stage == Stage::Serve) {
            (true, false) => _ = slots.taken.fetch_add(1, Ordering::SeqCst),
            (false, true) => slots.free(),
            _ => {}
        }
        if stage == Stage::Answer {
            slot.written.store(0, Ordering::Relaxed);
            slot.is_whole.store(false, Ordering::Relaxed);
        }
    }

    /// Returns when the time for what the connection does is up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let Stay { slots, slot, bounds: Bounds { head, keep_alive, .. }, .. } = &*self.0;
        let (stage, since) = slot.stage();
        let time = match stage {
            Stage::Head => *head,
            // Whoever reads the body, or waits for the turn, can still answer.
            Stage::Body | Stage::Queue => *head + AGE,
            Stage::Serve => return None,
            Stage::Answer => {
                *head
                    + Duration::from_millis(
                        slot.written.load(Ordering::Relaxed) * 1_000 / ANSWER_RATE,
                    )
            }
            Stage::Idle => *keep_alive + IDLE_GRACE,
        };
        Some(slots.began + since + time)
    }

    /// Returns whether the next answer is to be the connection's last.
    pub(super) fn is_to_leave(&self) -> bool {
        self.0.slot.leaving.load(Ordering::Relaxed) || self.0.slots.crowded.load(Ordering::Relaxed)
    }

    /// Returns the bounds that counted when it was accepted.
    pub(super) fn bounds(&self) -> &Bounds {
        &self.0.bounds
    }

    /// Returns who connected, be it the client or a proxy that has not named one.
    pub(super) fn peer(&self) -> SocketAddr {
        self.0.named.get().copied().unwrap_or(self.0.peer)
    }

    /// Notes for whom a proxy connected.
    pub(super) fn name(&self, client: SocketAddr) {
        // There is one header.
        self.0.named.get_or_init(|| client);
    }

    /// Notes that bytes of the answer were taken.
    pub(super) fn wrote(&self, count: usize) {
        self.0.slot.written.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Notes that the HTTP server has the whole answer in its hands.
    pub(super) fn answer_is_whole(&self) {
        self.0.slot.is_whole.store(true, Ordering::Relaxed);
    }

    /// Notes that nothing waits to be written.
    pub(super) fn flushed(&self) {
        if self.stage() == Stage::Answer && self.0.slot.is_whole.load(Ordering::Relaxed) {
            self.enter(Stage::Idle);
        }
    }

    /// Waits until the connection is to give way. *Cancel safe.*
    pub(super) async fn told_to_leave(&self) {
        self.0.slot.told_to_leave.notified().await;
    }

    /// Takes a place among those that are served, if one is free.
    pub(super) fn try_serve(&self, class: RequestKind) -> Option<Turn> {
        let place = self.semaphore(class).clone().try_acquire_owned().ok()?;
        self.enter(Stage::Serve);
        Some(Turn { _place: place })
    }

    /// Waits for the turn of a request.
    ///
    /// # Errors
    /// It did not come in time, or others waited for the place. It is counted.
    pub(super) async fn serve(&self, class: RequestKind) -> Result<Turn, Busy> {
        if let Some(turn) = self.try_serve(class) {
            return Ok(turn);
        }
        self.enter(Stage::Queue);
        let mut place = pin!(self.semaphore(class).clone().acquire_owned());
        let mut time = pin!(sleep(self.0.bounds.head));
        // The connection's task is woken when it is told to leave, and asks here.
        let place = poll_fn(|context| match place.as_mut().poll(context) {
            Poll::Ready(place) => Poll::Ready(place.ok()),
            Poll::Pending if self.0.slot.leaving.load(Ordering::Relaxed) => Poll::Ready(None),
            Poll::Pending => time.as_mut().poll(context).map(|()| None),
        })
        .await;
        let Some(place) = place else {
            self.refuse(RequestRefusal::Busy);
            return Err(Busy);
        };
        self.enter(Stage::Serve);
        Ok(Turn { _place: place })
    }

    fn semaphore(&self, class: RequestKind) -> &Arc<Semaphore> {
        match class {
            RequestKind::Handshake => &self.0.slots.handshakes,
            RequestKind::Call => &self.0.slots.calls,
        }
    }

    /// Counts and logs a request that is refused.
    pub(super) fn refuse(&self, refusal: RequestRefusal) {
        let slots = &self.0.slots;
        slots.metrics.count_refused(refusal);
        let (_, message) = request::told(refusal);
        let (what, cause, address) = ("request", refusal.label(), self.peer().ip().to_canonical());
        slots.refusals.tell(Told { what, cause, address, conn: None, message });
    }

    /// Counts and logs that the connection is ended in the middle.
    pub(super) fn cut(&self, state: HttpState, cause: CutCause) {
        self.0.slots.metrics.count_cut(state, cause);
        tracing::debug!(state = state.label(), cause = cause.label(), address = %self.peer(), "HTTP connection cut");
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let (stage, _) = self.slot.stage();
        self.slots.visits.lock().try_remove(self.key);
        if stage != Stage::Serve {
            self.slots.free();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::metrics::Metrics;

    const PEER: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);
    const LONG: Duration = Duration::from_secs(3_600);

    fn slots(places: usize) -> Arc<Slots> {
        let metrics = Metrics::new().expect("metrics");
        let bounds = Bounds { places, head: LONG, keep_alive: LONG };
        Slots::new(BoundsSource::Fixed(bounds), metrics.http.clone(), Arc::default())
    }

    async fn is_told(visit: &Visit) -> bool {
        timeout(Duration::ZERO, visit.told_to_leave()).await.is_ok()
    }

    /// Enters once somebody has given way; returns who that was.
    async fn displaced(slots: &Arc<Slots>, visits: &[Visit]) -> Vec<usize> {
        drop(timeout(LOOK * 3, slots.enter(PEER)).await);
        let mut told = Vec::new();
        for (index, visit) in visits.iter().enumerate() {
            if is_told(visit).await {
                told.push(index);
            }
        }
        told
    }

    #[tokio::test]
    async fn the_longest_idle_gives_way_first_and_a_young_head_not_at_all() {
        let slots = slots(4);
        let mut visits = Vec::new();
        for stage in [Stage::Head, Stage::Idle, Stage::Idle, Stage::Answer] {
            let visit = slots.enter(PEER).await;
            visit.enter(stage);
            visits.push(visit);
            sleep(Duration::from_millis(2)).await;
        }
        slots.evict();
        assert!(is_told(&visits[1]).await, "the first of the idle");
        slots.evict();
        assert!(is_told(&visits[2]).await);
        slots.evict();
        assert!(!is_told(&visits[0]).await && !is_told(&visits[3]).await, "both have just begun");
        sleep(HEAD_AGE).await;
        slots.evict();
        assert!(is_told(&visits[0]).await, "the head has had its time");
    }

    #[tokio::test]
    async fn what_is_served_has_no_place_and_is_never_told_to_leave() {
        let slots = slots(1);
        let first = slots.enter(PEER).await;
        let turn = first.try_serve(RequestKind::Call).expect("a turn");
        let second = timeout(LONG, slots.enter(PEER)).await.expect("a place");
        assert!(second.try_serve(RequestKind::Call).is_none(), "one call at a time");
        assert!(
            second.try_serve(RequestKind::Handshake).is_some(),
            "handshakes have places of their own"
        );
        drop(turn);
        assert!(second.try_serve(RequestKind::Call).is_some());
        assert_eq!(displaced(&slots, &[first, second]).await, [0; 0]);
    }

    #[tokio::test]
    async fn places_come_back_whatever_a_connection_did() {
        let slots = slots(3);
        for stage in Stage::ALL {
            let visit = slots.enter(PEER).await;
            visit.enter(stage);
            visit.enter(stage);
            drop(visit);
            assert_eq!(slots.taken.load(Ordering::SeqCst), 0, "{stage:?}");
        }
        assert!(slots.visits.lock().is_empty());
    }

    #[tokio::test]
    async fn an_answer_is_given_time_for_what_was_taken_of_it() {
        let visit = slots(1).enter(PEER).await;
        visit.enter(Stage::Answer);
        let at_first = visit.deadline().expect("a deadline");
        visit.wrote(usize::try_from(ANSWER_RATE).expect("small") * 3);
        assert_eq!(visit.deadline().expect("a deadline") - at_first, Duration::from_secs(3));
        visit.flushed();
        assert_eq!(visit.stage(), Stage::Answer, "more of it is to come");
        visit.answer_is_whole();
        visit.flushed();
        assert_eq!(visit.stage(), Stage::Idle);
        visit.enter(Stage::Serve);
        assert_eq!(visit.deadline(), None);
    }
}
