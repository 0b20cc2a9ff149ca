//! Which channels wait to be read, and what becomes of what was read.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::{Channels, Errand, Next, Request, State};
use crate::cluster::broker::redis::pace::RepairPace;
use crate::cluster::broker::redis::track::{Reading, Step};
use crate::model::broker::PublishError;
use crate::ops::metrics::{Foreign, Recovery};

/// Names of channels that are gone which may wait to be read.
const QUEUE_SLACK: usize = 1_024;
/// How long a shard has to answer. One that does not has members without room.
const ANSWER_TIME: Duration = Duration::from_millis(50);

impl Channels {
    /// Puts a channel behind those that wait to be read.
    pub(super) fn read_soon(&self, state: &mut State, name: &str) {
        let State { entries, unread: [beginnings, repairs], .. } = state;
        let Some(entry) = entries.get_mut(name).filter(|entry| !entry.is_unread) else { return };
        entry.is_unread = true;
        let (errand, queue) = if entry.track.has_begun() {
            (Errand::Repair, repairs)
        } else {
            (Errand::Beginning, beginnings)
        };
        queue.push_back(name.to_owned());
        if queue.len() > 2 * entries.len() + QUEUE_SLACK {
            queue.retain(|name| entries.get(name).is_some_and(|entry| entry.is_unread));
        }
        self.notify(errand).notify_one();
    }

    fn notify(&self, errand: Errand) -> &Notify {
        let [beginning, repair] = &self.to_read;
        match errand {
            Errand::Beginning => beginning,
            Errand::Repair => repair,
        }
    }

    /// Waits until there is something to read.
    pub(in super::super) async fn to_read(&self, errand: Errand) {
        self.notify(errand).notified().await;
    }

    /// Returns what to read of at most `count` channels, those first that have waited longest.
    pub(in super::super) fn take_unread(&self, errand: Errand, count: usize) -> Vec<Request> {
        let mut state = self.state.lock();
        let State { entries, unread: [beginnings, repairs], readings, .. } = &mut *state;
        let queue = if errand == Errand::Beginning { beginnings } else { repairs };
        let mut requests = Vec::new();
        while requests.len() < count
            && let Some(name) = queue.pop_front()
        {
            if let Some(entry) = entries.get_mut(&name).filter(|entry| entry.is_unread) {
                entry.is_unread = false;
                *readings += 1;
                let (after, number) = (entry.track.begin_reading(), *readings);
                entry.reading = number;
                requests.push(Request { name, after, number });
            }
        }
        requests
    }

    /// Puts a channel back to be read after the others.
    pub(in super::super) fn put_back(&self, name: &str) {
        self.read_soon(&mut self.state.lock(), name);
    }

    /// Returns whether the members of a channel have room for that many bytes more, or have been
    /// waited for long enough.
    pub(in super::super) async fn has_room(&self, name: &str, bytes: usize) -> bool {
        let asked = {
            let state = self.state.lock();
            let Some(entry) = state.entries.get(name) else { return true };
            if entry.pace.is_over(Instant::now()) {
                return true;
            }
            entry.ask_for_room(&self.hub, bytes)
        };
        let answers = timeout(ANSWER_TIME, join_all(asked)).await;
        let has_room = answers.is_ok_and(|answers| !answers.contains(&Ok(false)));
        if !has_room && let Some(entry) = self.state.lock().entries.get_mut(name) {
            entry.pace.hold_up(Instant::now());
        }
        has_room
    }

    /// Notes that Redis refuses to read a channel: who waits for it is told, and other channels go
    /// on.
    pub(in super::super) fn on_refused(&self, name: &str) {
        if let Some(entry) = self.state.lock().entries.get_mut(name) {
            entry.tell_waiting(&self.hub, Err(PublishError::Unavailable));
        }
    }

    /// Takes what was read of a channel's stream.
    pub(in super::super) fn on_reading(&self, request: &Request, reading: Reading<Bytes>) -> Next {
        let Request { name, after, number } = request;
        let mut state = self.state.lock();
        let Some(entry) = state.entries.get_mut(name).filter(|entry| entry.reading == *number)
        else {
            // It was asked for before what the other reader reads, or for members who have left.
            return Next::Done;
        };
        if entry.track.offset() != *after {
            // What has been delivered since may be more than what this knows of: it would be
            // delivered again.
            entry.track.suspect();
            return Next::Again;
        }
        let is_full = |shard: &usize| self.hub.inbox(*shard).is_full();
        if !reading.messages.is_empty() && entry.shards.iter().any(is_full) {
            return Next::Later;
        }
        let foreign = reading.messages.iter().filter(|(_, frame)| frame.is_none()).count();
        self.telemetry.metrics.count_foreign(Foreign::Entry, foreign);
        let had_begun = entry.track.has_begun();
        if !had_begun && std::mem::take(&mut entry.is_promised) && !reading.now.epoch.is_empty() {
            // Nobody knows how much was accepted since then.
            self.telemetry.metrics.count_recovery(Recovery::Lost, 0, 0);
            tracing::warn!(
                channel = name,
                "members joined without Redis, and have perhaps missed messages since"
            );
        }
        match entry.track.on_reading(reading) {
            Step::Restart { forgotten: 0, late: 0 } => Next::Again,
            Step::Restart { forgotten, late } => {
                self.telemetry.metrics.count_recovery(Recovery::Lost, 0, late);
                tracing::warn!(
                    channel = name,
                    forgotten,
                    late,
                    "Redis has forgotten messages that it had accepted, or has them again too late"
                );
                Next::Again
            }
            Step::Deliver { messages, lost, done } => {
                messages.iter().for_each(|frame| entry.push(&self.hub, frame, None));
                if lost > 0 {
                    tracing::warn!(
                        channel = name,
                        lost,
                        "messages were lost: the stream does not hold them any more"
                    );
                }
                if had_begun && (lost > 0 || !messages.is_empty()) {
                    let recovery = if lost > 0 { Recovery::Lost } else { Recovery::Repaired };
                    self.telemetry.metrics.count_recovery(recovery, messages.len(), lost);
                }
                entry.tell_waiting(&self.hub, Ok(()));
                entry.pace.go_on(Instant::now());
                if done {
                    entry.pace = RepairPace::default();
                    return Next::Done;
                }
                Next::Again
            }
        }
    }
}
