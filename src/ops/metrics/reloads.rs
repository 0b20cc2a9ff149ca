//! What came of reading the configuration again.

use std::time::SystemTime;

use prometheus::{Gauge, IntCounterVec, IntGauge, Opts, Registry};

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct ReloadMetrics {
    reloads: IntCounterVec,
    is_accepted: IntGauge,
    applied_at: Gauge,
}

/// What became of one reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReloadOutcome {
    /// Its changes are in force.
    Applied,
    /// Nothing that a reload applies has changed.
    Unchanged,
    /// It has faults; all stays as it was.
    Refused,
}

impl ReloadOutcome {
    const ALL: [Self; 3] = [Self::Applied, Self::Unchanged, Self::Refused];

    fn label(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

impl ReloadMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let reloads = Opts::new(
            "gatecast_reloads_total",
            "Times that the configuration was read again, by what came of it.",
        );
        let metrics = Self {
            reloads: IntCounterVec::new(reloads, &["outcome"])?,
            is_accepted: IntGauge::new(
                "gatecast_config_last_reload_successful",
                "0 from when a configuration is refused until one is accepted, otherwise 1.",
            )?,
            applied_at: Gauge::new(
                "gatecast_config_applied_timestamp_seconds",
                "When the settings in force were taken, at the start or by a reload, since 1970.",
            )?,
        };
        registry.register(Box::new(metrics.reloads.clone()))?;
        registry.register(Box::new(metrics.is_accepted.clone()))?;
        registry.register(Box::new(metrics.applied_at.clone()))?;
        // Counters are there from the start, at 0.
        for outcome in ReloadOutcome::ALL {
            metrics.reloads.with_label_values(&[outcome.label()]);
        }
        metrics.is_accepted.set(1);
        metrics.stamp();
        Ok(metrics)
    }

    pub(crate) fn count(&self, outcome: ReloadOutcome) {
        self.reloads.with_label_values(&[outcome.label()]).inc();
        self.is_accepted.set((outcome != ReloadOutcome::Refused).into());
        if outcome == ReloadOutcome::Applied {
            self.stamp();
        }
    }

    fn stamp(&self) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.applied_at.set(since.as_secs_f64());
    }
}
