//! Finds the order of a channel with which all connections and offsets must agree.
//!
//! Each sequence that a connection received, and the sequence by offsets, restricts the order. If
//! they contradict each other, one of them is overruled, which shows as a step backwards in it.

use std::collections::{BTreeSet, HashMap};

use crate::faults::log::Id;

/// Places of messages in the order of their channel.
#[derive(Debug, Default)]
pub(crate) struct Order(HashMap<Id, usize>);

#[derive(Default)]
struct Node {
    after: Vec<Id>,
    waits_for: usize,
}

impl Order {
    /// Merges sequences into one order.
    pub(crate) fn of(sequences: &[Vec<Id>]) -> Self {
        let mut nodes: HashMap<Id, Node> = HashMap::new();
        let mut pairs = BTreeSet::new();
        for seen in sequences {
            for id in seen {
                nodes.entry(*id).or_default();
            }
            for (one, two) in seen.iter().zip(seen.iter().skip(1)) {
                if one != two && pairs.insert((*one, *two)) {
                    nodes.entry(*one).or_default().after.push(*two);
                    nodes.entry(*two).or_default().waits_for += 1;
                }
            }
        }
        Self(sort(nodes))
    }

    /// Returns a message's place; none if it is in no sequence.
    pub(crate) fn place(&self, id: Id) -> Option<usize> {
        self.0.get(&id).copied()
    }

    /// Returns how often a sequence goes backwards.
    pub(crate) fn steps_back(&self, seen: &[Id]) -> u64 {
        let places: Vec<usize> = seen.iter().filter_map(|id| self.place(*id)).collect();
        places.iter().zip(places.iter().skip(1)).filter(|(one, two)| two < one).count() as u64
    }
}

/// Sorts topologically; in a cycle, the message that waits for the fewest others comes first.
fn sort(mut nodes: HashMap<Id, Node>) -> HashMap<Id, usize> {
    let mut waiting: BTreeSet<(usize, Id)> =
        nodes.iter().map(|(id, node)| (node.waits_for, *id)).collect();
    let mut places = HashMap::with_capacity(nodes.len());
    while let Some((_, id)) = waiting.pop_first() {
        places.insert(id, places.len());
        let after = nodes.remove(&id).map(|node| node.after).unwrap_or_default();
        for next in after {
            if let Some(node) = nodes.get_mut(&next) {
                waiting.remove(&(node.waits_for, next));
                node.waits_for -= 1;
                waiting.insert((node.waits_for, next));
            }
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u32]) -> Vec<Id> {
        numbers.iter().map(|number| Id { channel: 0, publisher: 0, number: *number }).collect()
    }

    #[test]
    fn witnesses_of_parts_are_merged_to_one_order() {
        let seen = [ids(&[1, 2, 9]), ids(&[2, 3, 4]), ids(&[9, 3]), ids(&[4, 5])];
        let order = Order::of(&seen);
        assert_eq!(seen.iter().map(|seen| order.steps_back(seen)).sum::<u64>(), 0);
        assert_eq!(order.steps_back(&ids(&[1, 2, 9, 3, 4, 5])), 0);
        assert_eq!(order.place(ids(&[7])[0]), None);
    }

    #[test]
    fn a_witness_that_contradicts_the_others_is_taken_backwards() {
        let seen = [ids(&[1, 2, 3, 4]), ids(&[1, 2, 3, 4]), ids(&[1, 3, 2, 4])];
        let order = Order::of(&seen);
        assert!(seen.iter().map(|seen| order.steps_back(seen)).sum::<u64>() >= 1);
    }
}
