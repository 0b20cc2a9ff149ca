//! The clients of a round: their threads, and what they have noted.

pub(crate) mod member;
mod notes;
mod poster;
mod publisher;
pub(crate) mod session;
mod subscriber;

use std::collections::HashSet;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

use self::member::Member;
use self::notes::{Connections, Posts, Publications};
use self::poster::Poster;
use self::publisher::Publisher;
use self::session::Session;
use self::subscriber::Subscriber;
use super::log::{Clock, Connection, Id, Log};
use crate::shared::gateway;
use crate::shared::random::Random;
use crate::shared::target::Target;
use crate::shared::wait::Stop;

/// Between two messages of a client that sends.
const SEND_PERIOD: Duration = Duration::from_millis(100);
/// Between two messages with an `Idempotency-Key`.
const KEYED_PERIOD: Duration = Duration::from_millis(100);
const POSTERS: u64 = 3;

/// How many clients there are, and how busy they are.
#[derive(Clone, Debug)]
pub(crate) struct Size {
    pub(crate) publishers: usize,
    pub(crate) subscribers: usize,
    /// How many of the subscribers also send.
    pub(crate) senders: usize,
    pub(crate) groups: usize,
    /// Messages a second of all publishers together.
    pub(crate) rate: u32,
    pub(crate) seed: u64,
    /// Clients that come and go and choose their nodes themselves. With them come posts to single
    /// connections, and messages with an `Idempotency-Key`.
    pub(crate) members: usize,
}

/// Ports of the gateway.
#[derive(Clone, Debug)]
pub(crate) struct Endpoints {
    pub(crate) balancer: Option<u16>,
    pub(crate) nodes: Vec<u16>,
}

/// All clients; their threads end when this is dropped.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) clock: Clock,
    channels: usize,
    publications: Publications,
    connections: Vec<Connections>,
    members: Vec<Connections>,
    posts: Posts,
    /// Posts for the harness itself.
    probe: Publisher,
    stop_publishing: Stop,
    stop: Stop,
    /// Threads that end with publishing.
    publishers: Vec<JoinHandle<()>>,
    subscribers: Vec<JoinHandle<()>>,
}

/// What clients have in common when they are made.
struct New<'a> {
    size: &'a Size,
    endpoints: &'a Endpoints,
    targets: Vec<Target>,
    channels: usize,
    clock: Clock,
    publications: Publications,
    posts: Posts,
    stop_publishing: Stop,
    stop: Stop,
}

impl Clients {
    /// Starts all clients.
    pub(crate) fn start(size: &Size, endpoints: &Endpoints) -> Result<Self> {
        let new = New {
            size,
            endpoints,
            targets: endpoints.targets(size.members > 0),
            channels: size.groups + 1,
            clock: Clock::start(),
            publications: Publications::default(),
            posts: Posts::default(),
            stop_publishing: Stop::default(),
            stop: Stop::default(),
        };
        let period = Duration::from_secs(1) * u32::try_from(size.publishers)? / size.rate;
        let start = |name| {
            new.publisher(name, endpoints.of_publisher(name))
                .start(period, new.stop_publishing.clone())
        };
        let mut publishers: Vec<JoinHandle<()>> = (0..size.publishers).map(start).collect();
        let connections: Vec<_> = (0..size.subscribers).map(|_| Connections::default()).collect();
        let subscribers =
            (0..).zip(&connections).map(|(number, own)| new.subscriber(number, own).start());
        let subscribers = subscribers.collect();
        let members: Vec<_> = (0..size.members).map(|_| Connections::default()).collect();
        if size.members > 0 {
            let numbers = size.subscribers..;
            publishers
                .extend(numbers.zip(&members).map(|(number, own)| new.member(number, own).start()));
            let to: Vec<Connections> = connections.iter().chain(&members).cloned().collect();
            publishers.extend((0..POSTERS).map(|number| new.poster(number, &to).start()));
            let keyed =
                new.publisher(size.publishers + 1 + size.subscribers, endpoints.nodes.clone());
            publishers.push(keyed.start_keyed(KEYED_PERIOD, new.stop_publishing.clone()));
        }
        let probe = new.publisher(size.publishers, endpoints.of_publisher(0));
        let New { channels, clock, publications, posts, stop_publishing, stop, .. } = new;
        Ok(Self {
            clock,
            channels,
            publications,
            connections,
            members,
            posts,
            probe,
            stop_publishing,
            stop,
            publishers,
            subscribers,
        })
    }

    /// Posts a message on every channel; waits for each answer up to `patience`.
    pub(crate) fn probe(&mut self, patience: Duration) {
        for channel in 0..self.channels {
            self.probe.post(channel, patience);
        }
    }

    /// Returns whether every subscriber has a connection that received, on each of its channels, a
    /// message posted since.
    pub(crate) fn is_fresh(&self, since: Duration) -> bool {
        let fresh: HashSet<Id> = self.publications.read(|all| {
            all.iter()
                .filter(|publication| publication.posted >= since)
                .map(|each| each.id)
                .collect()
        });
        let has_fresh = |connection: &Connection, channel| {
            let mut latest =
                connection.received.iter().rev().filter(|(id, _)| id.channel == channel);
            latest.any(|(id, at)| *at >= since && fresh.contains(id))
        };
        self.connections.iter().enumerate().all(|(number, connections)| {
            let group = number % self.channels;
            connections.read(|all| {
                all.last().filter(|connection| connection.ended.is_none()).is_some_and(
                    |connection| {
                        has_fresh(connection, 0) && (group == 0 || has_fresh(connection, group))
                    },
                )
            })
        })
    }

    /// Returns the ids of connections that have ended since.
    pub(crate) fn ended_since(&self, since: Duration) -> Vec<String> {
        let connections = self.connections.iter().flat_map(Connections::all);
        let ended = connections.filter(|each| each.ended.is_some_and(|(at, _)| at >= since));
        ended.map(|connection| connection.id).filter(|id| !id.is_empty()).collect()
    }

    /// Ends publishing, and waits for the last answers.
    pub(crate) fn stop_publishing(&mut self) {
        self.stop_publishing.stop();
        for publisher in self.publishers.drain(..) {
            // A publisher that panicked has left a shorter log.
            drop(publisher.join());
        }
    }

    /// Returns what was noted until now.
    pub(crate) fn log(&self) -> Log {
        let connections =
            self.connections.iter().chain(&self.members).flat_map(Connections::all).collect();
        Log { publications: self.publications.all(), connections, posts: self.posts.all() }
    }

    pub(crate) fn n_subscribers(&self) -> usize {
        self.connections.len()
    }
}

impl New<'_> {
    fn publisher(&self, name: usize, ports: Vec<u16>) -> Publisher {
        Publisher::new(name, ports, self.channels, (self.clock, self.publications.clone()))
    }

    fn session(&self, number: usize, connections: &Connections) -> Session {
        Session { number, clock: self.clock, connections: connections.clone() }
    }

    fn subscriber(&self, number: usize, connections: &Connections) -> Subscriber {
        let Size { publishers, senders, seed, .. } = *self.size;
        Subscriber {
            session: self.session(number, connections),
            targets: self.targets.clone(),
            group: Some(number % self.channels).filter(|channel| *channel > 0),
            sends: (number < senders).then_some((publishers + 1 + number, SEND_PERIOD)),
            random: Random::new(seed ^ number as u64),
            publications: self.publications.clone(),
            stop_sending: self.stop_publishing.clone(),
            stop: self.stop.clone(),
        }
    }

    fn member(&self, number: usize, connections: &Connections) -> Member {
        Member {
            session: self.session(number, connections),
            targets: self.targets.clone(),
            channels: self.channels,
            random: Random::new(self.size.seed.wrapping_mul(1000) ^ number as u64),
            stop: self.stop_publishing.clone(),
        }
    }

    fn poster(&self, number: u64, to: &[Connections]) -> Poster {
        Poster {
            ports: self.endpoints.nodes.clone(),
            to: to.to_vec(),
            clock: self.clock,
            random: Random::new(self.size.seed.wrapping_add(number)),
            posts: self.posts.clone(),
            stop: self.stop_publishing.clone(),
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop_publishing.stop();
        self.stop.stop();
        for thread in self.publishers.drain(..).chain(self.subscribers.drain(..)) {
            drop(thread.join());
        }
    }
}

impl Endpoints {
    /// Every other publisher goes through the balancer, the rest straight to the nodes.
    fn of_publisher(&self, name: usize) -> Vec<u16> {
        match self.balancer {
            Some(port) if name.is_multiple_of(2) => vec![port],
            _ => self.nodes.clone(),
        }
    }

    /// Returns where clients connect: to the balancer if there is one, unless they are to choose a
    /// node.
    fn targets(&self, direct: bool) -> Vec<Target> {
        let balancer = self.balancer.filter(|_| !direct);
        let ports = balancer.map_or_else(|| self.nodes.clone(), |port| vec![port]);
        ports.into_iter().map(gateway::target).collect()
    }
}
