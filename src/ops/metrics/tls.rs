//! What is counted where TLS is ended, and where connections are carried on from there.

use prometheus::{IntCounterVec, Opts};

use super::Metrics;
use super::labels::{MappedOutcome, TlsOutcome};

const HANDSHAKES: &str = "gatecast_tls_handshakes_total";
const MAPPED: &str = "gatecast_mapped_host_connections_total";

/// See the [module documentation](self).
#[derive(Clone, Debug)]
pub(crate) struct TlsMetrics {
    handshakes: IntCounterVec,
    mapped: IntCounterVec,
}

/// Counts the handshakes of one port.
#[derive(Clone, Debug)]
pub(crate) struct TlsHandshakes {
    all: IntCounterVec,
    port: &'static str,
}

impl TlsMetrics {
    /// Adds them to those of a node, once.
    pub(crate) fn register(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let handshakes = Opts::new(HANDSHAKES, "Handshakes of TLS, by port and how they ended.");
        let mapped = Opts::new(
            MAPPED,
            "Connections of functions to hosts that are mapped to addresses, by how they ended.",
        );
        let handshakes = IntCounterVec::new(handshakes, &["port", "outcome"])?;
        let mapped = IntCounterVec::new(mapped, &["outcome"])?;
        metrics.registry.register(Box::new(handshakes.clone()))?;
        metrics.registry.register(Box::new(mapped.clone()))?;
        MappedOutcome::ALL.iter().for_each(|one| drop(mapped.with_label_values(&[one.label()])));
        Ok(Self { handshakes, mapped })
    }

    /// Returns what counts the handshakes of a port, which are there from the start, at 0.
    pub(crate) fn port(&self, port: &'static str) -> TlsHandshakes {
        let all = self.handshakes.clone();
        TlsOutcome::ALL.iter().for_each(|one| drop(all.with_label_values(&[port, one.label()])));
        TlsHandshakes { all, port }
    }

    pub(crate) fn count_mapped(&self, outcome: MappedOutcome) {
        self.mapped.with_label_values(&[outcome.label()]).inc();
    }
}

impl TlsHandshakes {
    pub(crate) fn count(&self, outcome: TlsOutcome) {
        self.all.with_label_values(&[self.port, outcome.label()]).inc();
    }
}
