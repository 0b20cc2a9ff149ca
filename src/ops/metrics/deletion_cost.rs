//! What the keeper of deletion costs counts, and the one figure that it reads of nodes.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::{CostFault, HttpMetrics, encode};

const ROUNDS: &str = "gatecast_deletion_cost_rounds_total";
const PATCHES: &str = "gatecast_deletion_cost_patches_total";
const FAULTS: &str = "gatecast_deletion_cost_faults_total";
const PODS: &str = "gatecast_deletion_cost_pods";

/// See the [module documentation](self).
#[derive(Clone, Debug)]
pub(crate) struct CostMetrics {
    registry: Registry,
    rounds: IntCounterVec,
    faults: IntCounterVec,
    pub(crate) patches: IntCounter,
    pub(crate) pods: IntGauge,
    /// Of the admin port; a node's have the same names.
    pub(crate) accepted: IntCounter,
    pub(crate) accept_errors: IntCounter,
    pub(crate) http: HttpMetrics,
}

impl CostMetrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let rounds = Opts::new(ROUNDS, "Looks at all pods, by how they ended.");
        let faults = Opts::new(FAULTS, "What went wrong in rounds, by kind.");
        let accepted =
            Opts::new("gatecast_http_connections_accepted_total", "HTTP connections accepted.");
        let accepted = IntCounterVec::new(accepted, &["port"])?;
        let registry = Registry::new();
        let metrics = Self {
            http: HttpMetrics::register(&registry)?,
            registry,
            rounds: IntCounterVec::new(rounds, &["result"])?,
            faults: IntCounterVec::new(faults, &["kind"])?,
            patches: IntCounter::new(PATCHES, "Costs that were written.")?,
            pods: IntGauge::new(
                PODS,
                "Pods that said how many connections they have, when they were last asked.",
            )?,
            accepted: accepted.with_label_values(&["admin"]),
            accept_errors: IntCounter::new(
                "gatecast_http_accept_errors_total",
                "Failures to accept an HTTP connection.",
            )?,
        };
        metrics.registry.register(Box::new(accepted))?;
        metrics.registry.register(Box::new(metrics.accept_errors.clone()))?;
        metrics.registry.register(Box::new(metrics.rounds.clone()))?;
        metrics.registry.register(Box::new(metrics.faults.clone()))?;
        metrics.registry.register(Box::new(metrics.patches.clone()))?;
        metrics.registry.register(Box::new(metrics.pods.clone()))?;
        // Counters are there from the start, at 0, as a node's are.
        CostFault::ALL.iter().for_each(|fault| metrics.count_fault(*fault, 0));
        ["ok", "failed"]
            .iter()
            .for_each(|result| drop(metrics.rounds.with_label_values(&[*result])));
        Ok(metrics)
    }

    /// Writes all metrics in the text format of Prometheus.
    pub(crate) fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        encode(&self.registry)
    }

    pub(crate) fn count_round(&self, is_ok: bool) {
        self.rounds.with_label_values(&[if is_ok { "ok" } else { "failed" }]).inc();
    }

    pub(crate) fn count_fault(&self, fault: CostFault, count: u64) {
        self.faults.with_label_values(&[fault.label()]).inc_by(count);
    }
}

/// Returns how many connections a node has, from its page `/metrics`.
pub(crate) fn connections(page: &str) -> Option<u64> {
    let value = page.lines().find_map(|line| line.strip_prefix("gatecast_connections "))?;
    value.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::metrics::Metrics;

    #[test]
    fn a_nodes_own_page_is_understood() {
        let metrics = Metrics::new().expect("metrics");
        metrics.connections.set(4_711);
        metrics.connections_limit.set(99);
        let page = String::from_utf8(metrics.render().expect("a page")).expect("UTF-8");
        assert_eq!(connections(&page), Some(4_711));
    }

    #[test]
    fn what_is_no_count_is_none() {
        assert_eq!(connections("gatecast_connections 7 1700000000000\n"), Some(7));
        for page in [
            "",
            "# HELP gatecast_connections Connections open now.\n",
            "gatecast_connections_limit 7\n",
            "gatecast_connections\n",
            "gatecast_connections \n",
            "gatecast_connections -1\n",
            "gatecast_connections NaN\n",
            "gatecast_connections 18446744073709551616\n",
            "<html>gatecast_connections 7</html>",
        ] {
            assert_eq!(connections(page), None, "{page:?}");
        }
    }
}
