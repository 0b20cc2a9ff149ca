//! What the clocks of an open connection go by; `connection.rs` has the table of when each starts,
//! restarts and pauses.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::state::{Due, Reading};
use crate::config::Limits;
use crate::ops::jitter::jittered;
use crate::protocol::close::Close;
use crate::shard::outbox::Written;

/// Length of a ping: two bytes of header, and its place.
pub(super) const PING_BYTES: u64 = 10;

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Clocks {
    pub(super) opened: Instant,
    /// Last message, or part of one, in either direction; control frames do not count.
    pub(super) last_message: Instant,
    /// Last sign of life: bytes from the client, or room in a socket that was full; or the start of
    /// reading after a pause.
    pub(super) last_life: Instant,
    pub(super) next_ping: Option<Instant>,
    /// The oldest that has not been answered.
    pub(super) ping: Option<Ping>,
    /// Since when the socket has taken nothing although something waits.
    pub(super) stuck_since: Option<Instant>,
    /// Bytes that the socket has taken.
    pub(super) taken: u64,
    /// How many of them the client has read, as it says itself: those up to the last ping that it
    /// answered.
    pub(super) confirmed: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Ping {
    /// Its first byte's place among the bytes for the client, and its payload.
    pub(super) place: u64,
    /// When the socket had taken it.
    pub(super) handed: Option<Instant>,
}

impl Clocks {
    pub(super) fn new(now: Instant, limits: &Limits) -> Self {
        Self {
            opened: now,
            last_message: now,
            last_life: now,
            next_ping: limits.ping_interval.map(|interval| now + jittered(interval)),
            ping: None,
            stuck_since: None,
            taken: 0,
            confirmed: 0,
        }
    }

    pub(super) fn plan_pong(&mut self, now: Instant, limits: &Limits) -> [u8; 8] {
        self.ping.get_or_insert(Ping { place: self.taken, handed: None });
        self.plan_ping(now, limits);
        payload_of(self.taken)
    }

    pub(super) fn plan_ping(&mut self, now: Instant, limits: &Limits) {
        self.next_ping = limits.ping_interval.map(|interval| now + jittered(interval));
    }

    /// Draws a moment in the whole interval: those of all connections must not come at once.
    pub(super) fn replan_ping(&mut self, now: Instant, limits: &Limits) {
        let drawn = |interval: Duration| now + interval.mul_f64(rand::random_range(0.0..1.0));
        self.next_ping = limits.ping_interval.map(drawn);
    }

    pub(super) fn on_pong(&mut self, payload: &[u8], now: Instant) -> Option<Duration> {
        let place = place_of(payload)?;
        self.confirmed = self.confirmed.max(place.min(self.taken));
        // One may stand for all pings so far (RFC 6455 §5.5.3).
        let answered = self.ping.take_if(|ping| ping.place <= place)?;
        answered.handed.map(|handed| now.saturating_duration_since(handed))
    }

    /// Notes what a write achieved. Room in a socket that was full is a sign of life: the client
    /// has taken something. That a socket takes what there is room for is none.
    pub(super) fn on_written(&mut self, Written { bytes, all }: Written, now: Instant) {
        self.taken += bytes as u64;
        if all && self.stuck_since.is_none() && self.ping.is_none() {
            return;
        }
        if bytes > 0 && self.stuck_since.is_some() {
            self.last_life = now;
            self.last_message = now;
        }
        self.stuck_since = match (all, bytes > 0) {
            (true, _) => None,
            (false, true) => Some(now),
            (false, false) => self.stuck_since.or(Some(now)),
        };
        if let Some(ping @ Ping { handed: None, .. }) = &mut self.ping
            && self.taken >= ping.place + PING_BYTES
        {
            ping.handed = Some(now);
        }
    }

    /// Returns how many bytes up to a place may still be on their way to the client.
    pub(super) fn unconfirmed(&self, place: u64) -> u64 {
        place.saturating_sub(self.confirmed)
    }

    pub(super) fn pong_deadline(&self, limits: &Limits) -> Option<Instant> {
        let Ping { place, handed } = self.ping?;
        Some(handed? + limits.pong_timeout + limits.lag(self.unconfirmed(place)))
    }

    pub(super) fn deadline(&self, limits: &Limits) -> Instant {
        let ends = (self.last_message + limits.idle_timeout).min(self.opened + limits.max_lifetime);
        let stuck = self.stuck_since.map(|since| since + limits.outbox_age);
        [self.next_ping, self.pong_deadline(limits), stuck]
            .into_iter()
            .flatten()
            .fold(ends, Instant::min)
    }

    /// As [`Self::deadline`], of one that is slowed: what waits for a sign of it is paused.
    pub(super) fn slowed_deadline(&self, until: Instant, limits: &Limits) -> Instant {
        let stuck = self.stuck_since.map(|since| since + limits.outbox_age);
        stuck.into_iter().fold(until.min(self.opened + limits.max_lifetime), Instant::min)
    }

    pub(super) fn slowed_due(&self, now: Instant, limits: &Limits) -> Due {
        if self.opened + limits.max_lifetime <= now {
            return Due::Close(Close::MaxLifetime);
        }
        match self.stuck_since {
            Some(since) if since + limits.outbox_age <= now => Due::Close(Close::SlowConsumer),
            _ => Due::Nothing,
        }
    }

    pub(super) fn due(
        &mut self,
        now: Instant,
        limits: &Limits,
        reading: Reading,
        nothing_waits: bool,
    ) -> Due {
        if self.opened + limits.max_lifetime <= now {
            return Due::Close(Close::MaxLifetime);
        }
        if self.last_message + limits.idle_timeout <= now {
            return Due::Close(Close::Idle);
        }
        if self.stuck_since.is_some_and(|since| since + limits.outbox_age <= now) {
            return Due::Close(Close::SlowConsumer);
        }
        if self.pong_deadline(limits).is_some_and(|deadline| deadline <= now) {
            let handed = self.ping.and_then(|ping| ping.handed);
            if reading == Reading::OnEvent && handed.is_some_and(|handed| self.last_life < handed) {
                return Due::Close(Close::PingTimeout);
            }
            // It lives, or we would not have seen it: the next ping asks again.
            self.ping = None;
        }
        if self.next_ping.is_some_and(|at| at <= now) {
            if nothing_waits {
                return Due::Ping;
            }
            self.plan_ping(now, limits);
        }
        Due::Nothing
    }
}

/// Returns a ping's payload for its place: letters and digits, since clients for people show it. 48
/// bits of the place are enough for a terabyte a second for the longest life there is.
pub(super) fn payload_of(place: u64) -> [u8; 8] {
    let mut payload = [b'A'; 8];
    let [_, _, bytes @ ..] = place.to_be_bytes();
    let _written = URL_SAFE_NO_PAD.encode_slice(bytes, &mut payload).is_ok();
    payload
}

/// Returns the place that a pong confirms; `None` if its payload is not one of ours.
pub(super) fn place_of(payload: &[u8]) -> Option<u64> {
    let mut bytes = [0; 8];
    let length = URL_SAFE_NO_PAD.decode_slice(payload, bytes.get_mut(2..)?).ok()?;
    (length == 6 && payload.len() == 8).then(|| u64::from_be_bytes(bytes))
}
