//! What is on its way to other nodes: what comes together leaves together.
//!
//! Pure. One batch at a time is under way to a node; what comes meanwhile leaves with the next. So
//! a message that comes alone waits for nothing, and under load many share a trip through Redis.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::limits::budget::Held;
use crate::model::id::NodeTag;

/// A batch takes messages until it has this many bytes: Redis and both nodes hold it whole.
const BATCH_BYTES: usize = 256 << 10;

/// Before each message: the lengths of its head and its frame.
const PREFIX: usize = 8;

/// What is said to a node: a head, and perhaps a frame. A call's is forgotten with the call;
/// answers have none.
#[derive(Debug)]
pub(super) struct PeerMessage {
    pub(super) head: Vec<u8>,
    pub(super) frame: Bytes,
    pub(super) call: Option<u64>,
    /// What it holds.
    pub(super) _held: Held,
}

/// Messages that leave as one message.
#[derive(Debug, Default)]
pub(super) struct PeerBatch {
    pub(super) payload: Vec<u8>,
    /// The calls in it.
    pub(super) calls: Vec<u64>,
}

/// Messages that wait, by node; a node is there as long as somebody carries its batches.
#[derive(Debug, Default)]
pub(super) struct Lanes(HashMap<NodeTag, VecDeque<PeerMessage>>);

impl PeerBatch {
    fn add(&mut self, PeerMessage { head, frame, call, .. }: &PeerMessage) {
        let length = |part: &[u8]| u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes();
        for part in [&length(head), &length(frame), head.as_slice(), frame] {
            self.payload.extend_from_slice(part);
        }
        self.calls.extend(call);
    }
}

impl Lanes {
    /// Adds a message; returns whether somebody has to start carrying to the node.
    pub(super) fn add(&mut self, node: NodeTag, message: PeerMessage) -> bool {
        let is_new = !self.0.contains_key(&node);
        self.0.entry(node).or_default().push_back(message);
        is_new
    }

    /// Takes what leaves next for a node, without calls that nobody waits for; whoever carries
    /// stops at `None`.
    pub(super) fn next(
        &mut self,
        node: NodeTag,
        is_awaited: impl Fn(u64) -> bool,
    ) -> Option<PeerBatch> {
        let lane = self.0.get_mut(&node)?;
        let mut batch = PeerBatch::default();
        while batch.payload.len() < BATCH_BYTES
            && let Some(message) = lane.pop_front()
        {
            if message.call.is_none_or(&is_awaited) {
                batch.add(&message);
            }
        }
        if batch.payload.is_empty() {
            self.0.remove(&node);
            return None;
        }
        Some(batch)
    }
}

/// Splits a batch's first message off: its head, its frame, and the rest; `None` at the end, or if
/// it is not one of ours.
pub(super) fn open(payload: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let length = |at: usize| {
        let bytes = payload.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_be_bytes(bytes)).ok()
    };
    let (head, frame) = (length(0)?, length(4)?);
    let (head, rest) = payload.get(PREFIX..)?.split_at_checked(head)?;
    let (frame, rest) = rest.split_at_checked(frame)?;
    Some((head, frame, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::budget::Gauge;

    fn node() -> NodeTag {
        NodeTag::random()
    }

    fn message(head: &[u8], frame: &[u8], call: Option<u64>) -> PeerMessage {
        PeerMessage {
            head: head.to_vec(),
            frame: Bytes::copy_from_slice(frame),
            call,
            _held: Gauge::default().hold(0),
        }
    }

    fn messages(mut payload: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut messages = Vec::new();
        while let Some((head, frame, rest)) = open(payload) {
            messages.push((head.to_vec(), frame.to_vec()));
            payload = rest;
        }
        assert!(payload.is_empty());
        messages
    }

    proptest! {
        #[test]
        fn what_is_sent_arrives_in_order(
            sent in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..9), prop::collection::vec(any::<u8>(), 0..9)), 1..20),
        ) {
            let (mut lanes, node) = (Lanes::default(), node());
            for (number, (head, frame)) in sent.iter().enumerate() {
                prop_assert_eq!(lanes.add(node, message(head, frame, None)), number == 0);
            }
            let batch = lanes.next(node, |_| true).expect("messages");
            prop_assert_eq!(messages(&batch.payload), sent);
            prop_assert!(lanes.next(node, |_| true).is_none());
        }

        #[test]
        fn whatever_comes_is_opened_without_panic(payload in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut rest = payload.as_slice();
            while let Some((_, _, more)) = open(rest) {
                prop_assert!(more.len() < rest.len());
                rest = more;
            }
        }
    }

    #[test]
    fn one_carries_to_a_node_until_there_is_nothing_more() {
        let (mut lanes, one, other) = (Lanes::default(), node(), node());
        assert!(lanes.add(one, message(b"a", b"", Some(1))));
        assert!(lanes.add(other, message(b"b", b"", Some(2))), "nodes do not wait for each other");
        assert_eq!(lanes.next(one, |_| true).expect("a message").calls, [1]);
        assert!(!lanes.add(one, message(b"c", b"", Some(3))), "the first is under way");
        assert_eq!(lanes.next(one, |_| true).expect("a message").calls, [3]);
        assert!(lanes.next(one, |_| true).is_none());
        assert!(lanes.add(one, message(b"d", b"", Some(4))));
    }

    #[test]
    fn calls_that_nobody_waits_for_stay_behind() {
        let (mut lanes, node) = (Lanes::default(), node());
        for call in 1..=3 {
            lanes.add(node, message(&[b'0' + u8::try_from(call).expect("small")], b"", Some(call)));
        }
        let batch = lanes.next(node, |call| call == 2).expect("a message");
        assert_eq!(
            (batch.calls, messages(&batch.payload)),
            (vec![2], vec![(b"2".to_vec(), Vec::new())])
        );
        lanes.add(node, message(b"5", b"", Some(5)));
        assert!(lanes.next(node, |_| false).is_none());
        assert!(lanes.add(node, message(b"6", b"", Some(6))));
    }

    #[test]
    fn a_batch_is_bounded_and_one_message_always_fits() {
        let (mut lanes, node) = (Lanes::default(), node());
        for size in [BATCH_BYTES / 2, BATCH_BYTES * 2, 1] {
            lanes.add(node, message(b"", &vec![0; size], None));
        }
        let sizes: Vec<_> = std::iter::from_fn(|| lanes.next(node, |_| true))
            .map(|batch| {
                messages(&batch.payload).iter().map(|(_, frame)| frame.len()).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(sizes, [vec![BATCH_BYTES / 2, BATCH_BYTES * 2], vec![1]]);
    }
}
