//! The clients of a round: subscribers and publishers, their threads, and what all of them have noted.

pub(crate) mod member;
pub(crate) mod poster;
pub(crate) mod publisher;
pub(crate) mod subscriber;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

use super::log::{Clock, Connection, Log};
use crate::faults::clients::member::Member;
use crate::faults::clients::poster::{Poster, Posts};
use crate::faults::clients::publisher::{Publications, Publisher};
use crate::faults::clients::subscriber::{Connections, Subscriber};
use crate::shared::random::Random;
use crate::shared::target::Target;
use crate::shared::wait::Stop;

/// Between two messages of a client that sends.
const SEND_PERIOD: Duration = Duration::from_millis(100);

/// Between two messages with a name.
const NAMED_PERIOD: Duration = Duration::from_millis(100);
const POSTERS: u64 = 3;

/// How many clients, and how busy.
#[derive(Clone, Debug)]
pub(crate) struct Size {
    pub(crate) publishers: usize,
    pub(crate) subscribers: usize,
    /// Of the subscribers, how many also send.
    pub(crate) senders: usize,
    pub(crate) groups: usize,
    /// Messages a second, all publishers together.
    pub(crate) rate: u32,
    pub(crate) seed: u64,
    /// Clients that come and go, choosing their nodes themselves; with them come posts to single connections, and names that are
    /// used again.
    pub(crate) members: usize,
}

/// Ports at which the gateway is to be reached.
#[derive(Clone, Debug)]
pub(crate) struct Doors {
    pub(crate) balancer: Option<u16>,
    pub(crate) nodes: Vec<u16>,
}

/// See the head of this file. Dropped, all threads end.
#[derive(Debug)]
pub(crate) struct Crowd {
    pub(crate) clock: Clock,
    channels: usize,
    publications: Publications,
    connections: Vec<Connections>,
    members: Vec<Connections>,
    posts: Posts,
    /// Posts for the harness itself.
    probe: Publisher,
    /// Ends publishing.
    quiet: Stop,
    stop: Stop,
    /// Whoever ends with publishing.
    publishers: Vec<JoinHandle<()>>,
    subscribers: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Starts all clients.
    ///
    /// # Errors
    /// The doors are none.
    pub(crate) fn start(size: &Size, doors: &Doors) -> Result<Self> {
        let (clock, publications) = (Clock::start(), Publications::default());
        let channels = size.groups + 1;
        let notes = (clock, publications.clone());
        let (quiet, stop) = (Stop::default(), Stop::default());
        let period = Duration::from_secs(1) * u32::try_from(size.publishers)? / size.rate;
        let publishers = (0..size.publishers).map(|name| {
            Publisher::new(name, doors.of_publisher(name), channels, notes.clone())
                .start(period, quiet.clone())
        });
        let mut publishers: Vec<JoinHandle<()>> = publishers.collect();
        let targets = doors.targets(size.members > 0)?;
        let connections: Vec<Connections> = (0..size.subscribers).map(|_| Arc::default()).collect();
        let subscribers = connections.iter().enumerate().map(|(number, connections)| {
            let subscriber = Subscriber {
                number,
                targets: targets.clone(),
                group: Some(number % channels).filter(|channel| *channel > 0),
                sends: (number < size.senders).then_some((size.publishers + 1 + number, SEND_PERIOD)),
                clock,
                random: Random::new(size.seed ^ number as u64),
                connections: Arc::clone(connections),
                publications: publications.clone(),
                quiet: quiet.clone(),
                stop: stop.clone(),
            };
            subscriber.start()
        });
        let subscribers = subscribers.collect();
        let members: Vec<Connections> = (0..size.members).map(|_| Arc::default()).collect();
        let posts = Posts::default();
        if size.members > 0 {
            let to: Vec<Connections> = connections.iter().chain(&members).cloned().collect();
            publishers.extend(start_members(size, (&targets, channels), &members, clock, &quiet));
            publishers.extend(start_posters(size, doors, &to, (clock, &posts), &quiet));
            let named = size.publishers + 1 + size.subscribers;
            let named = Publisher::new(named, doors.nodes.clone(), channels, notes.clone());
            publishers.push(named.start_named(NAMED_PERIOD, quiet.clone()));
        }
        let probe = Publisher::new(size.publishers, doors.of_publisher(0), channels, notes);
        Ok(Self {
            clock,
            channels,
            publications,
            connections,
            members,
            posts,
            probe,
            quiet,
            stop,
            publishers,
            subscribers,
        })
    }

    /// Posts a message on every channel; waits for each answer only so long.
    pub(crate) fn probe(&mut self, patience: Duration) {
        for channel in 0..self.channels {
            self.probe.post(channel, patience);
        }
    }

    /// Returns whether every subscriber has a connection that has got, on each of its channels, something posted since.
    pub(crate) fn is_fresh(&self, since: Duration) -> bool {
        let publications = self.publications.since(since);
        let has_fresh = |connection: &Connection, channel| {
            let mut latest = connection.received.iter().rev().filter(|(id, _)| id.channel == channel);
            latest.any(|(id, at)| *at >= since && publications.contains(id))
        };
        self.connections.iter().enumerate().all(|(number, connections)| {
            let connections = connections.lock();
            let group = number % self.channels;
            connections.last().filter(|connection| connection.ended.is_none()).is_some_and(|connection| {
                has_fresh(connection, 0) && (group == 0 || has_fresh(connection, group))
            })
        })
    }

    /// Returns the ids of connections that have ended since.
    pub(crate) fn ended_since(&self, since: Duration) -> Vec<String> {
        let connections = self.connections.iter().flat_map(|connections| connections.lock().clone());
        let ended = connections.filter(|each| each.ended.is_some_and(|(at, _)| at >= since));
        ended.map(|connection| connection.id).filter(|id| !id.is_empty()).collect()
    }

    /// Ends publishing, and waits for the last answers.
    pub(crate) fn fall_silent(&mut self) {
        self.quiet.stop();
        for publisher in self.publishers.drain(..) {
            // A publisher that panicked has left a shorter log.
            drop(publisher.join());
        }
    }

    /// Returns what was noted until now.
    pub(crate) fn log(&self) -> Log {
        let all = self.connections.iter().chain(&self.members);
        let connections = all.flat_map(|connections| connections.lock().clone()).collect();
        Log { publications: self.publications.all(), connections, posts: self.posts.all() }
    }

    pub(crate) fn n_subscribers(&self) -> usize {
        self.connections.len()
    }
}

fn start_members(
    size: &Size,
    (targets, channels): (&[Target], usize),
    members: &[Connections],
    clock: Clock,
    quiet: &Stop,
) -> Vec<JoinHandle<()>> {
    let start = |(number, connections): (usize, &Connections)| {
        let number = size.subscribers + number;
        let member = Member {
            number,
            targets: targets.to_vec(),
            channels,
            clock,
            random: Random::new(size.seed.wrapping_mul(1000) ^ number as u64),
            connections: Arc::clone(connections),
            quiet: quiet.clone(),
        };
        member.start()
    };
    members.iter().enumerate().map(start).collect()
}

fn start_posters(
    size: &Size,
    doors: &Doors,
    to: &[Connections],
    (clock, posts): (Clock, &Posts),
    quiet: &Stop,
) -> Vec<JoinHandle<()>> {
    let start = |number| {
        let poster = Poster {
            doors: doors.nodes.clone(),
            to: to.to_vec(),
            clock,
            random: Random::new(size.seed.wrapping_add(number)),
            posts: posts.clone(),
            quiet: quiet.clone(),
        };
        poster.start()
    };
    (0..POSTERS).map(start).collect()
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.quiet.stop();
        self.stop.stop();
        for thread in self.publishers.drain(..).chain(self.subscribers.drain(..)) {
            drop(thread.join());
        }
    }
}

impl Doors {
    /// Every other publisher goes through the balancer, the rest straight to the nodes.
    fn of_publisher(&self, name: usize) -> Vec<u16> {
        match self.balancer {
            Some(port) if name.is_multiple_of(2) => vec![port],
            _ => self.nodes.clone(),
        }
    }

    /// Where clients connect: through the balancer if there is one, unless they are to choose.
    fn targets(&self, direct: bool) -> Result<Vec<Target>> {
        let balancer = self.balancer.filter(|_| !direct);
        let ports = balancer.map_or_else(|| self.nodes.clone(), |port| vec![port]);
        ports.iter().map(|port| Target::parse(&format!("ws://127.0.0.1:{port}/beta"), false)).collect()
    }
}
