//! Each clock by a clock of the test: when it starts, what restarts it, what pauses it; and clients
//! of all kinds against all.

use proptest::prelude::*;

use super::clocks::{PING_BYTES, payload_of, place_of};
use super::*;
use crate::config::{Config, Sources};
use crate::protocol::codec::{Violation, encode};

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(1);
const PING: usize = 10;

fn limits() -> Limits {
    let limits = Config::load(&Sources::default()).expect("valid").limits;
    // Pings that come when a test says.
    Limits { ping_interval: None, ..limits }
}

fn took(bytes: usize, all: bool) -> Written {
    Written { bytes, all }
}

/// Nothing waits, and everything is read.
fn due(clocks: &mut Clocks, now: Instant) -> Due {
    clocks.due(now, &limits(), Reading::OnEvent, true)
}

/// Nothing is due before a moment, and that is then.
fn becomes_due(clocks: &mut Clocks, at: Instant, what: &Due) {
    assert_eq!(clocks.deadline(&limits()), at);
    assert_eq!(due(clocks, at - TICK), Due::Nothing);
    assert_eq!(due(clocks, at), *what);
}

#[test]
fn the_longest_life_is_not_prolonged() {
    let began = Instant::now();
    let mut clocks = Clocks::new(began, &limits());
    let end = began + limits().max_lifetime;
    (clocks.last_message, clocks.last_life) = (end - SECOND, end - SECOND);
    becomes_due(&mut clocks, end, &Due::Close(Close::MaxLifetime));
}

#[test]
fn idleness_counts_from_the_last_byte_of_a_message_that_the_socket_had_no_room_for() {
    let began = Instant::now();
    let mut clocks = Clocks::new(began, &limits());
    let (stuck, moved) = (began + 500 * SECOND, began + 525 * SECOND);
    clocks.on_written(took(0, false), stuck);
    clocks.on_written(took(1, false), moved);
    clocks.on_written(took(10, true), moved + SECOND);
    becomes_due(&mut clocks, moved + SECOND + limits().idle_timeout, &Due::Close(Close::Idle));
}

#[test]
fn idleness_does_not_count_from_bytes_that_are_no_message() {
    let began = Instant::now();
    let mut clocks = Clocks::new(began, &limits());
    let ping = clocks.plan_pong(began + SECOND, &limits());
    clocks.on_written(took(PING, true), began + SECOND);
    assert_eq!(clocks.on_pong(&ping, began + 3 * SECOND), Some(2 * SECOND));
    becomes_due(&mut clocks, began + limits().idle_timeout, &Due::Close(Close::Idle));
}

#[test]
fn outboxes_age_from_the_last_byte_that_was_taken() {
    let began = Instant::now();
    let mut clocks = Clocks::new(began, &limits());
    clocks.on_written(took(100, false), began);
    for _ in 0..1_000 {
        // One byte, a second before the end, for four hours: slow, but not stuck.
        let now = clocks.deadline(&limits()) - SECOND;
        if now >= began + limits().max_lifetime - limits().outbox_age {
            break;
        }
        assert_eq!(due(&mut clocks, now), Due::Nothing);
        clocks.on_written(took(1, false), now);
        clocks.on_written(took(0, false), now + TICK);
        assert_eq!(clocks.deadline(&limits()), now + limits().outbox_age);
    }
    let end = clocks.deadline(&limits());
    becomes_due(&mut clocks, end, &Due::Close(Close::SlowConsumer));
}

#[test]
fn a_pong_is_waited_for_from_when_the_ping_was_handed_over() {
    let began = Instant::now();
    let mut clocks = Clocks::new(began, &limits());
    clocks.plan_pong(began, &limits());
    clocks.on_written(took(0, false), began);
    clocks.on_written(took(PING - 1, false), began + 20 * SECOND);
    assert_eq!(due(&mut clocks, began + 20 * SECOND + limits().pong_timeout), Due::Nothing);
    clocks.on_written(took(1, true), began + 40 * SECOND);
    let end = began + 40 * SECOND + limits().pong_timeout + limits().lag(0);
    assert_eq!(clocks.deadline(&limits()), end);
    assert_eq!(
        due(&mut clocks, end),
        Due::Nothing,
        "there was room in a full socket at the same moment"
    );
    clocks.plan_pong(began + 60 * SECOND, &limits());
    clocks.on_written(took(PING, true), began + 60 * SECOND);
    let end = began + 60 * SECOND + limits().pong_timeout + limits().lag(PING_BYTES);
    becomes_due(&mut clocks, end, &Due::Close(Close::PingTimeout));
}

#[test]
fn a_pong_has_the_time_that_what_is_in_front_of_its_ping_takes() {
    let began = Instant::now();
    let mut clocks = Clocks::new(began, &limits());
    // All in kernels and proxies; the outbox is empty.
    clocks.on_written(took(3 << 20, true), began);
    let ping = clocks.plan_pong(began, &limits());
    clocks.on_written(took(PING, true), began);
    let end = began + limits().pong_timeout + 3 * limits().outbox_age;
    assert!(clocks.deadline(&limits()) >= end);
    assert_eq!(clocks.on_pong(&ping, began + 80 * SECOND), Some(80 * SECOND));
    // That was all before the first ping; before the second there is little.
    clocks.on_written(took(35_000, true), began + 100 * SECOND);
    clocks.plan_pong(began + 100 * SECOND, &limits());
    clocks.on_written(took(PING, true), began + 100 * SECOND);
    let end = began + 100 * SECOND + limits().pong_timeout + limits().lag(35_000 + PING_BYTES);
    assert!(end < began + 112 * SECOND);
    becomes_due(&mut clocks, end, &Due::Close(Close::PingTimeout));
}

#[test]
fn any_sign_of_life_answers_a_ping_and_what_a_socket_has_room_for_is_none() {
    let began = Instant::now();
    for (is_life, sign) in [
        (true, (|clocks: &mut Clocks, now| clocks.last_life = now) as fn(&mut Clocks, Instant)),
        (true, |clocks, now| {
            clocks.on_written(took(0, false), now - SECOND);
            clocks.on_written(took(1, true), now);
        }),
        (false, |clocks, now| clocks.on_written(took(1, true), now)),
    ] {
        let mut clocks = Clocks::new(began, &limits());
        clocks.plan_pong(began + SECOND, &limits());
        clocks.on_written(took(PING, true), began + SECOND);
        sign(&mut clocks, began + 5 * SECOND);
        let end = clocks.deadline(&limits());
        let expected = if is_life { Due::Nothing } else { Due::Close(Close::PingTimeout) };
        becomes_due(&mut clocks, end, &expected);
    }
}

#[test]
fn a_pong_answers_its_ping_and_those_before_it_and_proves_no_more_than_was_sent() {
    let began = Instant::now();
    let mut clocks = Clocks::new(began, &limits());
    clocks.on_written(took(1_000, true), began);
    clocks.plan_pong(began, &limits());
    clocks.on_written(took(PING + 1_000, true), began);
    for stale in [&payload_of(999)[..], b"", b"unasked"] {
        assert_eq!(clocks.on_pong(stale, began + SECOND), None);
    }
    let second = clocks.plan_pong(began + SECOND, &limits());
    clocks.on_written(took(PING, true), began + SECOND);
    assert_eq!(clocks.on_pong(&second, began + 2 * SECOND), Some(2 * SECOND), "since the oldest");
    assert_eq!(clocks.confirmed, 2_000 + PING_BYTES);
    assert_eq!(clocks.on_pong(&payload_of(u64::MAX), began + 2 * SECOND), None);
    assert_eq!(clocks.confirmed, clocks.taken);
}

#[test]
fn no_pong_is_missed_while_the_client_is_not_read_from() {
    let began = Instant::now();
    for reading in [Reading::Held, Reading::Queued] {
        let mut clocks = Clocks::new(began, &limits());
        clocks.plan_pong(began + SECOND, &limits());
        clocks.on_written(took(PING, true), began + SECOND);
        let end = clocks.deadline(&limits());
        assert_eq!(clocks.due(end, &limits(), reading, true), Due::Nothing);
        assert!(clocks.deadline(&limits()) > end, "nothing is due again at once");
    }
}

#[test]
fn of_one_that_is_slowed_no_sign_is_waited_for() {
    let began = Instant::now();
    let limits = Limits { ping_interval: Some(SECOND), idle_timeout: 3 * SECOND, ..limits() };
    let mut clocks = Clocks::new(began, &limits);
    clocks.plan_pong(began + SECOND, &limits);
    clocks.on_written(took(PING, true), began + SECOND);
    let until = began + 60 * SECOND;
    assert_eq!(clocks.slowed_deadline(until, &limits), until, "not before it is read from again");
    assert_eq!(clocks.slowed_due(until, &limits), Due::Nothing);
    // What does not depend on what it says goes on.
    let end = began + limits.max_lifetime;
    assert_eq!(clocks.slowed_deadline(end + SECOND, &limits), end);
    assert_eq!(clocks.slowed_due(end, &limits), Due::Close(Close::MaxLifetime));
    clocks.on_written(took(0, false), began + 2 * SECOND);
    let stuck = began + 2 * SECOND + limits.outbox_age;
    assert_eq!(clocks.slowed_deadline(until, &limits), stuck);
    assert_eq!(clocks.slowed_due(stuck - TICK, &limits), Due::Nothing);
    assert_eq!(clocks.slowed_due(stuck, &limits), Due::Close(Close::SlowConsumer));
}

#[test]
fn no_ping_is_put_behind_others() {
    let began = Instant::now();
    let limits = Limits { ping_interval: Some(25 * SECOND), ..limits() };
    let mut clocks = Clocks::new(began, &limits);
    let at = clocks.deadline(&limits);
    assert_eq!(clocks.due(at, &limits, Reading::OnEvent, false), Due::Nothing);
    let at = clocks.deadline(&limits);
    assert!(at > began + 45 * SECOND, "it is left out");
    assert_eq!(clocks.due(at, &limits, Reading::OnEvent, true), Due::Ping);
}

/// A close frame behind `ahead` bytes; the socket was full.
fn closing(close: Close, now: Instant, ahead: usize) -> (Closing, Clocks) {
    let mut clocks = Clocks::new(now - 20 * SECOND, &limits());
    clocks.on_written(took(1 << 20, false), now - 20 * SECOND);
    (Closing::new(close, now, ahead), clocks)
}

#[test]
fn who_is_owed_something_has_the_outboxes_age_for_each_byte_of_it() {
    let began = Instant::now();
    let (closing, mut clocks) = closing(Close::Drain, began, 1 << 20);
    let age = limits().outbox_age;
    assert_eq!(
        closing.end(&clocks, &limits()),
        (began + age, Farewell::Stuck),
        "not from when it got stuck"
    );
    clocks.on_written(took(1, false), began + 20 * SECOND);
    assert_eq!(closing.end(&clocks, &limits()), (began + 20 * SECOND + age, Farewell::Stuck));
    // A byte now and then does not do for ever.
    clocks.on_written(took(1, false), began + 45 * SECOND);
    assert_eq!(closing.end(&clocks, &limits()), (began + 2 * age, Farewell::Stuck));
    assert_eq!(closing.due(&clocks, began + 2 * age - TICK, &limits()), Due::Nothing);
    assert_eq!(closing.due(&clocks, began + 2 * age, &limits()), Due::Cut(Farewell::Stuck));
}

#[test]
fn who_is_owed_nothing_has_the_close_timeout() {
    let began = Instant::now();
    let slow_client = Close::Client { code: 1000, reason: "".into() };
    for close in
        [Close::SlowConsumer, Close::PingTimeout, Close::Violation(Violation::TooBig), slow_client]
    {
        let (closing, clocks) = closing(close, began, 100);
        assert_eq!(
            closing.end(&clocks, &limits()),
            (began + limits().close_timeout, Farewell::Stuck)
        );
    }
}

#[test]
fn an_answer_is_waited_for_from_when_our_close_frame_was_handed_over() {
    let began = Instant::now();
    let (mut closing, mut clocks) = closing(Close::Deleted, began, 1_000);
    let handed = began + 9 * SECOND;
    clocks.on_written(took(1_000, true), handed);
    clocks.confirmed = 1 << 20;
    assert!(!closing.is_half_close_due(handed));
    let end = |closing: &Closing, clocks: &Clocks| closing.end(clocks, &limits());
    let timeout = limits().close_timeout;
    assert_eq!(end(&closing, &clocks), (handed + timeout + limits().lag(1_000), Farewell::Timeout));
    // Nobody can say it in the middle of a frame that is under way.
    let mut decoder = Decoder::default();
    assert!(closing.throw_away(
        &mut decoder,
        &[&[0x82, 0xFF], &[0; 5][..], &[0x10], &[0; 100_000]].concat(),
        handed
    ));
    clocks.last_life = handed + SECOND;
    assert_eq!(end(&closing, &clocks).0, handed + SECOND + timeout + limits().lag(1_000));
    clocks.last_life = handed + 10 * SECOND;
    let drip = handed + limits().lag(100_008);
    assert_eq!(end(&closing, &clocks).0, drip + timeout + limits().lag(1_000));
    // It has read all, but has nothing to say: the last ping that it answered was behind.
    clocks.confirmed = clocks.taken;
    assert_eq!(end(&closing, &clocks).0, drip + timeout);
}

#[test]
fn once_all_is_said_only_the_close_timeout_is_left() {
    let began = Instant::now();
    let (mut closing, mut clocks) = closing(Close::Drain, began, 1_000);
    let (handed, answered) = (began + SECOND, began + 20 * SECOND);
    clocks.on_written(took(1_000, true), handed);
    assert!(!closing.is_half_close_due(handed));
    let mut decoder = Decoder::default();
    assert!(closing.throw_away(
        &mut decoder,
        &encode(crate::protocol::codec::Opcode::Close, b""),
        answered
    ));
    clocks.last_life = answered + SECOND;
    assert_eq!(
        closing.end(&clocks, &limits()),
        (answered + limits().close_timeout, Farewell::Answered)
    );
}

#[test]
fn our_side_of_the_stream_is_shut_once_and_only_when_the_client_has_closed() {
    let now = Instant::now();
    let client_close = encode(crate::protocol::codec::Opcode::Close, &[0x03, 0xE8]);
    let mut decoder = Decoder::default();
    let mut closing = Closing::new(Close::Violation(Violation::TooBig), now, 10);
    assert!(!closing.is_half_close_due(now));
    assert!(closing.throw_away(&mut decoder, &client_close[..3], now));
    assert!(!closing.is_half_close_due(now) && closing.farewell() == Farewell::Gone);
    assert!(closing.throw_away(&mut decoder, &client_close[3..], now));
    assert!(closing.is_half_close_due(now) && closing.farewell() == Farewell::Answered);
    assert!(!closing.is_half_close_due(now));
    let mut answer = Closing::new(Close::ClientNoStatus, now, 10);
    assert!(answer.is_half_close_due(now), "the client was first");
    let mut ended = Closing::new(Close::Drain, now, 10);
    ended.on_end_of_stream(now);
    assert!(ended.is_half_close_due(now) && ended.farewell() == Farewell::Gone);
}

#[test]
fn what_is_thrown_away_is_bounded() {
    let mut decoder = Decoder::default();
    let now = Instant::now();
    let mut closing = Closing::new(Close::Violation(Violation::TooBig), now, 10);
    let chunk = vec![0; 1 << 20];
    for _ in 0..16 {
        assert!(closing.throw_away(&mut decoder, &chunk, now));
    }
    assert!(!closing.throw_away(&mut decoder, &[0], now));
}

/// A client behind a pipe (kernels and proxies), a tick after the other.
struct Client {
    now: Instant,
    clocks: Clocks,
    closing: Option<Closing>,
    limits: Limits,
    /// Bytes in the outbox.
    waiting: usize,
    pipe: usize,
    pipe_max: usize,
    read: u64,
    /// Places of pings among the bytes for the client.
    pings: Vec<u64>,
}

const STEP: Duration = Duration::from_millis(250);

impl Client {
    fn new(pipe_max: usize) -> Self {
        let now = Instant::now();
        let limits = Config::load(&Sources::default()).expect("valid").limits;
        let clocks = Clocks::new(now, &limits);
        Self {
            now,
            clocks,
            closing: None,
            limits,
            waiting: 0,
            pipe: 0,
            pipe_max,
            read: 0,
            pings: Vec::new(),
        }
    }

    fn queue(&mut self, bytes: usize) {
        self.waiting += bytes.min(self.limits.outbox_bytes - self.waiting);
    }

    fn close(&mut self, close: Close) {
        self.waiting += 4;
        self.closing = Some(Closing::new(close, self.now, self.waiting));
    }

    fn write(&mut self) {
        let bytes = self.waiting.min(self.pipe_max - self.pipe);
        self.waiting -= bytes;
        self.pipe += bytes;
        self.clocks.on_written(took(bytes, self.waiting == 0), self.now);
        if self.waiting == 0
            && let Some(closing) = &mut self.closing
        {
            closing.is_half_close_due(self.now);
        }
    }

    /// The client reads `bytes` bytes, the node writes and looks at its clocks; returns what the
    /// client is closed or cut for.
    fn step(&mut self, bytes: usize) -> Due {
        self.now += STEP;
        let bytes = bytes.min(self.pipe);
        self.pipe -= bytes;
        self.read += bytes as u64;
        if let Some(ping) =
            self.pings.first().copied().filter(|place| place + PING_BYTES <= self.read)
        {
            self.pings.remove(0);
            self.clocks.last_life = self.now;
            if self.closing.is_none() {
                let _round_trip = self.clocks.on_pong(&payload_of(ping), self.now);
            }
        }
        self.write();
        let due = match &self.closing {
            Some(closing) => closing.due(&self.clocks, self.now, &self.limits),
            None => self.clocks.due(self.now, &self.limits, Reading::OnEvent, self.waiting == 0),
        };
        if due == Due::Ping {
            let payload = self.clocks.plan_pong(self.now, &self.limits);
            self.waiting += PING;
            self.pings.extend(place_of(&payload));
            self.write();
            return Due::Nothing;
        }
        due
    }

    fn has_read_all(&self) -> bool {
        self.waiting + self.pipe == 0
    }
}

/// Bytes in a step that are just enough, by default.
const ENOUGH: usize = (1 << 20) / (30 * 4) + 1;

proptest! {
    #[test]
    fn who_makes_progress_is_never_cut_early(
        pipe in 2 * ENOUGH..4 << 20,
        rate in ENOUGH..20 * ENOUGH,
        messages in prop::collection::vec((0..1_200_usize, 0_usize..2 << 20), 0..12),
        close in prop_oneof![Just(Close::Drain), Just(Close::Deleted), Just(Close::MaxLifetime)],
    ) {
        let mut client = Client::new(pipe);
        for step in 0..1_200 {
            for (at, bytes) in &messages {
                if *at == step {
                    client.queue(*bytes);
                }
            }
            prop_assert_eq!(client.step(rate), Due::Nothing, "after {} steps", step);
        }
        client.close(close);
        while !client.has_read_all() {
            prop_assert_eq!(client.step(rate), Due::Nothing);
        }
    }

    #[test]
    fn who_makes_none_is_cut_in_time(
        pipe in 1_usize..4 << 20,
        waiting in 0_usize..2 << 20,
        rate in 1..4 * ENOUGH,
        alive in 0..400,
        close in prop_oneof![Just(Close::Drain), Just(Close::SlowConsumer), Just(Close::Violation(Violation::TooBig))],
    ) {
        let mut client = Client::new(pipe);
        client.queue(waiting);
        for _ in 0..alive {
            if client.step(rate) != Due::Nothing {
                return Ok(());
            }
        }
        let died = client.now;
        while client.step(0) == Due::Nothing {}
        // A ping was just answered, or is left out; the next one is lost.
        let limits = client.limits;
        let ping = limits.ping_interval.expect("the default") * 11 / 10;
        let longest = 2 * ping + limits.pong_timeout + 4 * limits.outbox_age + STEP;
        prop_assert!(client.now - died <= longest.max(limits.outbox_age + ping), "{:?}", client.now - died);
        let closed = client.now;
        client.close(close);
        while client.step(0) == Due::Nothing {}
        let longest = limits.outbox_age + limits.close_timeout + 4 * limits.outbox_age + 2 * STEP;
        prop_assert!(client.now - closed <= longest, "{:?}", client.now - closed);
    }
}
