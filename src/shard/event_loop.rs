//! What a shard has of the kernel.

use std::io;
use std::sync::Arc;

use mio::{Poll, Token, Waker};

use super::inbox::Inbox;
use crate::limits::budget::{Budget, Kind};

/// The inbox's waker.
pub(super) const WAKER: Token = Token(usize::MAX);

/// The kernel's side of a shard, made before its connections' world exists.
#[derive(Debug)]
pub(crate) struct EventLoop {
    pub(super) poll: Poll,
    pub(super) inbox: Arc<Inbox>,
}

impl EventLoop {
    /// Asks the kernel for what one of the shards needs.
    ///
    /// # Errors
    /// The kernel's: no descriptors left.
    pub(crate) fn open(budget: &Budget, index: usize, shards: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (weight, max_weight) = (budget.gauge(Kind::Inboxes, index), budget.queue_bytes(shards));
        Ok(Self { poll, inbox: Arc::new(Inbox::new(waker, weight, max_weight)) })
    }

    pub(crate) fn inbox(&self) -> Arc<Inbox> {
        Arc::clone(&self.inbox)
    }
}
