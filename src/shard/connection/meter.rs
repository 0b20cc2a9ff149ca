//! How fast a client may send.
//!
//! What was read is charged afterwards, once a read, so a message that costs more than there is
//! passes, and whoever sent it is not read from until that is paid off. Nothing is dropped and
//! nobody is closed for it: the client finds its socket full.

use std::time::{Duration, Instant};

use crate::config::Limits;
use crate::limits::rate::{Bucket, Pace};
use crate::ops::metrics::SendLimit;

/// A burst of new channels is what comes in this many seconds, or all groups that one connection
/// may be in: it joins them at once when it has come back.
const NEW_CHANNELS_SECONDS: usize = 10;

/// What one read brought.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    /// Control frames among them.
    pub(crate) messages: u64,
    /// Frame headers included.
    pub(crate) bytes: u64,
    /// Bytes of frames, times the members on this node whom they go to.
    pub(crate) fanout_bytes: u64,
}

/// The bounds of all senders.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paces {
    messages: Pace,
    bytes: Pace,
    fanout_bytes: Pace,
    new_channels: Pace,
}

/// What a sender has used.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    messages: Bucket,
    bytes: Bucket,
    fanout_bytes: Bucket,
    new_channels: Bucket,
}

impl Paces {
    /// A burst is what a second brings; of bytes it is also no more than half an outbox, since
    /// those who receive it may not read just then.
    pub(crate) fn new(limits: &Limits) -> Self {
        let bytes = limits.receive_bytes_rate;
        Self {
            messages: Pace::new(limits.message_rate, limits.message_rate),
            bytes: Pace::new(bytes, bytes.min(limits.outbox_bytes / 2)),
            fanout_bytes: Pace::new(limits.fanout_bytes_rate, limits.fanout_bytes_rate),
            new_channels: Pace::new(
                limits.new_channels_rate,
                limits.groups_per_connection.max(NEW_CHANNELS_SECONDS * limits.new_channels_rate),
            ),
        }
    }
}

impl Meter {
    /// Takes a channel that is new to this node; returns false if that would be too many. Unlike
    /// what has been read, it is refused before anything is done for it.
    pub(crate) fn take_new_channel(&mut self, paces: &Paces, now: Instant) -> bool {
        self.new_channels.take(&paces.new_channels, 1, now.into())
    }

    /// Charges what was read. Returns for how long no more should be read, and because of which
    /// limit, if it was too much.
    pub(crate) fn charge(
        &mut self,
        paces: &Paces,
        used: &Used,
        now: Instant,
    ) -> Option<(Duration, SendLimit)> {
        let now = now.into();
        let owed = [
            (self.messages.charge(&paces.messages, used.messages, now), SendLimit::Messages),
            (self.bytes.charge(&paces.bytes, used.bytes, now), SendLimit::Bytes),
            (
                self.fanout_bytes.charge(&paces.fanout_bytes, used.fanout_bytes, now),
                SendLimit::FanoutBytes,
            ),
        ];
        let (longest, limit) = owed.into_iter().max_by_key(|(owed, _)| *owed)?;
        (longest > 0).then_some((Duration::from_nanos(longest), limit))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn paces(message_rate: usize, receive_bytes_rate: usize, fanout_bytes_rate: usize) -> Paces {
        let mut limits =
            crate::config::Config::load(&crate::config::Sources::default()).expect("valid").limits;
        (limits.message_rate, limits.receive_bytes_rate) = (message_rate, receive_bytes_rate);
        limits.fanout_bytes_rate = fanout_bytes_rate;
        Paces::new(&limits)
    }

    #[test]
    fn each_limit_slows_by_itself() {
        let (paces, now) = (paces(10, 1_000, 20_000), Instant::now());
        for (used, limit) in [
            (Used { messages: 20, bytes: 100, fanout_bytes: 100 }, SendLimit::Messages),
            (Used { messages: 1, bytes: 2_000, fanout_bytes: 100 }, SendLimit::Bytes),
            (Used { messages: 1, bytes: 100, fanout_bytes: 40_000 }, SendLimit::FanoutBytes),
            (Used { messages: 15, bytes: 2_000, fanout_bytes: 30_000 }, SendLimit::Bytes),
        ] {
            assert_eq!(
                Meter::default().charge(&paces, &used, now),
                Some((SECOND, limit)),
                "{used:?}"
            );
        }
        let within = Used { messages: 10, bytes: 1_000, fanout_bytes: 20_000 };
        assert_eq!(Meter::default().charge(&paces, &within, now), None);
    }

    #[test]
    fn all_groups_of_a_connection_may_be_new_at_once() {
        let mut limits =
            crate::config::Config::load(&crate::config::Sources::default()).expect("valid").limits;
        (limits.new_channels_rate, limits.groups_per_connection) = (5, 300);
        let (paces, now, mut meter) = (Paces::new(&limits), Instant::now(), Meter::default());
        assert_eq!((0..1_000).filter(|_| meter.take_new_channel(&paces, now)).count(), 300);
        assert_eq!(
            (0..1_000).filter(|_| meter.take_new_channel(&paces, now + 2 * SECOND)).count(),
            10
        );
    }

    #[test]
    fn a_burst_of_bytes_is_no_more_than_half_an_outbox() {
        let (paces, now) = (paces(usize::MAX, 16 << 20, usize::MAX), Instant::now());
        let mut meter = Meter::default();
        assert_eq!(meter.charge(&paces, &Used { bytes: 512 << 10, ..Used::default() }, now), None);
        let (owed, limit) = meter
            .charge(&paces, &Used { bytes: 16 << 20, ..Used::default() }, now)
            .expect("too much");
        assert_eq!((owed, limit), (SECOND, SendLimit::Bytes));
    }

    proptest! {
        /// Whoever is read from as this says keeps every rate, but for a burst and the last read.
        #[test]
        fn who_is_left_unread_as_told_keeps_every_rate(
            reads in prop::collection::vec((0..9_000_u64, 0..65_536_u64, 0..60_000_000_u64), 1..60),
        ) {
            let (paces, began) = (paces(10_000, 1 << 20, 512 << 20), Instant::now());
            let (mut meter, mut elapsed, mut total) = (Meter::default(), Duration::ZERO, Used::default());
            for (messages, bytes, fanout_bytes) in reads {
                let seconds = elapsed.as_secs_f64() + 1e-6;
                prop_assert!(total.messages as f64 <= 1e4 * (seconds + 1.0));
                prop_assert!(total.bytes as f64 <= 1_048_576.0 * (seconds + 0.5));
                prop_assert!(total.fanout_bytes as f64 <= 536_870_912.0 * (seconds + 1.0));
                let used = Used { messages, bytes, fanout_bytes };
                total.messages += messages;
                total.bytes += bytes;
                total.fanout_bytes += fanout_bytes;
                elapsed += meter.charge(&paces, &used, began + elapsed).map_or(Duration::ZERO, |(owed, _)| owed);
            }
        }
    }
}
