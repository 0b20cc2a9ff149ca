//! Sends to single connections by their ids, through any node, and notes what it was told.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;

use super::subscriber::Connections;
use crate::faults::log::{Clock, Post, post_text};
use crate::shared::random::Random;
use crate::shared::request as http;
use crate::shared::wait::Stop;

/// Somewhat longer than a node waits for Redis.
const PATIENCE: Duration = Duration::from_millis(2500);
const PERIOD: Duration = Duration::from_millis(25);
/// Of so many posts one goes to a connection of which nobody knows whether it is open.
const ANY: usize = 5;

/// All posts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Posts(Arc<Mutex<Vec<Post>>>);

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Poster {
    pub(crate) doors: Vec<u16>,
    pub(crate) to: Vec<Connections>,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) posts: Posts,
    pub(crate) quiet: Stop,
}

impl Posts {
    pub(crate) fn all(&self) -> Vec<Post> {
        self.0.lock().clone()
    }

    /// Notes a post that begins; returns its number.
    fn begin(&self, to: &str, now: Duration) -> u32 {
        let mut all = self.0.lock();
        let number = u32::try_from(all.len()).unwrap_or(u32::MAX);
        all.push(Post { number, to: to.to_owned(), posted: now, answered: Duration::MAX, status: None });
        number
    }

    fn end(&self, number: u32, status: Option<u16>, now: Duration) {
        if let Some(post) = self.0.lock().get_mut(number as usize) {
            (post.status, post.answered) = (status, now);
        }
    }
}

impl Poster {
    /// Runs until it is to be quiet.
    pub(crate) fn start(mut self) -> JoinHandle<()> {
        thread::spawn(move || {
            while self.quiet.sleep(PERIOD) {
                let Some(id) = self.draw() else { continue };
                let door = self.doors.get(self.random.below(self.doors.len())).copied().unwrap_or_default();
                let number = self.posts.begin(&id, self.clock.now());
                let path = format!("/beta/@connections/{}", id.replace('=', "%3D"));
                let answer = http::request(door, ("POST", &path), &post_text(number), PATIENCE);
                self.posts.end(number, answer.ok().map(|answer| answer.status), self.clock.now());
            }
        })
    }

    /// Returns the id of somebody's connection, as a rule one that is open.
    fn draw(&mut self) -> Option<String> {
        let any = self.random.below(ANY) == 0;
        let whose = self.to.get(self.random.below(self.to.len()))?;
        let connections = whose.lock();
        let mut known = connections.iter().rev().filter(|each| !each.id.is_empty());
        known.find(|each| any || each.ended.is_none()).map(|each| each.id.clone())
    }
}
