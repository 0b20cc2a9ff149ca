//! What a pod's deletion costs, and when that is worth a write.
//!
//! The rule it keeps: few writes. Each is an event for everybody who watches pods, so Kubernetes
//! warns against an annotation that follows a figure. The cost decides between pods, and for that
//! its order of size does.

/// A difference of fewer connections does not count: it is less than what comes and goes while a
/// pod is being chosen.
const LEAST_DIFFERENCE: u64 = 10;

/// A difference of less than one in this many does not count. So a pod that grows from nothing to
/// 50,000 connections is written less than a hundred times, however long that takes, and the pod
/// that goes has at most about a quarter more than the emptiest.
const LEAST_SHARE: u64 = 10;

/// The cost that a pod should have.
pub(super) fn of(connections: u64) -> i32 {
    i32::try_from(connections).unwrap_or(i32::MAX)
}

/// Returns whether a cost is to be written in place of what the annotation says.
pub(super) fn is_worth_a_write(stored: Option<&str>, cost: i32) -> bool {
    let stored = match stored.map(str::parse::<i32>) {
        // As Kubernetes counts a pod without the annotation.
        None => 0,
        Some(Ok(stored)) => stored,
        Some(Err(_)) => return true,
    };
    let difference = u64::from(stored.abs_diff(cost));
    let larger = u64::from(stored.unsigned_abs().max(cost.unsigned_abs()));
    // An empty pod is the one that may go at the price of nobody, so this is always known; a
    // negative cost is not ours.
    stored < 0
        || (stored == 0) != (cost == 0)
        || (difference >= LEAST_DIFFERENCE && difference * LEAST_SHARE > larger)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cost_is_written_when_it_changes_the_order_of_size() {
        let cases = [
            (None, 0, false),
            (None, 1, true),
            (Some("0"), 0, false),
            (Some("0"), 1, true),
            (Some("1"), 0, true),
            (Some("1"), 10, false),
            (Some("1"), 11, true),
            (Some("100"), 109, false),
            (Some("100"), 110, false),
            (Some("100"), 112, true),
            (Some("100"), 90, false),
            (Some("100"), 89, true),
            (Some("50000"), 46_000, false),
            (Some("50000"), 44_999, true),
            (Some("2147483647"), i32::MAX, false),
            (Some("-2147483648"), i32::MAX, true),
            (Some("-5"), 5, true),
            (Some("-5"), 0, true),
            (Some("2147483648"), i32::MAX, true),
            (Some("many"), 0, true),
            (Some(""), 7, true),
        ];
        for (stored, cost, expected) in cases {
            assert_eq!(is_worth_a_write(stored, cost), expected, "{stored:?} {cost}");
        }
    }

    #[test]
    fn a_cost_has_32_bits() {
        assert_eq!(of(0), 0);
        assert_eq!(of(2_147_483_647), i32::MAX);
        assert_eq!(of(2_147_483_648), i32::MAX);
        assert_eq!(of(u64::MAX), i32::MAX);
    }

    /// Slowly or fast, up to a node's 50,000 connections and down again.
    #[test]
    fn a_pod_that_fills_and_empties_is_written_seldom() {
        for step in [1, 7, 100, 5_000] {
            let up = (0..50_001_u32).step_by(step);
            let mut stored: Option<String> = None;
            let mut writes = 0;
            for connections in up.clone().chain(up.rev()) {
                let cost = of(u64::from(connections));
                if is_worth_a_write(stored.as_deref(), cost) {
                    stored = Some(cost.to_string());
                    writes += 1;
                }
            }
            assert!(writes < 200, "step {step}: {writes}");
            assert_eq!(stored.as_deref(), Some("0"));
        }
    }

    proptest! {
        /// What is kept for two pods may be a tenth off each, so the one that looks emptier is not
        /// much fuller.
        #[test]
        fn the_pod_that_goes_is_nearly_the_emptiest(
            counts in prop::collection::vec((0_u64..200_000, 0_i32..200_000), 1..12)
        ) {
            let kept = counts.iter().map(|(connections, stored)| {
                let cost = of(*connections);
                if is_worth_a_write(Some(&stored.to_string()), cost) { cost } else { *stored }
            });
            let goes = kept.zip(&counts).min_by_key(|(cost, _)| *cost).map(|(_, (connections, _))| *connections);
            let emptiest = counts.iter().map(|(connections, _)| *connections).min();
            let (goes, emptiest) = (goes.expect("one"), emptiest.expect("one"));
            prop_assert!(goes <= emptiest + emptiest / 4 + 2 * LEAST_DIFFERENCE, "{goes} {emptiest}");
            prop_assert!(emptiest > 0 || goes == 0);
        }

        #[test]
        fn what_was_written_need_not_be_written_again(connections: u64) {
            let cost = of(connections);
            prop_assert!(!is_worth_a_write(Some(&cost.to_string()), cost));
        }
    }
}
