//! A model of leases, fences and ends: two nodes, one connection each, and a Redis that everything
//! may happen to.
//!
//! The nodes decide by the product's own functions ([`Watch`], [`Steady`], [`Term`], [`End`]); the
//! scripts of Redis are written down in [`Redis::carry_out`]. Time goes in seconds; a lease is six
//! of them. Walks are random and bounded; a walk ends with a time in which nothing more happens,
//! after which everything owed has to be done. Each mend in [`Mends`] can be taken out, and then a
//! walk that breaks a promise has to be found.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::cluster::registry::end::{End, EndAnswer};
use crate::cluster::registry::tenure::Term;
use crate::cluster::registry::watch::{Life, Look, Sign, Watch};
use crate::cluster::store::steady::Steady;
use crate::model::id::NodeTag;

const LEASE: u32 = 6;
/// Between two renewals, and two looks.
const PERIOD: u32 = LEASE / 3;
/// How long a node waits for an answer.
const PATIENCE: u32 = 5;
/// How long Redis keeps a lease by its own clock without the mend that makes nodes judge by theirs.
const LEASE_KEPT: u32 = LEASE;
/// Seconds in which something may happen.
const WALK: usize = 60;
/// Walks of each test.
const WALKS: u64 = 4_000;
/// Enough for a node to be found dead, twice, and for its ends.
const CALM: u32 = 60;

/// What was mended; all of it is in the product.
#[derive(Clone, Copy, Debug)]
struct Mends {
    /// Nodes judge each other by moving signs and their own clocks, not by a lease that Redis lets
    /// end.
    own_clocks: bool,
    /// A node that was there is gone only once others have said so.
    grace: bool,
    /// Ends are named.
    names: bool,
    /// A record goes after its end was accepted, not before.
    order: bool,
    /// A node whose lease has run out says nothing.
    tenure: bool,
}

const ALL: Mends = Mends { own_clocks: true, grace: true, names: true, order: true, tenure: true };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Violation {
    /// A node was taken for dead that nothing kept from renewing.
    Fenced,
    /// The end of a connection was accepted more than once.
    Twice,
    /// It was not, though Redis is steady again.
    Never,
    /// A message was sent for a connection by a node without a lease, and accepted after the
    /// connection's end.
    Late,
    /// A caller was told that an open connection is gone.
    Gone,
}

/// What may happen between two seconds.
#[derive(Clone, Copy, Debug)]
enum Event {
    Nothing,
    Stall,
    /// It answers what has come meanwhile, and goes on.
    Resume,
    /// It crashes, and comes back with everything after that time.
    Restart {
        down: u32,
    },
    /// It crashes, and comes back with an older copy.
    RestartOlder,
    Save,
    Flush,
    /// It jumps to the other of two histories.
    FailOver,
    ClockSteps(u32),
    RefuseWrites,
    TakeWrites,
    CutConnections(usize),
    /// A node's requests do not arrive until it is released, in the order in which they were sent.
    Hold(usize),
    Release(usize),
    Freeze(usize),
    Thaw(usize),
    Kill(usize),
    /// A client sends a message and closes.
    ClientCloses(usize),
    /// A back end asks one node for the connection of the other.
    Call(usize),
}

#[derive(Clone, Debug, Default)]
struct Data {
    /// What it says, and when it ends by the clock of Redis.
    leases: [Option<(String, u32)>; 2],
    marks: [Option<String>; 2],
    records: [bool; 2],
    names: [bool; 2],
}

#[derive(Clone, Debug)]
struct Redis {
    data: Data,
    saved: Data,
    other: Data,
    life: u32,
    clock: u32,
    down_until: u32,
    is_stalled: bool,
    refuses: bool,
    /// Of each connection, how often its end was accepted.
    ended: [u32; 2],
    late: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Request {
    Renew(String),
    Look,
    Claim {
        seen: Sign,
        mark: String,
    },
    Publish(usize),
    /// `has_right`: whether its node had its lease when it was sent.
    Message {
        has_right: bool,
    },
    Remove,
    Forget,
    Reap {
        mark: String,
    },
}

#[derive(Clone, Debug)]
enum Reply {
    Done,
    Fenced,
    Refused,
    Sign(Sign, u32),
    Published(EndAnswer),
    /// The record of the dead node's connection, before it is claimed.
    Claimed {
        has_record: bool,
    },
    NotClaimed,
}

#[derive(Clone, Debug)]
struct Asked {
    request: Request,
    sent: u32,
    /// Over which connection.
    connection: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Client {
    Open,
    Ending(End),
    Removing(End),
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Process {
    Runs,
    Frozen,
    Dead,
}

#[derive(Clone, Debug)]
struct Reaping {
    mark: String,
    end: End,
}

#[derive(Debug)]
struct Node {
    process: Process,
    connection: Option<u32>,
    connections: u32,
    term: Term,
    steady: Steady,
    watch: Watch,
    renewals: u32,
    renew_at: u32,
    look_at: u32,
    moves: u32,
    client: Client,
    has_message: bool,
    reaping: Option<Reaping>,
    /// Sent, and not answered.
    asked: Vec<Asked>,
    /// On their way to Redis.
    sent: Vec<Asked>,
    /// Answers that wait to be read.
    answers: Vec<(Asked, Reply)>,
    is_held: bool,
    /// When something kept it from renewing last, other than what keeps everybody.
    hindered_at: Option<u32>,
    index: usize,
}

struct World {
    mends: Mends,
    began: Instant,
    now: u32,
    tags: [NodeTag; 2],
    redis: Redis,
    nodes: [Node; 2],
    /// Whether Redis has forgotten something that it had accepted.
    has_forgotten: bool,
    found: Option<Violation>,
}

impl Redis {
    fn new() -> Self {
        let data = Data { records: [true; 2], ..Data::default() };
        Self {
            saved: data.clone(),
            other: data.clone(),
            data,
            life: 0,
            clock: 0,
            down_until: 0,
            is_stalled: false,
            refuses: false,
            ended: [0; 2],
            late: false,
        }
    }

    fn sign(&self, node: usize) -> Sign {
        let lease = self.data.leases[node].as_ref().filter(|(_, end)| *end > self.clock);
        Sign { lease: lease.map(|(text, _)| text.clone()), mark: self.data.marks[node].clone() }
    }

    /// As the scripts do, for a node.
    fn carry_out(&mut self, node: usize, request: &Request, mends: Mends) -> Reply {
        if self.refuses {
            return Reply::Refused;
        }
        let other = 1 - node;
        let is_marked = self.data.marks[node].is_some();
        match request {
            Request::Renew(_) if is_marked => Reply::Fenced,
            Request::Renew(text) => {
                let kept = if mends.own_clocks { u32::MAX } else { self.clock + LEASE_KEPT };
                self.data.leases[node] = Some((text.clone(), kept));
                Reply::Done
            }
            Request::Look => Reply::Sign(self.sign(other), self.life),
            Request::Claim { seen, mark } => {
                if self.sign(other) != *seen {
                    return Reply::NotClaimed;
                }
                self.data.marks[other] = Some(mark.clone());
                let has_record = self.data.records[other];
                if !mends.order {
                    self.data.records[other] = false;
                }
                Reply::Claimed { has_record }
            }
            Request::Publish(of) => Reply::Published(self.accept(*of, mends)),
            Request::Message { has_right } => {
                self.late |= !has_right && self.ended[node] > 0;
                Reply::Done
            }
            Request::Remove => {
                self.data.records[node] = false;
                Reply::Done
            }
            Request::Forget => {
                self.data.names[node] = false;
                Reply::Done
            }
            Request::Reap { mark } => {
                if self.data.marks[other].as_ref() == Some(mark) {
                    self.data.records[other] = false;
                    self.data.leases[other] = None;
                    self.data.marks[other] = Some("done".to_owned());
                }
                Reply::Done
            }
        }
    }

    fn accept(&mut self, of: usize, mends: Mends) -> EndAnswer {
        if mends.names && std::mem::replace(&mut self.data.names[of], true) {
            return EndAnswer::Found;
        }
        self.ended[of] += 1;
        EndAnswer::Accepted
    }
}

impl Node {
    fn new(index: usize) -> Self {
        let lease = Duration::from_secs(LEASE.into());
        Self {
            process: Process::Runs,
            connection: None,
            connections: 0,
            term: Term::new(lease),
            steady: Steady::new(lease, false),
            watch: Watch::new(lease),
            renewals: 0,
            renew_at: 0,
            look_at: 0,
            moves: 0,
            client: Client::Open,
            has_message: false,
            reaping: None,
            asked: Vec::new(),
            sent: Vec::new(),
            answers: Vec::new(),
            is_held: false,
            hindered_at: None,
            index,
        }
    }

    fn waits_for(&self, is_it: impl Fn(&Request) -> bool) -> bool {
        self.asked.iter().any(|asked| is_it(&asked.request))
    }

    fn ask(&mut self, request: Request, now: u32) {
        if let Some(connection) = self.connection {
            let asked = Asked { request, sent: now, connection };
            self.asked.push(asked.clone());
            self.sent.push(asked);
        }
    }

    /// The connection is gone; what was under way is in doubt.
    fn lose_connection(&mut self) {
        self.connection = None;
        self.steady.lost();
        for asked in std::mem::take(&mut self.asked) {
            match asked.request {
                Request::Publish(of) => self.on_published(of, EndAnswer::InDoubt),
                Request::Look => self.watch.clear(),
                _ => {}
            }
        }
    }

    fn on_published(&mut self, of: usize, answer: EndAnswer) {
        if of != self.index {
            if let Some(reaping) = &mut self.reaping {
                reaping.end = reaping.end.on_answer(answer);
            }
        } else if let Client::Ending(end) = &mut self.client {
            *end = end.on_answer(answer);
        }
    }
}

impl World {
    fn new(mends: Mends) -> Self {
        let mut tags = [NodeTag::random(), NodeTag::random()];
        tags.sort_unstable();
        Self {
            mends,
            began: Instant::now(),
            now: 0,
            tags,
            redis: Redis::new(),
            nodes: [Node::new(0), Node::new(1)],
            has_forgotten: false,
            found: None,
        }
    }

    fn at(&self, second: u32) -> Instant {
        self.began + Duration::from_secs(second.into())
    }

    fn is_up(&self) -> bool {
        self.redis.down_until <= self.now
    }

    fn crash(&mut self, down: u32) {
        self.redis.down_until = self.now + down;
        (self.redis.is_stalled, self.redis.refuses) = (false, false);
        self.redis.life += 1;
        for node in &mut self.nodes {
            // What is held up on the way is not at Redis yet.
            if !node.is_held {
                node.sent.clear();
            }
            if node.process == Process::Runs {
                node.lose_connection();
            }
        }
    }

    fn take(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Nothing => {}
            Event::Stall => self.redis.is_stalled = self.is_up(),
            Event::Resume => self.redis.is_stalled = false,
            Event::Restart { down } => self.crash(down),
            Event::Save => self.redis.saved = self.redis.data.clone(),
            Event::RestartOlder => {
                self.crash(1);
                self.redis.data = self.redis.saved.clone();
                self.has_forgotten = true;
            }
            Event::Flush => {
                self.redis.data = Data::default();
                self.has_forgotten = true;
            }
            Event::FailOver => {
                self.crash(1);
                std::mem::swap(&mut self.redis.data, &mut self.redis.other);
                self.has_forgotten = true;
            }
            Event::ClockSteps(by) => self.redis.clock += by,
            Event::RefuseWrites => self.redis.refuses = true,
            Event::TakeWrites => self.redis.refuses = false,
            Event::CutConnections(node) => {
                self.nodes[node].sent.clear();
                self.nodes[node].lose_connection();
            }
            Event::Hold(node) => self.nodes[node].is_held = true,
            Event::Release(node) => self.nodes[node].is_held = false,
            Event::Freeze(node) if self.nodes[node].process == Process::Runs => {
                self.nodes[node].process = Process::Frozen;
            }
            Event::Thaw(node) if self.nodes[node].process == Process::Frozen => {
                self.nodes[node].process = Process::Runs;
            }
            Event::Kill(node) => self.nodes[node].process = Process::Dead,
            Event::ClientCloses(node) if self.nodes[node].client == Client::Open => {
                (self.nodes[node].client, self.nodes[node].has_message) =
                    (Client::Ending(End::OWN), true);
            }
            Event::Call(node) => self.call(node),
            Event::Freeze(_) | Event::Thaw(_) | Event::ClientCloses(_) => {}
        }
        for node in &mut self.nodes {
            if node.is_held || node.process != Process::Runs {
                node.hindered_at = Some(now);
            }
        }
    }

    /// As `Peers::judge`, of a node that does not answer and that this one knows.
    fn call(&mut self, from: usize) {
        let to = 1 - from;
        let (caller, owner) = (&self.nodes[from], &self.nodes[to]);
        if caller.process != Process::Runs
            || caller.connection.is_none()
            || self.redis.is_stalled
            || !self.is_up()
        {
            return;
        }
        let Sign { lease, mark } = self.redis.sign(to);
        let is_gone = mark.is_some() || lease.is_none() && !self.mends.grace;
        let may_live = owner.process == Process::Runs && owner.client == Client::Open;
        if is_gone && mark.is_none() && may_live && !self.was_hindered(to, self.now) {
            self.found.get_or_insert(Violation::Gone);
        }
    }

    /// Returns whether something has kept a node from renewing since two leases before.
    fn was_hindered(&self, node: usize, second: u32) -> bool {
        self.nodes[node].hindered_at.is_some_and(|at| at + 2 * LEASE >= second)
    }

    /// A second passes.
    fn tick(&mut self) {
        self.now += 1;
        self.redis.clock += 1;
        self.deliver();
        for index in 0..2 {
            if self.nodes[index].process == Process::Runs {
                self.act(index);
            }
        }
        self.deliver();
        if self.redis.late {
            self.found.get_or_insert(Violation::Late);
        }
        if self.redis.ended.iter().any(|times| *times > 1) && !self.has_forgotten {
            self.found.get_or_insert(Violation::Twice);
        }
    }

    /// Redis does what has arrived.
    fn deliver(&mut self) {
        if self.redis.is_stalled || !self.is_up() {
            return;
        }
        for index in 0..2 {
            if self.nodes[index].is_held {
                continue;
            }
            for asked in std::mem::take(&mut self.nodes[index].sent) {
                let reply = self.redis.carry_out(index, &asked.request, self.mends);
                if matches!(reply, Reply::Claimed { .. }) {
                    self.check_claim(1 - index, asked.sent);
                }
                self.nodes[index].answers.push((asked, reply));
            }
        }
    }

    /// `decided`: when the other took it for dead. The claim may have been on its way for long.
    fn check_claim(&mut self, node: usize, decided: u32) {
        if self.nodes[node].process == Process::Runs && !self.was_hindered(node, decided) {
            self.found.get_or_insert(Violation::Fenced);
        }
    }

    /// What a node does in a second.
    fn act(&mut self, index: usize) {
        let (now, instant) = (self.now, self.at(self.now));
        for (asked, reply) in std::mem::take(&mut self.nodes[index].answers) {
            let node = &mut self.nodes[index];
            let Some(at) = node.asked.iter().position(|other| {
                (other.connection, other.sent, &other.request)
                    == (asked.connection, asked.sent, &asked.request)
            }) else {
                continue;
            };
            node.asked.remove(at);
            node.steady.answered(self.began + Duration::from_secs(asked.sent.into()), instant);
            self.on_answer(index, &asked, reply);
            if self.nodes[index].process == Process::Dead {
                return;
            }
        }
        let is_up = self.is_up() && !self.redis.is_stalled && !self.nodes[index].is_held;
        let node = &mut self.nodes[index];
        if node.asked.iter().any(|asked| now - asked.sent > PATIENCE) {
            node.lose_connection();
        }
        if node.connection.is_none() && is_up {
            node.connections += 1;
            node.connection = Some(node.connections);
            node.steady.connected(instant);
            node.renew_at = now;
        }
        if node.renew_at <= now && !node.waits_for(|request| matches!(request, Request::Renew(_))) {
            node.renewals += 1;
            node.renew_at = now + PERIOD;
            node.ask(Request::Renew(node.renewals.to_string()), now);
        }
        if node.look_at <= now && !node.waits_for(|request| *request == Request::Look) {
            node.look_at = now + PERIOD;
            node.ask(Request::Look, now);
        }
        let has_right = node.term.is_held(instant);
        let may_speak = has_right || !self.mends.tenure;
        if may_speak && node.connection.is_some() {
            if std::mem::take(&mut node.has_message) {
                node.ask(Request::Message { has_right }, now);
            }
            self.end(index);
        }
    }

    /// Goes on with the ends of connections.
    fn end(&mut self, index: usize) {
        let (now, other) = (self.now, 1 - index);
        let node = &mut self.nodes[index];
        let publishes = |of: usize| move |request: &Request| *request == Request::Publish(of);
        match node.client {
            Client::Ending(end) if end.is_over() => node.client = Client::Removing(end),
            Client::Ending(_) if !node.waits_for(publishes(index)) => {
                node.ask(Request::Publish(index), now);
            }
            _ => {}
        }
        if let Client::Removing(_) = node.client
            && !node.waits_for(|request| *request == Request::Remove)
        {
            node.ask(Request::Remove, now);
        }
        let reaps = |request: &Request| matches!(request, Request::Reap { .. });
        match node.reaping.clone() {
            Some(Reaping { end, mark }) if end.is_over() && !node.waits_for(reaps) => {
                node.ask(Request::Reap { mark }, now);
            }
            Some(Reaping { end, .. }) if !end.is_over() && !node.waits_for(publishes(other)) => {
                node.ask(Request::Publish(other), now);
            }
            _ => {}
        }
    }

    fn on_answer(&mut self, index: usize, asked: &Asked, reply: Reply) {
        let (sent, answered, other) = (self.at(asked.sent), self.at(self.now), 1 - index);
        let node = &mut self.nodes[index];
        match (&asked.request, reply) {
            (_, Reply::Fenced) => {
                // Others end its connection.
                (node.process, node.client) = (Process::Dead, Client::Gone);
            }
            (Request::Renew(_), Reply::Done) => node.term.renewed(sent),
            (Request::Renew(_), Reply::Refused) => node.renew_at = self.now + 1,
            (Request::Look, Reply::Sign(sign, life)) => {
                self.on_look(index, (sign, life), (sent, answered));
            }
            (Request::Look, _) => node.watch.forget(self.tags[other]),
            (Request::Claim { mark, .. }, Reply::Claimed { has_record }) => {
                let end = if has_record { End::REAPED } else { End::NOTHING };
                node.reaping = Some(Reaping { mark: mark.clone(), end });
            }
            (Request::Publish(of), Reply::Published(answer)) => node.on_published(*of, answer),
            (Request::Publish(of), Reply::Refused) => node.on_published(*of, EndAnswer::NotTaken),
            (Request::Remove, Reply::Done) => {
                let may_forget = node.term.is_held(answered);
                if matches!(node.client, Client::Removing(end) if end.forgets_name() && may_forget)
                {
                    node.ask(Request::Forget, self.now);
                }
                node.client = Client::Gone;
            }
            (Request::Reap { .. }, Reply::Done) => node.reaping = None,
            _ => {}
        }
    }

    fn on_look(
        &mut self,
        index: usize,
        (sign, life): (Sign, u32),
        (sent, answered): (Instant, Instant),
    ) {
        let (now, tag, mends) = (self.now, self.tags[1 - index], self.mends);
        let node = &mut self.nodes[index];
        let is_over = sign.mark.as_deref() == Some("done");
        if is_over
            || node.reaping.is_some()
            || node.waits_for(|request| matches!(request, Request::Claim { .. }))
        {
            return;
        }
        let steady = node.steady.time(answered);
        let look =
            Look { sign: sign.clone(), replication_id: life.to_string(), sent, answered, steady };
        let is_dead = if mends.own_clocks {
            node.watch.saw(tag, look) == Life::Dead
        } else {
            sign.lease.is_none()
        };
        if is_dead && (node.term.is_held(answered) || !mends.tenure) {
            node.watch.forget(tag);
            node.moves += 1;
            let mark = format!("{index}:{}", node.moves);
            node.ask(Request::Claim { seen: sign, mark }, now);
        }
    }

    /// Everything is well again, but for the dead; returns what is owed and was not done.
    fn calm_down(&mut self) {
        (self.redis.is_stalled, self.redis.refuses) = (false, false);
        for index in 0..2 {
            self.take(Event::Release(index));
            self.take(Event::Thaw(index));
        }
        for _ in 0..CALM {
            self.tick();
        }
        let is_survived = self.nodes.iter().any(|node| node.process == Process::Runs);
        if !is_survived || self.has_forgotten {
            return;
        }
        for (node, ended) in self.nodes.iter().zip(self.redis.ended) {
            let has_ended = node.client != Client::Open || node.process == Process::Dead;
            if ended == 0 && has_ended {
                self.found.get_or_insert(Violation::Never);
            }
        }
    }

    /// What tells states apart, times left out.
    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let Redis { data, is_stalled, refuses, ended, .. } = &self.redis;
        (is_stalled, refuses, ended, self.is_up(), data.records, data.names).hash(&mut hasher);
        for (index, node) in self.nodes.iter().enumerate() {
            let Sign { lease, mark } = self.redis.sign(index);
            (lease.is_some(), mark.map(|mark| mark.chars().next())).hash(&mut hasher);
            (node.process, node.client, node.has_message, node.connection.is_some(), node.is_held)
                .hash(&mut hasher);
            (node.reaping.as_ref().map(|it| it.end), node.term.is_held(self.at(self.now)))
                .hash(&mut hasher);
            (node.asked.len(), node.sent.len(), node.answers.len()).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// What may happen where Redis keeps what it has accepted, and what else may happen where it does
/// not.
fn event(dice: &mut StdRng, keeps: bool) -> Event {
    let node = dice.random_range(0..2);
    match dice.random_range(0..if keeps { 34 } else { 40 }) {
        0..=9 => Event::Nothing,
        10 => Event::Stall,
        11..=12 => Event::Resume,
        13 => Event::Restart { down: dice.random_range(1..2 * LEASE) },
        14 => Event::Save,
        15 => Event::ClockSteps(dice.random_range(1..3 * LEASE)),
        16 => Event::RefuseWrites,
        17..=18 => Event::TakeWrites,
        19 => Event::CutConnections(node),
        20 => Event::Hold(node),
        21..=22 => Event::Release(node),
        23 => Event::Freeze(node),
        24..=25 => Event::Thaw(node),
        26 if dice.random_bool(0.2) => Event::Kill(node),
        26..=28 => Event::ClientCloses(node),
        29..=33 => Event::Call(node),
        34 | 35 => Event::RestartOlder,
        36 => Event::Flush,
        37 => Event::FailOver,
        _ => Event::Save,
    }
}

/// Walks from a seed; returns what was found, and adds the states that were seen.
fn walk(
    seed: u64,
    (mends, keeps): (Mends, bool),
    seen: &mut HashSet<u64>,
) -> Option<(Violation, Vec<Event>)> {
    let (mut dice, mut world) = (StdRng::seed_from_u64(seed), World::new(mends));
    // Both have started.
    for _ in 0..LEASE {
        world.tick();
    }
    let drawn = std::iter::repeat_with(|| event(&mut dice, keeps));
    let mut events = Vec::new();
    for event in drawn.take(WALK) {
        events.push(event);
        world.take(event);
        world.tick();
        seen.insert(world.hash());
        if world.found.is_some() {
            break;
        }
    }
    if world.found.is_none() {
        world.calm_down();
    }
    world.found.map(|found| (found, events))
}

/// Walks with everything mended, and finds nothing.
fn find_nothing(keeps: bool) {
    let mut seen = HashSet::new();
    for seed in 0..WALKS {
        let found = walk(seed, (ALL, keeps), &mut seen);
        assert!(found.is_none(), "seed {seed}: {found:?}");
    }
    println!("{WALKS} walks of {WALK} s, {} states", seen.len());
    assert!(seen.len() > 5_000, "only {} states were seen", seen.len());
}

#[test]
fn no_promise_is_broken_where_redis_keeps_its_data() {
    find_nothing(true);
}

#[test]
fn nobody_who_renews_is_fenced_whatever_redis_forgets() {
    find_nothing(false);
}

#[test]
fn without_any_one_mend_a_promise_is_broken() {
    for (mends, keeps, expected) in [
        (Mends { own_clocks: false, ..ALL }, true, Violation::Fenced),
        (Mends { own_clocks: false, ..ALL }, false, Violation::Fenced),
        (Mends { own_clocks: false, grace: false, ..ALL }, true, Violation::Gone),
        (Mends { grace: false, ..ALL }, false, Violation::Gone),
        (Mends { names: false, ..ALL }, true, Violation::Twice),
        (Mends { order: false, ..ALL }, true, Violation::Never),
        (Mends { tenure: false, ..ALL }, true, Violation::Late),
    ] {
        let mut seen = HashSet::new();
        let mut is_found = |seed: &u64| {
            walk(*seed, (mends, keeps), &mut seen).is_some_and(|(found, _)| found == expected)
        };
        let seed = (0..4 * WALKS).find(&mut is_found);
        println!("{mends:?}: {expected:?} with seed {seed:?}");
        assert!(seed.is_some(), "{mends:?} keeps {expected:?} from being found");
    }
}
