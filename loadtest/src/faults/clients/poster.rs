//! Sends to single connections by their ids, through any node, and notes what it was told.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::notes::{Connections, Posts};
use super::publisher::PATIENCE;
use crate::faults::log::{Clock, Post, post_text};
use crate::shared::gateway;
use crate::shared::http;
use crate::shared::random::Random;
use crate::shared::wait::Stop;

const PERIOD: Duration = Duration::from_millis(25);
/// One of this many posts goes to a connection that may be open or not.
const ANY: usize = 5;

/// One such client.
#[derive(Debug)]
pub(crate) struct Poster {
    /// Of the nodes.
    pub(crate) ports: Vec<u16>,
    pub(crate) to: Vec<Connections>,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) posts: Posts,
    pub(crate) stop: Stop,
}

impl Poster {
    /// Posts until it is stopped.
    pub(crate) fn start(mut self) -> JoinHandle<()> {
        thread::spawn(move || {
            while self.stop.sleep(PERIOD) {
                let Some(id) = self.choose() else { continue };
                let port = self
                    .ports
                    .get(self.random.below(self.ports.len()))
                    .copied()
                    .unwrap_or_default();
                let posted = self.clock.now();
                let number = self.posts.add(|place| Post {
                    number: u32::try_from(place).unwrap_or(u32::MAX),
                    to: id.clone(),
                    posted,
                    answered: Duration::MAX,
                    status: None,
                });
                let text = post_text(u32::try_from(number).unwrap_or(u32::MAX));
                let answer =
                    http::post(port, &gateway::connection_path(&id), ("", &text), PATIENCE);
                let answered = self.clock.now();
                self.posts.change(number, |post| {
                    (post.status, post.answered) =
                        (answer.ok().map(|answer| answer.status), answered);
                });
            }
        })
    }

    /// Returns the id of a random client's connection, usually one that is open.
    fn choose(&mut self) -> Option<String> {
        let any = self.random.below(ANY) == 0;
        let connections = self.to.get(self.random.below(self.to.len()))?;
        connections.read(|all| {
            let mut known = all.iter().rev().filter(|each| !each.id.is_empty());
            known.find(|each| any || each.ended.is_none()).map(|each| each.id.clone())
        })
    }
}
