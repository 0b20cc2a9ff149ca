//! The contract of back ends: every call is answered, within its bounds and its time.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::*;
use crate::model::call::{Answer, Body, CallReceipt, Occasion};
use crate::model::id::{NodeTag, RequestId};
use crate::model::registry::Record;
use crate::model::trail::Trail;
use crate::ops::lifecycle::Lifecycle;
use crate::ops::metrics::Metrics;

const LONG: Duration = Duration::from_secs(10);

/// Does what the route of a call says, once it may.
#[derive(Debug)]
struct Scripted {
    may_go: Semaphore,
    begun: AtomicUsize,
}

impl Target for Scripted {
    fn attributes(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn carry_out<'a>(
        &'a self,
        event: &'a Event,
        _: Instant,
    ) -> BoxFuture<'a, Result<Answer, Failure>> {
        Box::pin(async move {
            self.begun.fetch_add(1, Ordering::SeqCst);
            self.may_go.acquire().await.expect("open").forget();
            let failure = |error| Err(Failure { error, message: "as asked".to_owned() });
            match &*event.route {
                "panic" => panic!("as asked"),
                "failed" => failure(CallError::Failed),
                "unreachable" => failure(CallError::Unreachable),
                _ => Ok(Answer { status: 200, ..Answer::default() }),
            }
        })
    }
}

fn lane(in_flight: usize, calls: usize, timeout: Duration) -> (Arc<Lane>, Arc<Scripted>) {
    let target = Arc::new(Scripted { may_go: Semaphore::new(0), begun: AtomicUsize::new(0) });
    let bounds = Bounds { in_flight, calls, bytes: 1 << 20 };
    let metrics = Metrics::new().expect("metrics").backends.of("test");
    let back_end =
        BackEnd { name: TargetName("test".into()), target: target.clone(), bounds, timeout };
    let lane = Arc::new(Lane::new(back_end, metrics, Arc::default()));
    Lifecycle::new().spawn(Arc::clone(&lane).expire());
    (lane, target)
}

fn call(lane: &Arc<Lane>, route: &str) -> oneshot::Receiver<CallResult> {
    let record = Record {
        id: ConnectionId::mint(NodeTag::random()),
        source_ip: "127.0.0.1".parse().expect("an address"),
        user_agent: None,
        user: None,
        connected_at: Timestamp::now(),
    };
    let event = Event {
        route: route.into(),
        request: RequestId::mint(),
        record: Arc::new(record),
        at: Timestamp::now(),
        occasion: Occasion::Message { id: RequestId::mint(), body: Body::Text("hello".into()) },
        trail: Trail::begin(Timestamp::now()),
        trace: None,
        wants_reply: false,
        is_ordered: false,
    };
    let (told, answer) = oneshot::channel();
    let receipt = CallReceipt::new(move |result| told.send(result).expect("the test waits"));
    lane.call(Call { target: TargetName("test".into()), event, receipt });
    answer
}

async fn outcome(answer: oneshot::Receiver<CallResult>) -> Result<(), CallError> {
    timeout(LONG, answer).await.expect("in time").expect("answered").map(drop)
}

#[tokio::test]
async fn every_call_is_answered_also_if_its_task_panics() {
    let (lane, target) = lane(1, 10, LONG);
    target.may_go.add_permits(10);
    let answers = ["ok", "panic", "failed", "ok"].map(|route| call(&lane, route));
    let mut outcomes = Vec::new();
    for answer in answers {
        outcomes.push(outcome(answer).await);
    }
    assert_eq!(outcomes, [Ok(()), Err(CallError::Failed), Err(CallError::Failed), Ok(())]);
    timeout(LONG, lane.settled()).await.expect("nothing is left");
}

#[tokio::test]
async fn over_its_bounds_a_call_is_refused_at_once() {
    let (lane, target) = lane(2, 3, LONG);
    let answers: Vec<_> = (0..7).map(|_| call(&lane, "ok")).collect();
    let mut refused = 0;
    for mut answer in answers {
        match answer.try_recv() {
            Ok(result) => {
                assert_eq!(result, Err(CallError::Overload));
                refused += 1;
            }
            Err(_) => {
                target.may_go.add_permits(1);
                assert_eq!(outcome(answer).await, Ok(()));
            }
        }
    }
    assert_eq!((refused, target.begun.load(Ordering::SeqCst)), (2, 5));
}

#[tokio::test]
async fn time_runs_for_a_call_that_waits_as_for_one_under_way() {
    let (lane, target) = lane(1, 10, Duration::from_millis(100));
    let answers = ["ok", "ok"].map(|route| call(&lane, route));
    for answer in answers {
        assert_eq!(outcome(answer).await, Err(CallError::TimedOut));
    }
    // Whatever came first, the one whose time was up waiting has not begun, or just.
    assert!(target.begun.load(Ordering::SeqCst) <= 2);
    timeout(LONG, lane.settled()).await.expect("nothing is left");
    target.may_go.add_permits(1);
    assert_eq!(outcome(call(&lane, "ok")).await, Ok(()), "and the next has its turn");
}

#[tokio::test]
async fn a_back_end_that_is_down_fails_at_once() {
    let (lane, target) = lane(10, 100, LONG);
    target.may_go.add_permits(1_000);
    for _ in 0..100 {
        assert_eq!(outcome(call(&lane, "unreachable")).await, Err(CallError::Unreachable));
    }
    assert!(target.begun.load(Ordering::SeqCst) < 20, "the breaker has kept most of them away");
    let is_back = async {
        while outcome(call(&lane, "ok")).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, is_back).await.expect("it lets one through after its pause");
}
