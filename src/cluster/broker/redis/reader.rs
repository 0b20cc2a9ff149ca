//! Reads channels: where a subscription begins, and what was missed.
//!
//! Two readers, so that a join, which asks only where the channel is, waits for no repair. A repair
//! is read in pages, whose channels take turns: together they have a bound in bytes, and what a
//! channel has more than its page waits behind the others. A page is delivered once all members
//! have room for it, or have been waited for long enough: who was behind gets all of it at the pace
//! of the socket, not in a burst that an outbox cannot hold. What cannot be read now is tried
//! again; what Redis refuses is answered to who waits, and concerns no other channel.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;

use super::channels::{Channels, Errand, Next, Request};
use super::page::{Pages, Wanted};
use super::track::Reading;
use crate::cluster::store::{Call, Store, StoreError};
use crate::config::Snapshots;
use crate::model::trouble::RedisRefusal;
use crate::shard::outbox::ENTRY;

/// Channels read in one pipeline.
const BATCH: usize = 64;
/// Messages read of one channel at a time.
const MESSAGES: usize = 256;
/// Bytes read in one pipeline, but for a last message of each channel, and no more than a quarter
/// of an outbox.
const BYTES: usize = 1 << 20;
/// Pause before members who had no room for more of a repair are asked again.
const ROOM_PAUSE: Duration = Duration::from_millis(10);
/// Pause before what could not be read is tried again: Redis is away, or an inbox is full.
const PAUSE: Duration = Duration::from_millis(50);
/// Pause before a channel that Redis refuses to read is tried again.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// See the [module documentation](self).
pub(super) struct Reader {
    pub(super) store: Store,
    pub(super) channels: Arc<Channels>,
    pub(super) pages: Pages,
    /// What this reader reads.
    pub(super) errand: Errand,
    pub(super) snapshots: Snapshots,
}

/// What was to be read of a channel, and what was read.
struct Page {
    request: Request,
    reading: Result<Reading<Bytes>, StoreError>,
}

/// Why a channel is not read now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wait {
    /// Members have no room for more of it.
    Room,
    /// It could not be read, or not be handed over.
    Read,
}

/// Channels to read later.
type Later = BTreeSet<(Instant, Wait, String)>;

impl Reader {
    /// Runs for ever.
    pub(super) async fn run(self) {
        let mut later = Later::new();
        loop {
            self.put_back_due(&mut later).await;
            let batch = self.channels.take_unread(self.errand, BATCH);
            if !batch.is_empty() {
                self.read_batch(batch, &mut later).await;
                continue;
            }
            let next = later.first().map(|(at, ..)| (*at).into());
            let come = self.channels.to_read(self.errand);
            match next {
                Some(at) => drop(tokio::time::timeout_at(at, come).await),
                None => come.await,
            }
        }
    }

    /// Puts channels back whose pause is over; nothing is read of one whose members have no room
    /// yet.
    async fn put_back_due(&self, later: &mut Later) {
        let now = Instant::now();
        let mut held_up = Vec::new();
        while later.first().is_some_and(|(at, ..)| *at <= now)
            && let Some((_, wait, name)) = later.pop_first()
        {
            match wait {
                Wait::Read => self.channels.put_back(&name),
                Wait::Room => held_up.push(name),
            }
        }
        let asked = held_up.iter().map(|name| self.channels.has_room(name, self.page_bytes()));
        let rooms = join_all(asked).await;
        for (name, has_room) in held_up.into_iter().zip(rooms) {
            if has_room {
                self.channels.put_back(&name);
            } else {
                later.insert((Instant::now() + ROOM_PAUSE, Wait::Room, name));
            }
        }
    }

    fn page_bytes(&self) -> usize {
        BYTES.min(self.snapshots.latest().limits.outbox_bytes / 4)
    }

    /// Reads what can be read, and delivers what there is room for; the rest is for later. A client
    /// may be a member of many channels, so room is asked for in parts, each for all of its pages
    /// together.
    async fn read_batch(&self, batch: Vec<Request>, later: &mut Later) {
        let readings = self.read(&batch).await;
        let page = |(request, reading)| Page { request, reading };
        let mut pages = batch.into_iter().zip(readings).map(page).peekable();
        while let Some(first) = pages.next() {
            let mut bytes = bytes_of(&first);
            let mut part = vec![first];
            while let Some(next) = pages.next_if(|next| bytes + bytes_of(next) <= self.page_bytes())
            {
                bytes += bytes_of(&next);
                part.push(next);
            }
            let asked = part.iter().map(|page| async move {
                bytes_of(page) == 0 || self.channels.has_room(&page.request.name, bytes).await
            });
            let rooms = join_all(asked).await;
            for (page, has_room) in part.into_iter().zip(rooms) {
                self.take(page, has_room, later);
            }
        }
    }

    /// Delivers a page, if there is room for it.
    fn take(&self, page: Page, has_room: bool, later: &mut Later) {
        let Page { request, reading } = page;
        if !has_room {
            later.insert((Instant::now() + ROOM_PAUSE, Wait::Room, request.name));
            return;
        }
        let result = reading.map(|reading| self.channels.on_reading(&request, reading));
        let name = request.name;
        let pause = match result {
            Ok(Next::Done) => return,
            Ok(Next::Again) => return self.channels.put_back(&name),
            Ok(Next::Later) => PAUSE,
            Err(error)
                if error
                    .class()
                    .is_some_and(|class| !class.is_moved_on() && class != RedisRefusal::Busy) =>
            {
                tracing::debug!(channel = name, %error, "reading a channel");
                self.channels.on_refused(&name);
                REFUSED_PAUSE
            }
            Err(error) => {
                tracing::debug!(channel = name, %error, "reading a channel");
                PAUSE
            }
        };
        later.insert((Instant::now() + pause, Wait::Read, name));
    }

    async fn read(&self, batch: &[Request]) -> Vec<Result<Reading<Bytes>, StoreError>> {
        let bytes = self.page_bytes() / batch.len().max(1);
        let call = |Request { name, after, .. }: &Request| {
            let wanted = Wanted { after: *after, messages: MESSAGES, bytes };
            Call::new(name.clone(), self.pages.command(name, wanted))
        };
        let calls: Vec<Call> = batch.iter().map(call).collect();
        let outcomes = self.store.run_all(Some(&self.pages.script), &calls).await;
        outcomes.into_iter().map(|outcome| self.pages.read(outcome.result?)).collect()
    }
}

/// Returns how much an outbox needs for a page, at most.
fn bytes_of(page: &Page) -> usize {
    let frames = page
        .reading
        .iter()
        .flat_map(|reading| &reading.messages)
        .filter_map(|(_, frame)| frame.as_ref());
    frames.map(|frame| frame.len() + ENTRY).sum()
}
