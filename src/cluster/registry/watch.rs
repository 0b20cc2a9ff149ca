//! Finds out which nodes are dead, from what one node sees of their signs of life.
//!
//! Pure. A node's sign moves with every renewal of its lease, whatever the clock of Redis says. Who
//! watches counts, by its own clock, for how long a sign has stood still while Redis served without
//! a pause; that has to be a whole lease and the time to the next renewal. The first look at a sign
//! comes after the renewal that it shows, so the count ends after that renewal's lease has ended by
//! the clock of the node itself ([`crate::cluster::registry::tenure`]).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::model::id::NodeTag;

/// What Redis holds of a node: its lease, or the question that a look has left in its place; and
/// what others have said of its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sign {
    pub(crate) lease: Option<String>,
    pub(crate) mark: Option<String>,
}

/// One look at a node.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    pub(crate) sign: Sign,
    /// Which server has answered, and which of its lives.
    pub(crate) replication_id: String,
    pub(crate) sent: Instant,
    pub(crate) answered: Instant,
    /// For how long the server has served steadily when it answered.
    pub(crate) steady: Duration,
}

/// What a look says of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// The sign has moved, or was never seen before.
    Moved,
    /// It has not moved; if it does not, and Redis goes on, the node is dead after this time.
    Still(Duration),
    Dead,
}

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Watch {
    lease: Duration,
    still: HashMap<NodeTag, Still>,
}

#[derive(Debug)]
struct Still {
    sign: Sign,
    replication_id: String,
    since: Instant,
    /// When the last look was answered.
    seen: Instant,
}

impl Watch {
    pub(crate) fn new(lease: Duration) -> Self {
        Self { lease, still: HashMap::new() }
    }

    /// Returns how long a sign has to stand still.
    pub(crate) fn patience(&self) -> Duration {
        self.lease + self.lease / 3
    }

    /// Takes a look at a node.
    pub(crate) fn saw(&mut self, node: NodeTag, look: Look) -> Life {
        let (patience, lease) = (self.patience(), self.lease);
        let Look { sign, replication_id, sent, answered, steady } = look;
        let is_same = |still: &&mut Still| {
            let is_late = sent.saturating_duration_since(still.seen) > lease;
            still.sign == sign && still.replication_id == replication_id && !is_late
        };
        if let Some(still) = self.still.get_mut(&node).filter(is_same) {
            still.seen = answered;
            let time = sent.saturating_duration_since(still.since).min(steady);
            return if time >= patience { Life::Dead } else { Life::Still(patience - time) };
        }
        self.still.insert(node, Still { sign, replication_id, since: answered, seen: answered });
        Life::Moved
    }

    /// A look at a node has failed, or it is not one to be watched: its time begins anew.
    pub(crate) fn forget(&mut self, node: NodeTag) {
        self.still.remove(&node);
    }

    /// Forgets all but these.
    pub(crate) fn keep(&mut self, nodes: &[NodeTag]) {
        self.still.retain(|node, _| nodes.contains(node));
    }

    /// Begins anew with all.
    pub(crate) fn clear(&mut self) {
        self.still.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEASE: Duration = Duration::from_millis(900);
    const TICK: Duration = Duration::from_millis(300);

    fn sign(counter: u32) -> Sign {
        Sign { lease: Some(counter.to_string()), mark: None }
    }

    fn look(sign: Sign, at: Instant, steady: Duration) -> Look {
        Look { sign, replication_id: "a".to_owned(), sent: at, answered: at, steady }
    }

    #[test]
    fn a_sign_that_stands_still_is_dead_after_a_lease_and_a_renewal() {
        let (mut watch, node, began) = (Watch::new(LEASE), NodeTag::random(), Instant::now());
        let mut at = |millis: u64, sign| {
            watch.saw(node, look(sign, began + Duration::from_millis(millis), Duration::MAX))
        };
        assert_eq!(at(0, sign(1)), Life::Moved);
        assert_eq!(at(300, sign(2)), Life::Moved);
        assert_eq!(at(600, sign(2)), Life::Still(3 * TICK));
        assert_eq!(at(1_499, sign(2)), Life::Still(Duration::from_millis(1)));
        assert_eq!(at(1_500, sign(2)), Life::Dead);
        assert_eq!(at(1_600, sign(3)), Life::Moved);
        // That there is nothing is a sign as any other.
        for millis in (1_900..3_100).step_by(300) {
            assert_ne!(at(millis, Sign::default()), Life::Dead);
        }
        assert_eq!(at(3_100, Sign::default()), Life::Dead);
    }

    #[test]
    fn the_time_of_a_look_on_its_way_does_not_count() {
        let (mut watch, node, began) = (Watch::new(LEASE), NodeTag::random(), Instant::now());
        let late = began + TICK;
        watch.saw(node, Look { answered: late, ..look(sign(1), began, Duration::MAX) });
        for step in 1..=4 {
            let sent = late + step * TICK - Duration::from_millis(1);
            let slow = Look { answered: sent + TICK, ..look(sign(1), sent, Duration::MAX) };
            assert_ne!(watch.saw(node, slow), Life::Dead, "{step}");
        }
    }

    #[test]
    fn another_server_and_a_late_look_begin_anew() {
        let (mut watch, node, began) = (Watch::new(LEASE), NodeTag::random(), Instant::now());
        watch.saw(node, look(sign(1), began, Duration::MAX));
        let other =
            Look { replication_id: "b".to_owned(), ..look(sign(1), began + TICK, Duration::MAX) };
        assert_eq!(watch.saw(node, other.clone()), Life::Moved);
        let late = began + TICK + LEASE + Duration::from_millis(1);
        assert_eq!(
            watch.saw(node, Look { sent: late, answered: late, ..other.clone() }),
            Life::Moved
        );
        watch.forget(node);
        assert_eq!(watch.saw(node, Look { sent: late, answered: late, ..other }), Life::Moved);
    }

    /// What happens at a tick of a third of a lease: the node renews or not; Redis has just come
    /// back, or another server, or not.
    fn step() -> impl Strategy<Value = (bool, bool, bool)> {
        (prop::bool::weighted(0.3), prop::bool::weighted(0.1), prop::bool::weighted(0.05))
    }

    proptest! {
        #[test]
        fn dead_is_who_has_not_moved_in_steady_service_and_nobody_else(steps in prop::collection::vec(step(), 1..80)) {
            let (mut watch, node, began) = (Watch::new(LEASE), NodeTag::random(), Instant::now());
            let (mut counter, mut server, mut steady_since) = (0, 0, began);
            let mut moved_at = None;
            for (number, (renews, is_back, is_other)) in (0_u32..).zip(steps) {
                let now = began + number * TICK;
                if renews {
                    counter += 1;
                }
                if is_other {
                    server += 1;
                }
                if is_back || is_other {
                    steady_since = now;
                }
                if renews || is_other || moved_at.is_none() {
                    moved_at = Some(now);
                }
                let seen = Look { replication_id: server.to_string(), ..look(sign(counter), now, now - steady_since) };
                let life = watch.saw(node, seen);
                let still = now - moved_at.unwrap_or(now).max(steady_since);
                prop_assert_eq!(life == Life::Dead, still >= watch.patience(), "{:?} after {:?}", life, still);
                if let Life::Still(left) = life {
                    prop_assert_eq!(still + left, watch.patience());
                }
            }
        }
    }
}
