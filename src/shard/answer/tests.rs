//! Requests of one client against a broker that confirms late, never, or not at all: each is
//! answered once, in its order.

use std::collections::{BTreeSet, HashMap};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use mio::Events;
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::*;
use crate::config::{Config, Snapshot, Sources};
use crate::limits::budget::Budget;
use crate::limits::ticket::fake::ticket;
use crate::model::broker::{Broker, History, Offset, Publication, Standing};
use crate::model::call;
use crate::model::id::{ConnectionId, NodeTag};
use crate::ops::telemetry::Telemetry;
use crate::protocol::close::Close;
use crate::shard::hub::Hub;
use crate::shard::inbox::{Event, JoinOutcome};
use crate::shard::socket::NewSocket;
use crate::shard::{EventLoop, Parts};

/// Small enough that a property test fills it.
const CONFIG: &str =
    "[limits]\nmessage_bytes = 32_768\nframe_bytes = 32_768\noutbox_bytes = 65_536\n";

/// Confirms when a test says so.
#[derive(Debug, Default)]
struct Slow {
    waits: Mutex<(u64, HashMap<Channel, Wait>)>,
}

impl Broker for Slow {
    fn publish(&self, publications: &mut Vec<Publication>) {
        publications.clear();
    }

    fn subscribe(&self, _: usize, channel: &Channel) -> Standing {
        let (count, waits) = &mut *self.waits.lock();
        *count += 1;
        waits.insert(channel.clone(), Wait(*count));
        Standing::Pending(Wait(*count))
    }

    fn has_begun(&self) -> bool {
        true
    }

    fn history(
        &self,
        _: &Channel,
        _: Offset,
        _: usize,
    ) -> BoxFuture<'_, Result<Option<History>, PublishError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn unsubscribe(&self, _: usize, channel: &Channel) {
        assert!(self.waits.lock().1.remove(channel).is_some(), "it was subscribed to");
    }
}

struct Bench {
    shard: Shard,
    broker: Arc<Slow>,
    id: ConnectionId,
    client: UnixStream,
    calls: Vec<oneshot::Receiver<JoinOutcome>>,
}

impl Bench {
    fn new() -> Self {
        let file = Some(("test.toml".to_owned(), CONFIG.to_owned()));
        let config = Config::load(&Sources { file, ..Sources::default() }).expect("valid settings");
        let (tag, telemetry) = (NodeTag::random(), Telemetry::without_spans().expect("metrics"));
        let metrics = Arc::clone(&telemetry.metrics);
        let budget = Arc::new(Budget::new(1 << 32, 1));
        let event_loop = EventLoop::open(&budget, 0, 1).expect("an event loop");
        let hub = Arc::new(Hub::new(vec![event_loop.inbox()], Arc::clone(&metrics), budget));
        let broker = Arc::new(Slow::default());
        let snapshot = Arc::new(Snapshot::new(&config, tag, &metrics));
        let ticket = ticket(tag, &metrics);
        let id = ticket.record().id;
        let parts = Parts {
            hub,
            broker: Arc::<Slow>::clone(&broker),
            backends: Arc::new(call::fake::Nobody),
            telemetry,
            names: Arc::default(),
        };
        let mut shard = Shard::new(0, event_loop, parts, snapshot);
        let (client, served) = UnixStream::pair().expect("a pair of sockets");
        for socket in [&client, &served] {
            socket.set_nonblocking(true).expect("a socket");
        }
        shard.expect(ticket, None);
        shard.attach(&id, NewSocket { stream: OwnedFd::from(served).into(), early: Bytes::new() });
        Self { shard, broker, id, client, calls: Vec::new() }
    }

    fn key(&self) -> usize {
        self.shard.by_id[&self.id]
    }

    /// One read brings all of these.
    fn send(&mut self, texts: &[String]) {
        let frames = texts.iter().map(|text| {
            let length = u8::try_from(text.len()).expect("short");
            // Masked with nothing.
            [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
        });
        let mut input = frames.collect::<Vec<_>>().concat();
        let key = self.key();
        self.shard.on_bytes(key, &mut input);
        self.turn();
    }

    fn turn(&mut self) {
        self.shard.turn(&Events::with_capacity(1), &mut Vec::new());
    }

    fn call(&mut self, event: impl FnOnce(oneshot::Sender<JoinOutcome>) -> Event) {
        let (done, outcome) = oneshot::channel();
        self.shard.inbox.push(event(done));
        self.calls.push(outcome);
        self.turn();
    }

    /// The broker says what became of a subscription, if it is asked for one.
    fn confirm(&mut self, group: u8, result: Result<(), PublishError>) {
        let channel = channel(group);
        let wait = self.broker.waits.lock().1.get(&channel).copied();
        if let Some(wait) = wait {
            self.shard.inbox.push(Event::Subscribed { channel, wait, result });
            self.turn();
        }
    }

    /// Takes a step; notes what the client has asked, and of which groups it is to be a member.
    fn take(&mut self, step: Step, asked: &mut Vec<Request>, members: &mut BTreeSet<u8>) {
        match step {
            Step::Read(requests) => {
                for request in &requests {
                    match request {
                        Request::Join(group) => drop(members.insert(*group)),
                        Request::Leave(group) => drop(members.remove(group)),
                        _ => {}
                    }
                }
                let texts: Vec<_> = requests.iter().map(|request| request.text()).collect();
                asked.extend(requests);
                self.send(&texts);
            }
            Step::Confirm(group) => self.confirm(group, Ok(())),
            Step::Fail(group) => {
                if self.shard.joining.contains_key(&channel(group)) {
                    members.remove(&group);
                }
                self.confirm(group, Err(PublishError::Unavailable));
            }
            Step::Put(group) => {
                members.insert(group);
                let id = self.id;
                self.call(|done| Event::Join { id, group: group.to_string().into(), done });
            }
            Step::Delete(group) => {
                members.remove(&group);
                let (done, mut left) = oneshot::channel();
                self.shard.inbox.push(Event::Leave {
                    id: self.id,
                    group: group.to_string().into(),
                    done,
                });
                self.turn();
                assert_eq!(left.try_recv(), Ok(()));
            }
        }
    }

    /// Everything that the client has got, frame by frame; a close frame is its code.
    fn answers(&mut self) -> Vec<String> {
        self.turn();
        let (mut bytes, mut buffer) = (Vec::new(), [0; 1 << 16]);
        while let Ok(count @ 1..) = self.client.read(&mut buffer) {
            bytes.extend_from_slice(&buffer[..count]);
            self.shard.write(self.key());
        }
        let (mut rest, mut frames) = (&bytes[..], Vec::new());
        while let [first, length, tail @ ..] = rest {
            let (length, tail) = match length {
                126 => (usize::from(u16::from_be_bytes([tail[0], tail[1]])), &tail[2..]),
                short => (usize::from(*short), tail),
            };
            let (payload, next) = tail.split_at(length);
            frames.push(match first {
                0x81 => String::from_utf8(payload.to_vec()).expect("text"),
                0x88 => format!("close {}", u16::from_be_bytes([payload[0], payload[1]])),
                other => panic!("opcode {other:x}"),
            });
            rest = next;
        }
        frames
    }
}

fn channel(group: u8) -> Channel {
    Channel::Group(group.to_string().into())
}

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
enum Request {
    Join(u8),
    Leave(u8),
    Send(u8),
    Nonsense,
    Quit,
}

impl Request {
    fn text(self) -> String {
        match self {
            Self::Join(group) => format!(r#"{{"action":"joinGroup","group":"{group}"}}"#),
            Self::Leave(group) => format!(r#"{{"action":"leaveGroup","group":"{group}"}}"#),
            Self::Send(group) => {
                format!(r#"{{"action":"sendToGroup","group":"{group}","data":"x"}}"#)
            }
            Self::Nonsense => r#"{"action":"no such action"}"#.to_owned(),
            Self::Quit => r#"{"action":"disconnect"}"#.to_owned(),
        }
    }

    /// Returns whether it is answered at all, and so.
    fn is_answered_by(self, answer: Option<&String>) -> Option<bool> {
        let is = |text: &str| answer.is_some_and(|answer| answer.contains(text));
        match self {
            Self::Join(group) => Some(
                answer == Some(&format!("joined {group}"))
                    || is("Internal server error")
                    || is("Limit exceeded"),
            ),
            Self::Leave(group) => Some(answer == Some(&format!("left {group}"))),
            Self::Send(_) => None,
            Self::Nonsense => Some(is("Forbidden")),
            Self::Quit => Some(is("bye!")),
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// In one read.
    Read(Vec<Request>),
    Confirm(u8),
    Fail(u8),
    /// A caller of the management API, for the same connection.
    Put(u8),
    Delete(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let request = prop_oneof![
        8 => (0..3_u8).prop_map(Request::Join),
        6 => (0..3_u8).prop_map(Request::Leave),
        2 => (0..3_u8).prop_map(Request::Send),
        2 => Just(Request::Nonsense),
    ];
    let step = prop_oneof![
        4 => prop::collection::vec(request, 1..12).prop_map(Step::Read),
        3 => (0..3_u8).prop_map(Step::Confirm),
        1 => (0..3_u8).prop_map(Step::Fail),
        1 => (0..3_u8).prop_map(Step::Put),
        1 => (0..3_u8).prop_map(Step::Delete),
    ];
    prop::collection::vec(step, 1..20)
}

/// How it ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The broker confirms everything.
    Confirmed,
    /// It has nothing to say, and the client is closed.
    Closed,
    /// The client asks for that itself, behind everything else.
    Quit,
    /// The client is gone.
    Gone,
}

proptest! {
    #[test]
    fn every_request_is_answered_once_and_in_its_order(
        steps in steps(),
        end in prop_oneof![Just(End::Confirmed), Just(End::Closed), Just(End::Quit), Just(End::Gone)],
    ) {
        let mut bench = Bench::new();
        let (mut asked, mut members) = (Vec::new(), BTreeSet::new());
        steps.into_iter().for_each(|step| bench.take(step, &mut asked, &mut members));
        for group in 0..3 {
            prop_assert_eq!(bench.shard.members.is_member(&channel(group), bench.key()), members.contains(&group));
        }
        match end {
            End::Confirmed => (0..3).for_each(|group| bench.confirm(group, Ok(()))),
            End::Closed => {
                let key = bench.key();
                bench.shard.close(key, Close::Drain);
            }
            End::Quit => {
                bench.send(&[Request::Quit.text()]);
                asked.push(Request::Quit);
            }
            End::Gone => {
                let key = bench.key();
                bench.shard.remove(key);
                prop_assert!(bench.shard.joining.is_empty());
            }
        }
        if !matches!(end, End::Gone) {
            let answers = bench.answers();
            let mut coming = answers.iter();
            for request in &asked {
                if request.is_answered_by(None).is_some() {
                    let answer = coming.next();
                    prop_assert_eq!(request.is_answered_by(answer), Some(true), "{:?} of {:?}: {:?}", request, asked, answers);
                }
            }
            let rest: Vec<_> = coming.collect();
            match end {
                End::Closed => prop_assert_eq!(rest, ["close 1001"]),
                End::Quit => prop_assert_eq!(rest, ["close 1000"]),
                _ => prop_assert_eq!(rest, [""; 0]),
            }
            prop_assert_eq!(bench.shard.connections[bench.key()].answers.load(), Default::default());
        }
        for call in &mut bench.calls {
            prop_assert_ne!(call.try_recv(), Err(TryRecvError::Empty), "a caller is told too");
        }
    }
}

#[test]
fn a_subscription_that_has_ended_confirms_nothing() {
    let mut bench = Bench::new();
    bench.send(&[Request::Join(0).text()]);
    let first = bench.broker.waits.lock().1[&channel(0)];
    bench.send(&[Request::Leave(0).text(), Request::Join(0).text()]);
    for result in [Ok(()), Err(PublishError::Unavailable)] {
        bench.shard.inbox.push(Event::Subscribed { channel: channel(0), wait: first, result });
        assert!(bench.shard.members.is_member(&channel(0), bench.key()));
    }
    assert_eq!(bench.answers(), ["joined 0", "left 0"]);
    bench.confirm(0, Ok(()));
    assert_eq!(bench.answers(), ["joined 0"]);
}

#[test]
fn who_asks_for_more_than_can_wait_has_the_joins_refused_that_hold_it_back() {
    let mut bench = Bench::new();
    bench.send(&[Request::Join(0).text(), Request::Join(1).text()]);
    let nonsense = vec![Request::Nonsense.text(); 1_000];
    bench.send(&nonsense);
    let answers = bench.answers();
    assert!(
        answers[..2].iter().all(|answer| answer.contains("Limit exceeded")),
        "{:?}",
        &answers[..3]
    );
    assert_eq!(answers.len(), 1_002);
    assert!(bench.shard.joining.is_empty() && bench.shard.members.count(bench.key()) == 0);
    bench.client.write_all(b"").expect("it is open");
}
