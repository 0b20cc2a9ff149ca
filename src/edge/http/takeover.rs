//! The way of a socket from the HTTP server to a shard.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::model::id::ConnectionId;
use crate::shard::hub::Hub;
use crate::shard::socket::NewSocket;

/// Who takes an HTTP connection's socket over once its answer is written, if anybody; an extension
/// of every request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Takeover(Arc<Mutex<Option<HandOver>>>);

#[derive(Debug)]
struct HandOver {
    id: ConnectionId,
    hub: Arc<Hub>,
}

impl Takeover {
    /// Promises the socket to the shard of a connection.
    pub(super) fn expect(&self, id: ConnectionId, hub: Arc<Hub>) {
        *self.0.lock() = Some(HandOver { id, hub });
    }

    /// Takes the promise back.
    pub(super) fn forget(&self) {
        *self.0.lock() = None;
    }

    /// Returns whether somebody waits for the socket.
    pub(super) fn is_expected(&self) -> bool {
        self.0.lock().is_some()
    }

    /// Gives the socket to its shard, with what was read behind the request, or tells it that none
    /// will come. To be called when HTTP is done with the connection.
    pub(super) fn take_over(self, socket: io::Result<NewSocket>) {
        let Some(HandOver { id, hub }) = self.0.lock().take() else { return };
        match &socket {
            Ok(_) => tracing::debug!(conn.id = %id, "connected"),
            Err(error) => {
                tracing::debug!(conn.id = %id, %error, "the client went away during its handshake");
            }
        }
        hub.attach(id, socket.ok());
    }
}
