//! What a pool does, without any process.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use bytes::Bytes;
use jiff::Timestamp;

use super::words::ASKS_AGAIN;
use super::*;
use crate::model::trail::Trail;

const SECOND: Duration = Duration::from_secs(1);

const RULES: Rules = Rules {
    min: 0,
    max: 2,
    concurrency: 1,
    timeout: Duration::from_secs(3),
    init: Duration::from_secs(10),
    idle: Duration::from_secs(300),
    leave: Duration::from_secs(2),
};

type Answered = oneshot::Receiver<Answer>;
type Asked = oneshot::Receiver<Run>;

fn job(deadline: Instant) -> (Job, Answered) {
    let (answer, answered) = oneshot::channel();
    (
        Job {
            request: RequestId::mint(),
            event: Bytes::from_static(b"{}"),
            deadline,
            trail: Trail::begin(Timestamp::now()),
            answer,
        },
        answered,
    )
}

fn take(pool: &mut Pool, now: Instant) -> Answered {
    let (job, answered) = job(now + 29 * SECOND);
    pool.take(job, now);
    answered
}

fn ask(pool: &mut Pool, id: ProcessId, now: Instant) -> Asked {
    let (poll, asked) = oneshot::channel();
    pool.ask(id, poll, now).expect("asked");
    asked
}

fn error(message: &str) -> InvokeError {
    InvokeError::Function { kind: "Runtime.ExitError".to_owned(), message: message.to_owned() }
}

fn outcome(answered: &mut Answered) -> FunctionOutcome {
    answered.try_recv().expect("an answer").expect_err("a failure").outcome
}

#[test]
fn what_waits_starts_processes_and_the_first_that_asks_gets_it() {
    let (mut pool, now) = (Pool::new(RULES), Instant::now());
    assert_eq!(pool.turn(now), []);
    assert_eq!(pool.wake(), None);
    let (mut first, mut second, _third) =
        (take(&mut pool, now), take(&mut pool, now), take(&mut pool, now));
    assert!(pool.is_due());
    assert_eq!(pool.turn(now), [Action::Start(1), Action::Start(2)], "no more than there may be");
    let run = ask(&mut pool, 2, now).try_recv().expect("a run");
    assert_eq!(run.until, now + RULES.timeout);
    assert!(pool.answer(2, run.id, Ok(Bytes::from_static(b"1")), now));
    assert_eq!(first.try_recv().expect("an answer"), Ok(Bytes::from_static(b"1")));
    assert!(!pool.answer(2, run.id, Ok(Bytes::new()), now), "once");
    assert!(second.try_recv().is_err(), "still waits");
    let run = ask(&mut pool, 2, now).try_recv().expect("the next");
    assert!(!pool.answer(1, run.id, Ok(Bytes::new()), now), "of another process");
}

#[test]
fn whoever_has_just_answered_is_expected_to_ask_again() {
    let (mut pool, now) = (Pool::new(RULES), Instant::now());
    let _one = take(&mut pool, now);
    pool.turn(now);
    let run = ask(&mut pool, 1, now).try_recv().expect("a run");
    pool.answer(1, run.id, Ok(Bytes::new()), now);
    let _other = take(&mut pool, now);
    assert_eq!(pool.turn(now), []);
    assert_eq!(pool.wake(), Some(now + ASKS_AGAIN));
    assert_eq!(pool.turn(now + ASKS_AGAIN), [Action::Start(2)]);
}

#[test]
fn a_process_has_as_many_runs_as_it_may_however_often_it_asks() {
    let mut pool = Pool::new(Rules { max: 1, concurrency: 2, ..RULES });
    let now = Instant::now();
    let _waiting = [take(&mut pool, now), take(&mut pool, now), take(&mut pool, now)];
    assert_eq!(pool.turn(now), [Action::Start(1)]);
    let mut asked = [ask(&mut pool, 1, now), ask(&mut pool, 1, now), ask(&mut pool, 1, now)];
    let [one, _, three] = &mut asked;
    let run = one.try_recv().expect("a run");
    assert!(three.try_recv().is_err(), "has two");
    pool.answer(1, run.id, Ok(Bytes::new()), now);
    assert!(three.try_recv().is_ok(), "has one");
}

#[test]
fn who_no_longer_asks_is_passed_over_and_what_was_not_taken_is_handed_out_again() {
    let (mut pool, now) = (Pool::new(RULES), Instant::now());
    let mut answered = take(&mut pool, now);
    pool.turn(now);
    let taken = ask(&mut pool, 1, now).try_recv().expect("a run");
    let gone = ask(&mut pool, 1, now);
    let mut there = ask(&mut pool, 1, now);
    drop(gone);
    pool.take_back(1, taken.id, now);
    let run = there.try_recv().expect("a run");
    assert!(run.id != taken.id && !pool.answer(1, taken.id, Ok(Bytes::new()), now));
    assert!(answered.try_recv().is_err() && pool.answer(1, run.id, Ok(Bytes::new()), now));
    assert!(answered.try_recv().is_ok());
}

#[test]
fn a_run_that_takes_too_long_is_answered_and_its_process_killed() {
    let (mut pool, now) = (Pool::new(RULES), Instant::now());
    let mut answered = take(&mut pool, now);
    pool.turn(now);
    let _run = ask(&mut pool, 1, now);
    pool.turn(now);
    assert_eq!(pool.wake(), Some(now + 3 * SECOND));
    assert_eq!(pool.turn(now + 3 * SECOND), [Action::Kill(1)]);
    let failure = answered.try_recv().expect("an answer").expect_err("a failure");
    assert_eq!(failure.outcome, FunctionOutcome::Timeout);
    assert_eq!(failure.error.to_string(), "Sandbox.Timedout: Task timed out after 3.00 seconds");
    assert_eq!(pool.exited(1, error("signal 9"), now), Some(FunctionEnd::Timeout));
    assert_eq!(pool.turn(now + 3 * SECOND), []);
    assert_eq!(pool.backoff().pause(), None);
}

#[test]
fn callers_are_told_at_once_while_nothing_can_be_started_and_pauses_grow() {
    let (mut pool, mut now) = (Pool::new(RULES), Instant::now());
    let mut pauses = Vec::new();
    for id in 1..9 {
        let mut waiting = [take(&mut pool, now), take(&mut pool, now)];
        let expected: &[_] =
            if id == 1 { &[Action::Start(1), Action::Start(2)] } else { &[Action::Start(id + 1)] };
        assert_eq!(pool.turn(now), expected, "one at a time once one has failed");
        if id == 1 {
            assert_eq!(pool.exited(2, error("2"), now), Some(FunctionEnd::Init));
            pool.cannot_start(1, error("1"), now).expect("starting");
            assert_eq!(pool.cannot_start(1, error("1"), now), Err(Misplaced));
            assert_eq!(pool.exited(1, error("1"), now), Some(FunctionEnd::Init));
        } else {
            assert_eq!(pool.exited(id + 1, error("more"), now), Some(FunctionEnd::Init));
        }
        assert!(waiting.iter_mut().all(|waiting| outcome(waiting) == FunctionOutcome::Init));
        assert_eq!(outcome(&mut take(&mut pool, now)), FunctionOutcome::Init);
        assert_eq!(pool.turn(now), []);
        let until = pool.wake().expect("a pause");
        pauses.push((until - now).as_secs_f64());
        now = until;
    }
    let expected = [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0];
    let is_near = |(pause, expected): (&f64, f64)| (pause / expected - 1.0).abs() <= 0.11;
    assert!(pauses.iter().zip(expected).all(is_near), "{pauses:?}");
    let _waiting = take(&mut pool, now);
    assert_eq!(pool.turn(now), [Action::Start(10)]);
    assert!(ask(&mut pool, 10, now).try_recv().is_ok());
    assert_eq!((pool.backoff().failures(), pool.backoff().pause()), (0, None));
}

#[test]
fn others_work_on_where_one_cannot_start() {
    let (mut pool, now) = (Pool::new(RULES), Instant::now());
    let (_one, mut other) = (take(&mut pool, now), take(&mut pool, now));
    pool.turn(now);
    let run = ask(&mut pool, 1, now).try_recv().expect("a run");
    pool.exited(2, error("2"), now);
    assert!(other.try_recv().is_err(), "waits for the first process");
    pool.answer(1, run.id, Ok(Bytes::new()), now);
    assert!(ask(&mut pool, 1, now).try_recv().is_ok());
}

#[test]
fn a_process_that_never_asks_is_killed_and_one_that_asks_and_goes_is_not_started_again_at_once() {
    let mut pool = Pool::new(Rules { min: 1, ..RULES });
    let now = Instant::now();
    assert_eq!(pool.turn(now), [Action::Start(1)]);
    assert_eq!(pool.wake(), Some(now + RULES.init));
    let mut waiting = take(&mut pool, now + RULES.init);
    assert_eq!(pool.turn(now + RULES.init), [Action::Kill(1)]);
    assert_eq!(outcome(&mut waiting), FunctionOutcome::Init);
    assert_eq!(pool.exited(1, error("signal 9"), now), Some(FunctionEnd::Init));
    let later = pool.wake().expect("the end of the pause");
    assert_eq!(pool.turn(later), [Action::Start(2)]);
    let _asked = ask(&mut pool, 2, later);
    assert_eq!(pool.exited(2, error("exit status 0"), later), Some(FunctionEnd::Exit));
    assert_eq!(pool.turn(later), []);
    assert!(pool.wake().is_some_and(|wake| wake > later));
}

#[test]
fn the_idle_are_stopped_down_to_the_least() {
    let mut pool = Pool::new(Rules { min: 1, max: 3, ..RULES });
    let now = Instant::now();
    let _waiting = [take(&mut pool, now), take(&mut pool, now), take(&mut pool, now)];
    assert_eq!(pool.turn(now).len(), 3);
    for id in 1..4 {
        let run = ask(&mut pool, id, now).try_recv().expect("a run");
        pool.answer(id, run.id, Ok(Bytes::new()), now);
    }
    let mut polls = [1, 2, 3].map(|id| ask(&mut pool, id, now));
    pool.turn(now);
    assert_eq!(pool.wake(), Some(now + RULES.idle));
    assert_eq!(pool.turn(now + RULES.idle), [Action::Stop(1), Action::Stop(2)]);
    assert_eq!(pool.wake(), None);
    assert!(polls[0].try_recv().is_err() && polls[2].try_recv().is_err());
    assert_eq!(pool.ask(1, oneshot::channel().0, now), Err(Misplaced));
    assert_eq!(pool.exited(1, error("signal 15"), now), Some(FunctionEnd::Idle));
    let last = now + RULES.idle;
    let _more = take(&mut pool, last);
    assert!(polls[2].try_recv().is_ok(), "the one that is left");
}

#[test]
fn at_the_end_nothing_is_taken_and_what_is_under_way_goes_on() {
    let (mut pool, now) = (Pool::new(RULES), Instant::now());
    let (mut one, mut waiting) = (take(&mut pool, now), take(&mut pool, now));
    pool.turn(now);
    let run = ask(&mut pool, 1, now).try_recv().expect("a run");
    pool.end();
    assert_eq!(outcome(&mut take(&mut pool, now)), FunctionOutcome::Ending);
    pool.answer(1, run.id, Ok(Bytes::new()), now);
    assert!(one.try_recv().is_ok_and(|answer| answer.is_ok()) && !pool.is_quiet());
    pool.give_up();
    assert_eq!(outcome(&mut waiting), FunctionOutcome::Ending);
    assert!(pool.is_quiet());
}

#[derive(Clone, Debug)]
enum Step {
    Take,
    Ask(usize),
    Answer(usize),
    Fail(usize),
    Exit(usize),
    Leave(usize),
    Wait(u64),
    Turn,
    Renew,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Take),
        4 => (0_usize..8).prop_map(Step::Ask),
        3 => (0_usize..8).prop_map(Step::Answer),
        1 => (0_usize..8).prop_map(Step::Fail),
        1 => (0_usize..8).prop_map(Step::Exit),
        1 => (0_usize..8).prop_map(Step::Leave),
        2 => (0_u64..4_000).prop_map(Step::Wait),
        4 => Just(Step::Turn),
        1 => Just(Step::Renew),
    ]
}

/// A pool, and what is outside of it.
struct World {
    pool: Pool,
    now: Instant,
    callers: Vec<Answered>,
    polls: Vec<(ProcessId, Asked)>,
    runs: BTreeMap<Uuid, ProcessId>,
}

impl World {
    fn take_step(&mut self, step: &Step) {
        let alive: Vec<_> = self.pool.processes.keys().copied().collect();
        let pick = |at: &usize| alive.get(at % alive.len().max(1)).copied();
        match step {
            Step::Renew => self.pool.renew(),
            Step::Take => self.callers.push(take(&mut self.pool, self.now)),
            Step::Ask(at) => {
                let (poll, asked) = oneshot::channel();
                if let Some(id) = pick(at).filter(|id| self.pool.ask(*id, poll, self.now).is_ok()) {
                    self.polls.push((id, asked));
                }
            }
            Step::Answer(at) => {
                let run = self.runs.keys().nth(at % self.runs.len().max(1)).copied();
                if let Some((run, id)) = run.and_then(|run| self.runs.remove_entry(&run)) {
                    self.pool.answer(id, run, Ok(Bytes::new()), self.now);
                }
            }
            Step::Fail(at) => {
                _ = pick(at).map(|id| self.pool.cannot_start(id, error("no"), self.now));
            }
            Step::Exit(at) => {
                if let Some(id) = pick(at) {
                    self.pool.exited(id, error("gone"), self.now);
                    self.polls.retain(|(of, _)| *of != id);
                    self.runs.retain(|_, of| *of != id);
                }
            }
            Step::Leave(at) if !self.polls.is_empty() => {
                let (id, mut poll) = self.polls.swap_remove(at % self.polls.len());
                poll.close();
                if let Ok(run) = poll.try_recv() {
                    self.pool.take_back(id, run.id, self.now);
                }
            }
            Step::Leave(_) => {}
            Step::Wait(milliseconds) => self.now += Duration::from_millis(*milliseconds),
            Step::Turn => _ = self.pool.turn(self.now),
        }
        self.polls.retain_mut(|(id, poll)| match poll.try_recv() {
            Ok(run) => self.runs.insert(run.id, *id).is_some(),
            Err(oneshot::error::TryRecvError::Empty) => true,
            Err(oneshot::error::TryRecvError::Closed) => false,
        });
    }
}

proptest! {
    #[test]
    fn bounds_hold_and_every_caller_is_answered(
        steps in prop::collection::vec(step(), 0..200), min in 0_usize..3, concurrency in 1_usize..4, idle in 1_u64..5,
    ) {
        let pool = Pool::new(Rules { min, max: 3, concurrency, idle: Duration::from_secs(idle), ..RULES });
        let mut world =
            World { pool, now: Instant::now(), callers: Vec::new(), polls: Vec::new(), runs: BTreeMap::new() };
        for step in &steps {
            world.take_step(step);
            let pool = &mut world.pool;
            prop_assert!(pool.processes.len() <= 3);
            prop_assert!(pool.processes.values().all(|process| process.running.len() <= concurrency));
            let is_open = pool.processes.values_mut().any(|process| process.is_open(concurrency));
            prop_assert!(pool.waiting.is_empty() || !is_open, "waits beside one that asks");
            let needed = pool.next_wake(world.now);
            let is_in_time = needed.is_none_or(|needed| pool.wake.is_some_and(|wake| wake <= needed));
            prop_assert!(pool.is_due() || is_in_time, "{:?} is late for {needed:?}", pool.wake);
        }
        let World { pool, now, callers, .. } = &mut world;
        pool.turn(*now);
        prop_assert!(pool.wake.is_none_or(|wake| wake >= *now));
        pool.give_up();
        let ids: Vec<_> = pool.processes.keys().copied().collect();
        ids.into_iter().for_each(|id| _ = pool.exited(id, error("gone"), *now));
        prop_assert!(callers.iter_mut().all(|caller| caller.try_recv().is_ok()), "each, once");
        prop_assert!(pool.is_quiet());
    }
}
