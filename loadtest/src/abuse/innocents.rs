//! Clients that behave: they talk in groups, come and go, and post. None of that may be refused,
//! closed or late.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use parking_lot::Mutex;

use crate::shared::gateway::{self, Notice, WHO_AM_I};
use crate::shared::histogram;
use crate::shared::http;
use crate::shared::node::Node;
use crate::shared::socket::{Incoming, Socket};
use crate::shared::target::Target;
use crate::shared::wait::{Interrupt, Stop};

const TALKERS: usize = 16;
/// Between two messages of one of them, and between two newcomers.
const PAUSE: Duration = Duration::from_millis(25);
const ARRIVAL_PAUSE: Duration = Duration::from_millis(200);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The phases of a flood.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    /// It hits another node of this machine.
    FloodElsewhere,
    FloodHere,
    /// Not counted.
    Calm,
}

/// What the innocents have noticed.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Nanoseconds from a message to its return, by [`Phase`]; the last is not used.
    pub(super) latency: [Option<Histogram<u64>>; 3],
    /// Who was closed, refused or not answered, in words.
    pub(super) harmed: Vec<String>,
}

/// All innocent clients.
pub(super) struct Innocents {
    stop: Stop,
    phase: Arc<AtomicUsize>,
    seen: Arc<Mutex<Seen>>,
    threads: Vec<JoinHandle<()>>,
}

impl Innocents {
    pub(super) fn start(port: u16) -> Result<Self> {
        let stop = Stop::default();
        let phase = Arc::new(AtomicUsize::new(Phase::Calm as usize));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut threads = Vec::new();
        let target = gateway::target(port);
        for nth in 0..TALKERS {
            let mut socket = Socket::open(&target)?;
            socket.send(&gateway::join(&format!("calm-{nth}")));
            ensure!(
                matches!(socket.next(PATIENCE), Incoming::Text(_)),
                "an innocent could not join its group"
            );
            let (stop, phase, seen) = (stop.clone(), Arc::clone(&phase), Arc::clone(&seen));
            threads.push(std::thread::spawn(move || talk(socket, nth, &stop, &phase, &seen)));
        }
        let (stopped, met) = (stop.clone(), Arc::clone(&seen));
        threads.push(std::thread::spawn(move || come_and_post(&target, port, &stopped, &met)));
        Ok(Self { stop, phase, seen, threads })
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as usize, Ordering::Relaxed);
    }

    /// Waits until the node has recovered: ready, open to newcomers, and with no connections except
    /// the innocents'.
    pub(super) fn all_is_well(
        &self,
        node: &Node,
        limit: Duration,
        interrupt: &Interrupt,
    ) -> Result<()> {
        let target = gateway::target(node.port);
        interrupt.eventually(
            "the node is ready, lets clients in, and has forgotten the flood",
            limit,
            || {
                let ready = http::get(node.admin_port, "/ready", PATIENCE).ok()?;
                let open = node.counters()?.sum("gatecast_connections");
                let is_in = Socket::open(&target).is_ok();
                // Newcomers may be connecting or leaving.
                (ready.status == 200 && is_in && open <= TALKERS as u64 + 2).then_some(())
            },
        )
    }

    /// Ends them and returns what they have noticed.
    pub(super) fn end(self) -> Seen {
        self.stop.stop();
        for thread in self.threads {
            if thread.join().is_err() {
                self.seen.lock().harmed.push("an innocent's own thread panicked".to_owned());
            }
        }
        std::mem::take(&mut self.seen.lock())
    }
}

fn talk(mut socket: Socket, nth: usize, stop: &Stop, phase: &AtomicUsize, seen: &Mutex<Seen>) {
    let mut number = 0_u64;
    while stop.sleep(PAUSE) {
        number += 1;
        let (during, sent) = (phase.load(Ordering::Relaxed), Instant::now());
        socket.send(&gateway::send_to_group(&format!("calm-{nth}"), &number.to_string()));
        match socket.next(PATIENCE) {
            Incoming::Text(text) if text == number.to_string() => {
                let time = sent.elapsed();
                record(&mut seen.lock(), during, time);
            }
            // Perhaps a broadcast of the flood.
            Incoming::Text(other) => {
                return harm(seen, format!("innocent {nth} got `{other:.80}`"));
            }
            Incoming::Nothing => {
                return harm(seen, format!("innocent {nth} waited {PATIENCE:?} in vain"));
            }
            Incoming::Ended(code) => {
                return harm(seen, format!("innocent {nth} was closed with {code}"));
            }
        }
    }
}

fn record(seen: &mut Seen, phase: usize, time: Duration) {
    let Some(slot) = seen.latency.get_mut(phase) else { return };
    if slot.is_none() {
        *slot = histogram::empty().ok();
    }
    if let Some(histogram) = slot {
        histogram::record(histogram, time);
    }
}

/// Connects, is posted to, and leaves, again and again.
fn come_and_post(target: &Target, port: u16, stop: &Stop, seen: &Mutex<Seen>) {
    while stop.sleep(ARRIVAL_PAUSE) {
        let mut socket = match Socket::open(target) {
            Ok(socket) => socket,
            Err(error) => return harm(seen, format!("a newcomer was not let in: {error:#}")),
        };
        socket.send(WHO_AM_I);
        let Incoming::Text(answer) = socket.next(PATIENCE) else {
            return harm(seen, "a newcomer was not answered".to_owned());
        };
        let Some(id) = Notice::read(answer.as_bytes()).and_then(|notice| notice.connection_id)
        else {
            return harm(seen, format!("a newcomer got `{answer:.80}`"));
        };
        match http::post(port, &gateway::connection_path(&id), ("", "hello"), PATIENCE) {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => return harm(seen, format!("a post was answered {}", answer.status)),
            Err(failure) => return harm(seen, format!("a post was not answered: {failure:?}")),
        }
        if socket.next(PATIENCE) != Incoming::Text("hello".to_owned()) {
            return harm(seen, "a post did not arrive".to_owned());
        }
    }
}

fn harm(seen: &Mutex<Seen>, what: String) {
    seen.lock().harmed.push(what);
}
