//! How many connections a node has.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::limits::addresses::Guest;

/// Counts connections, from before `$connect` to after `$disconnect`.
#[derive(Debug, Default)]
pub(crate) struct Places {
    taken: AtomicUsize,
    closed: AtomicBool,
    /// Connections that were cut, and messages with them, since.
    cut: AtomicUsize,
    freed: Notify,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    _guest: Option<Box<Guest>>,
}

impl Places {
    /// Takes a place, and says how many were taken before.
    pub(crate) fn take(self: &Arc<Self>, guest: Option<Box<Guest>>) -> (Place, usize) {
        let before = self.taken.fetch_add(1, Ordering::SeqCst);
        (Place { places: Arc::clone(self), _guest: guest }, before)
    }

    /// Returns whether further clients are refused.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Refuses all further clients.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Returns how many connections there are, handshakes included.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    /// Returns how many connections were cut since no more clients are let in.
    pub(crate) fn cut(&self) -> usize {
        self.cut.load(Ordering::SeqCst)
    }

    /// Waits until a place is freed after this call. *Cancel safe.*
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }
}

impl Place {
    /// Notes that its connection was cut; only the end of the node makes that a matter of the node.
    pub(crate) fn count_cut(&self) {
        if self.places.is_closed() {
            self.places.cut.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.fetch_sub(1, Ordering::SeqCst);
        self.places.freed.notify_one();
    }
}
