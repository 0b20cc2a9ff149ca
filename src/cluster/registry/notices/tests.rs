//! Back ends are told of every end, once, or it is counted.

use std::collections::HashMap;

use futures_util::future::BoxFuture;
use tokio::time::timeout;

use super::*;
use crate::config::{Config, Sources};
use crate::model::broker::Channel;
use crate::model::call::Call;
use crate::model::id::NodeTag;
use crate::model::registry::{Lease, Unavailable};
use crate::ops::lifecycle::Lifecycle;

const LONG: Duration = Duration::from_secs(10);

const CONFIG: &str = "[targets.app]
url = \"http://127.0.0.1:1\"
[routes.\"$disconnect\"]
integration = \"http\"
target = \"app\"
";

/// Answers each call of a connection with what is next in its script; at the end of it with
/// nothing, until the test does.
#[derive(Debug, Default)]
struct Script {
    results: Vec<CallError>,
    calls: Mutex<HashMap<ConnectionId, Vec<String>>>,
}

impl Backends for Script {
    fn call(&self, call: Call) {
        let tries = {
            let mut calls = self.calls.lock();
            let of_connection = calls.entry(call.event.record.id).or_default();
            of_connection.push(call.event.request.to_string());
            of_connection.len()
        };
        match self.results.get(tries - 1) {
            Some(error) => call.receipt.answer(Err(*error)),
            None => call.receipt.answer(Ok(crate::model::call::Answer::default())),
        }
    }
}

#[derive(Debug, Default)]
struct Removed(Mutex<Vec<ConnectionId>>);

impl Registry for Removed {
    fn insert(&self, _: Arc<Record>) -> BoxFuture<'_, Result<(), Unavailable>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn end(&self, _: &ConnectionId) {}

    fn remove(&self, id: &ConnectionId, _: Option<Channel>) {
        self.0.lock().push(*id);
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn others(&self) -> BoxFuture<'_, Result<Vec<Lease>, Unavailable>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn get(&self, _: &ConnectionId) -> Option<Arc<Record>> {
        None
    }
}

struct Bench {
    notices: Arc<Notices>,
    script: Arc<Script>,
    removed: Arc<Removed>,
    metrics: Arc<Metrics>,
    snapshot: Arc<Snapshot>,
    tag: NodeTag,
}

fn bench(results: &[CallError]) -> Bench {
    let file = Some(("test.toml".to_owned(), CONFIG.to_owned()));
    let config = Config::load(&Sources { file, ..Sources::default() }).expect("valid settings");
    let telemetry = Telemetry::without_spans().expect("metrics");
    let (tag, metrics) = (NodeTag::random(), Arc::clone(&telemetry.metrics));
    let snapshot = Arc::new(Snapshot::new(&config, tag, &metrics));
    let script = Arc::new(Script { results: results.to_vec(), ..Script::default() });
    let removed = Arc::new(Removed::default());
    let mut notices = Notices::new(script.clone(), removed.clone(), &telemetry);
    notices.pauses = [Duration::from_millis(1); TRIES - 1];
    let notices = Arc::new(notices);
    Lifecycle::new().spawn(Arc::clone(&notices).run());
    Bench { notices, script, removed, metrics, snapshot, tag }
}

impl Bench {
    fn record(&self) -> Arc<Record> {
        Arc::new(Record {
            id: ConnectionId::mint(self.tag),
            source_ip: "127.0.0.1".parse().expect("an address"),
            user_agent: None,
            user: None,
            connected_at: Timestamp::now(),
        })
    }

    fn given_up(&self) -> u64 {
        self.metrics.disconnects_given_up.with_label_values(&[GivenUp::BackEnd.label()]).get()
    }
}

#[tokio::test]
async fn what_does_not_arrive_is_tried_again_under_the_same_request_id() {
    let bench = bench(&[CallError::Unreachable, CallError::TimedOut, CallError::Overload]);
    let records: Vec<_> = (0..1_000).map(|_| bench.record()).collect();
    for record in &records {
        bench.notices.begin(record, &Close::Lost, Arc::clone(&bench.snapshot));
    }
    timeout(LONG, bench.notices.settled()).await.expect("all are over");
    let calls = bench.script.calls.lock();
    for record in &records {
        let requests = &calls[&record.id];
        assert_eq!(requests.len(), 4);
        assert!(requests.iter().all(|request| *request == requests[0]));
    }
    let mut removed = bench.removed.0.lock().iter().map(ToString::to_string).collect::<Vec<_>>();
    removed.sort();
    removed.dedup();
    assert_eq!((removed.len(), bench.given_up()), (1_000, 0));
    assert_eq!(bench.metrics.disconnects_retried.get(), 3_000);
}

#[tokio::test]
async fn an_error_of_the_back_end_is_the_end() {
    let bench = bench(&[CallError::Failed]);
    let record = bench.record();
    bench.notices.begin(&record, &Close::Lost, Arc::clone(&bench.snapshot));
    timeout(LONG, bench.notices.settled()).await.expect("over");
    assert_eq!(bench.script.calls.lock()[&record.id].len(), 1);
}

#[tokio::test]
async fn after_five_tries_it_is_given_up_and_the_record_goes() {
    let bench = bench(&[CallError::Unreachable; 50]);
    let record = bench.record();
    bench.notices.begin(&record, &Close::Lost, Arc::clone(&bench.snapshot));
    timeout(LONG, bench.notices.settled()).await.expect("over");
    assert_eq!(bench.script.calls.lock()[&record.id].len(), TRIES);
    assert_eq!((bench.given_up(), bench.removed.0.lock().len()), (1, 1));
}

#[tokio::test]
async fn a_reaper_is_told_once_what_is_over_and_asks_nobody_twice() {
    let bench = bench(&[CallError::Unreachable]);
    let records: Vec<_> = (0..100).map(|_| bench.record()).collect();
    let mut left = records;
    let all_over = async {
        while !left.is_empty() {
            let over = bench.notices.end_lost(left.clone(), &bench.snapshot).await;
            left.retain(|record| !over.contains(&record.id));
        }
    };
    timeout(LONG, all_over).await.expect("all are over");
    assert!(bench.script.calls.lock().values().all(|requests| requests.len() == 2));
    assert!(bench.removed.0.lock().is_empty(), "the reaper does that");
    assert!(bench.notices.state.lock().notices.is_empty());
}
