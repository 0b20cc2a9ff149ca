//! Notes that threads take and the judge reads; clones share them.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::faults::log::{Connection, Post, Publication};

/// A list to which threads add.
#[derive(Debug)]
pub(crate) struct Notes<T>(Arc<Mutex<Vec<T>>>);

/// Publications of all publishers.
pub(crate) type Publications = Notes<Publication>;
/// Posts of all posters.
pub(crate) type Posts = Notes<Post>;
/// The connections of one client, the present one last.
pub(crate) type Connections = Notes<Connection>;

impl<T> Notes<T> {
    /// Adds what `note` makes of its place, and returns the place.
    pub(crate) fn add(&self, note: impl FnOnce(usize) -> T) -> usize {
        let mut all = self.0.lock();
        let place = all.len();
        all.push(note(place));
        place
    }

    pub(crate) fn change(&self, place: usize, change: impl FnOnce(&mut T)) {
        if let Some(note) = self.0.lock().get_mut(place) {
            change(note);
        }
    }

    pub(crate) fn change_last(&self, change: impl FnOnce(&mut T)) {
        if let Some(note) = self.0.lock().last_mut() {
            change(note);
        }
    }

    pub(crate) fn read<R>(&self, read: impl FnOnce(&[T]) -> R) -> R {
        read(&self.0.lock())
    }
}

impl<T: Clone> Notes<T> {
    pub(crate) fn all(&self) -> Vec<T> {
        self.0.lock().clone()
    }
}

impl<T> Clone for Notes<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Notes<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}
