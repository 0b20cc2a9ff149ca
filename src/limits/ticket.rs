//! The right to be connected.
//!
//! Rule: a ticket goes wherever its connection goes. Dropping it, for whatever reason, ends the
//! connection for callers, has `$disconnect` run and frees the place: once.

use std::fmt;
use std::sync::Arc;

use crate::limits::places::Place;
use crate::model::registry::Record;
use crate::ops::metrics::Metrics;
use crate::protocol::close::Close;

/// Runs `$disconnect` for connections of this node, once each.
pub(crate) trait Disconnects: fmt::Debug + Send + Sync {
    /// A connection has ended.
    fn begin(self: Arc<Self>, record: &Arc<Record>, close: &Close);
}

/// The right to be connected.
#[derive(Debug)]
pub(crate) struct Ticket {
    record: Arc<Record>,
    disconnects: Arc<dyn Disconnects>,
    metrics: Arc<Metrics>,
    /// Why the connection ended; a ticket that nobody ends was lost with its connection.
    close: Close,
    place: Place,
}

impl Ticket {
    /// Gives out a ticket for a connection that was let in, and counts it.
    pub(crate) fn new(
        record: Arc<Record>,
        disconnects: Arc<dyn Disconnects>,
        metrics: Arc<Metrics>,
        place: Place,
    ) -> Self {
        metrics.opened.inc();
        metrics.connections.inc();
        Self { record, disconnects, metrics, close: Close::Lost, place }
    }

    pub(crate) fn record(&self) -> &Arc<Record> {
        &self.record
    }

    /// Notes that the connection is cut, and messages with it.
    pub(crate) fn count_cut(&self) {
        self.place.count_cut();
    }

    /// Ends the connection's time here.
    pub(crate) fn end(mut self, close: Close) {
        self.close = close;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.metrics.connections.dec();
        self.metrics.count_closed(&self.close);
        Arc::clone(&self.disconnects).begin(&self.record, &self.close);
        tracing::debug!(conn.id = %self.record.id, code = self.close.code(), reason = self.close.label(), "disconnected");
    }
}

/// Of connections that nobody let in: of tests and benchmarks.
#[cfg(any(test, feature = "bench"))]
pub(crate) mod fake {
    use std::net::Ipv4Addr;

    use jiff::Timestamp;

    use super::*;
    use crate::limits::places::Places;
    use crate::model::id::{ConnectionId, NodeTag};

    #[derive(Debug)]
    struct Nobody;

    impl Disconnects for Nobody {
        fn begin(self: Arc<Self>, _: &Arc<Record>, _: &Close) {}
    }

    /// Returns a ticket for a connection from this host.
    pub(crate) fn ticket(tag: NodeTag, metrics: &Arc<Metrics>) -> Ticket {
        let record = Record {
            id: ConnectionId::mint(tag),
            source_ip: Ipv4Addr::LOCALHOST.into(),
            user_agent: None,
            user: None,
            connected_at: Timestamp::now(),
        };
        let (place, _) = Arc::new(Places::default()).take(None);
        Ticket::new(Arc::new(record), Arc::new(Nobody), Arc::clone(metrics), place)
    }
}
