//! What waits for one back end, in which order, and what is under way. Pure.
//!
//! A call waits while as many are under way as may be. An ordered one also waits for those of its
//! connection that came before. *Invariant:* what waits is bounded in number and bytes.
//! *Invariant:* of one connection, one ordered call at most is ready or under way.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use crate::model::call::Call;
use crate::model::id::ConnectionId;

/// How much one back end takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Most calls under way.
    pub(crate) in_flight: usize,
    /// Most calls that wait.
    pub(crate) calls: usize,
    /// Most bytes that they hold.
    pub(crate) bytes: usize,
}

/// A call that has not begun.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) call: Call,
    /// It is answered until then.
    pub(super) deadline: Instant,
    pub(super) since: Instant,
}

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Queue {
    bounds: Bounds,
    ready: VecDeque<Waiting>,
    /// Of each connection that has an ordered call ready or under way, those behind it.
    behind: HashMap<ConnectionId, VecDeque<Waiting>>,
    in_flight: usize,
    count: usize,
    bytes: usize,
}

impl Waiting {
    fn weight(&self) -> usize {
        self.call.event.weight()
    }

    /// Returns what the call is ordered by, if it is.
    pub(super) fn lane(&self) -> Option<ConnectionId> {
        let event = &self.call.event;
        event.is_ordered.then_some(event.record.id)
    }
}

impl Queue {
    pub(super) fn new(bounds: Bounds) -> Self {
        let (ready, behind) = Default::default();
        Self { bounds, ready, behind, in_flight: 0, count: 0, bytes: 0 }
    }

    /// Takes a call.
    ///
    /// # Errors
    /// The call: as many wait as may.
    #[expect(clippy::result_large_err, reason = "it is the call, and is moved once")]
    pub(super) fn push(&mut self, waiting: Waiting) -> Result<(), Waiting> {
        let weight = waiting.weight();
        let is_full = self.count >= self.bounds.calls || self.bytes + weight > self.bounds.bytes;
        let lane = waiting.lane();
        let is_behind = lane.is_some_and(|lane| self.behind.contains_key(&lane));
        if is_full && (is_behind || !self.may_begin()) {
            return Err(waiting);
        }
        self.count += 1;
        self.bytes += weight;
        match lane {
            Some(lane) if is_behind => self.behind.entry(lane).or_default().push_back(waiting),
            lane => {
                self.behind.extend(lane.map(|lane| (lane, VecDeque::new())));
                self.ready.push_back(waiting);
            }
        }
        Ok(())
    }

    fn may_begin(&self) -> bool {
        self.ready.is_empty() && self.in_flight < self.bounds.in_flight
    }

    /// Returns the next call to begin, which is under way from now on.
    pub(super) fn begin(&mut self) -> Option<Waiting> {
        if self.in_flight >= self.bounds.in_flight {
            return None;
        }
        let waiting = self.ready.pop_front()?;
        self.forget(&waiting);
        self.in_flight += 1;
        Some(waiting)
    }

    /// A call that was under way is not any more.
    pub(super) fn end(&mut self, lane: Option<ConnectionId>) {
        self.in_flight -= 1;
        self.promote(lane);
    }

    /// Takes out calls whose time is up. Those behind others have theirs when they are ready.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<Waiting> {
        let mut expired = Vec::new();
        for waiting in std::mem::take(&mut self.ready) {
            if waiting.deadline > now {
                self.ready.push_back(waiting);
            } else {
                expired.push(waiting);
            }
        }
        for waiting in &expired {
            self.forget(waiting);
            self.promote(waiting.lane());
        }
        expired
    }

    /// Returns when the time of the first that is ready is up.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.ready.iter().map(|waiting| waiting.deadline).min()
    }

    /// Returns how many wait, and how many are under way.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.count, self.in_flight)
    }

    fn forget(&mut self, waiting: &Waiting) {
        self.count -= 1;
        self.bytes -= waiting.weight();
    }

    /// Lets the next call of a connection become ready.
    fn promote(&mut self, lane: Option<ConnectionId>) {
        let Some(lane) = lane else { return };
        let next = self.behind.get_mut(&lane).and_then(VecDeque::pop_front);
        match next {
            Some(next) => self.ready.push_back(next),
            None => drop(self.behind.remove(&lane)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::model::call::{Body, CallReceipt, Event, Occasion, TargetName};
    use crate::model::id::{NodeTag, RequestId};
    use crate::model::registry::Record;
    use crate::model::trail::Trail;

    fn records(count: usize) -> Vec<Arc<Record>> {
        let tag = NodeTag::random();
        let record = |_| Record {
            id: ConnectionId::mint(tag),
            source_ip: "127.0.0.1".parse().expect("an address"),
            user_agent: None,
            user: None,
            connected_at: Timestamp::now(),
        };
        (0..count).map(record).map(Arc::new).collect()
    }

    fn waiting(
        record: &Arc<Record>,
        number: usize,
        is_ordered: bool,
        deadline: Instant,
    ) -> Waiting {
        let event = Event {
            route: number.to_string().into(),
            request: RequestId::mint(),
            record: Arc::clone(record),
            at: Timestamp::now(),
            occasion: Occasion::Message { id: RequestId::mint(), body: Body::Text("hello".into()) },
            trail: Trail::begin(Timestamp::now()),
            trace: None,
            wants_reply: false,
            is_ordered,
        };
        let call =
            Call { target: TargetName("test".into()), event, receipt: CallReceipt::new(|_| {}) };
        Waiting { call, deadline, since: deadline }
    }

    fn number(waiting: &Waiting) -> usize {
        waiting.call.event.route.parse().expect("a number")
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push { connection: usize, is_ordered: bool },
        Begin,
        End(prop::sample::Index),
        Expire,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3_usize, any::<bool>()).prop_map(|(connection, is_ordered)| Step::Push { connection, is_ordered }),
            3 => Just(Step::Begin),
            3 => any::<prop::sample::Index>().prop_map(Step::End),
            1 => Just(Step::Expire),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Every call that is taken comes out once, ordered ones one at a time and in order, and
        /// the bounds hold.
        #[test]
        fn calls_come_out_once_and_in_order(steps in prop::collection::vec(step(), 0..80)) {
            let bounds = Bounds { in_flight: 2, calls: 5, bytes: 1 << 20 };
            let (mut queue, records) = (Queue::new(bounds), records(3));
            let (now, mut taken, mut out) = (Instant::now(), 0, 0);
            let mut under_way: Vec<Waiting> = Vec::new();
            let mut last: BTreeMap<usize, usize> = BTreeMap::new();
            for (number, step) in steps.into_iter().enumerate() {
                let mut gone = Vec::new();
                match step {
                    Step::Push { connection, is_ordered } => {
                        let deadline = now + Duration::from_secs(number as u64);
                        let (before, running) = queue.len();
                        match queue.push(waiting(&records[connection], number, is_ordered, deadline)) {
                            Ok(()) => taken += 1,
                            Err(_) => prop_assert!(before >= bounds.calls || running > 0),
                        }
                    }
                    Step::Begin => {
                        if let Some(begun) = queue.begin() {
                            let lane = begun.lane();
                            prop_assert!(lane.is_none() || under_way.iter().all(|other| other.lane() != lane));
                            let at = records.iter().position(|one| one.id == begun.call.event.record.id).expect("known");
                            if lane.is_some() {
                                prop_assert!(last.insert(at, self::number(&begun)).is_none_or(|last| last < self::number(&begun)));
                            }
                            under_way.push(begun);
                        }
                    }
                    Step::End(at) if !under_way.is_empty() => {
                        let ended = under_way.swap_remove(at.index(under_way.len()));
                        queue.end(ended.lane());
                        gone.push(ended);
                    }
                    Step::End(_) => {}
                    Step::Expire => gone = queue.expired(now + Duration::from_secs(number as u64 / 2)),
                }
                out += gone.len();
                let (count, in_flight) = queue.len();
                prop_assert!(count <= bounds.calls + 1 && in_flight == under_way.len() && in_flight <= bounds.in_flight);
                prop_assert_eq!(taken, out + count + in_flight);
            }
            // Whatever is left comes out.
            loop {
                while let Some(begun) = queue.begin() {
                    under_way.push(begun);
                }
                let Some(ended) = under_way.pop() else { break };
                queue.end(ended.lane());
                out += 1;
            }
            prop_assert_eq!((taken, queue.len(), queue.bytes, queue.behind.len()), (out, (0, 0), 0, 0));
        }
    }
}
