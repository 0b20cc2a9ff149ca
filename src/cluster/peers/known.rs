//! The nodes that this one knows of, though Redis may have forgotten them.
//!
//! Pure. A node is known while the set of all nodes names it, and for some leases longer: a Redis
//! that has begun anew is told of a node with its next renewal, which comes sooner. Time in which
//! nobody reads the set does not count.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::model::id::NodeTag;

/// Leases for which a node that is not named is known.
const KEPT_LEASES: u32 = 3;

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Known {
    kept: Duration,
    /// Each with when it was missing first.
    nodes: BTreeMap<NodeTag, Option<Instant>>,
}

impl Known {
    pub(super) fn new(lease: Duration) -> Self {
        Self { kept: lease * KEPT_LEASES, nodes: BTreeMap::new() }
    }

    /// Takes whom the set names now; returns all that are known, in order.
    pub(super) fn see(&mut self, named: &[NodeTag], now: Instant) -> Vec<NodeTag> {
        let kept = self.kept;
        self.nodes.retain(|node, missing| {
            *missing = (!named.contains(node)).then(|| missing.unwrap_or(now));
            missing.is_none_or(|since| now.saturating_duration_since(since) < kept)
        });
        self.nodes.extend(named.iter().map(|node| (*node, None)));
        self.nodes.keys().copied().collect()
    }

    /// Takes that a node lives: it has written to this one.
    pub(super) fn hear(&mut self, node: NodeTag) {
        self.nodes.insert(node, None);
    }

    /// Returns whether a node may live, though the set may not name it.
    pub(super) fn knows(&self, node: NodeTag) -> bool {
        self.nodes.contains_key(&node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    #[test]
    fn who_is_forgotten_is_known_for_some_leases_of_looking() {
        let (mut known, now) = (Known::new(LEASE), Instant::now());
        let mut tags = [NodeTag::random(), NodeTag::random()];
        tags.sort_unstable();
        assert_eq!(known.see(&tags, now), tags);
        assert!(known.knows(tags[0]));
        // Redis is away for long, and comes back empty.
        let back = now + 10 * LEASE;
        assert_eq!(known.see(&[], back), tags);
        assert!(known.knows(tags[0]) && known.knows(tags[1]));
        assert_eq!(known.see(&tags[..1], back + LEASE / 2), tags, "one has renewed its lease");
        assert_eq!(
            known.see(&tags[..1], back + KEPT_LEASES * LEASE),
            tags[..1],
            "the other is gone"
        );
        assert!(!known.knows(tags[1]) && !known.knows(NodeTag::random()));
        known.hear(tags[1]);
        assert_eq!(known.see(&[], back + KEPT_LEASES * LEASE), tags, "it has written");
    }
}
