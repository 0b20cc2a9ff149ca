//! What is counted of calls of back ends. Names of back ends come from the configuration.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use super::gauges::as_i64;

const CALLS: &str = "gatecast_backend_calls_total";
const SECONDS: &str = "gatecast_backend_call_duration_seconds";
const WAITING: &str = "gatecast_backend_calls_waiting";
const IN_FLIGHT: &str = "gatecast_backend_calls_in_flight";
const CREDENTIALS: &str = "gatecast_credentials_fetched_total";
const BREAKER: &str = "gatecast_backend_breaker_open";

/// From an application on this host to the longest time there is.
const BUCKETS: [f64; 14] =
    [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 29.0];

/// See the [module documentation](self).
#[derive(Clone, Debug)]
pub(crate) struct BackendMetrics {
    calls: IntCounterVec,
    seconds: HistogramVec,
    waiting: IntGaugeVec,
    in_flight: IntGaugeVec,
    breaker: IntGaugeVec,
    pub(crate) credentials: CredentialMetrics,
}

/// How often credentials of AWS were fetched.
#[derive(Clone, Debug)]
pub(crate) struct CredentialMetrics(IntCounterVec);

/// What is counted of one back end.
#[derive(Debug)]
pub(crate) struct TargetMetrics {
    calls: [IntCounter; CallOutcome::ALL.len()],
    seconds: Histogram,
    waiting: IntGauge,
    in_flight: IntGauge,
    breaker: IntGauge,
}

/// How a call has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CallOutcome {
    Ok,
    Failed,
    TimedOut,
    Unreachable,
    Overload,
}

impl CallOutcome {
    const ALL: [Self; 5] =
        [Self::Ok, Self::Failed, Self::TimedOut, Self::Unreachable, Self::Overload];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::TimedOut => "timeout",
            Self::Unreachable => "unreachable",
            Self::Overload => "overload",
        }
    }
}

impl BackendMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let calls = Opts::new(CALLS, "Calls of back ends, by how they ended.");
        let help = "Time from when a call was taken to its answer, waiting included.";
        let seconds = HistogramOpts::new(SECONDS, help).buckets(BUCKETS.to_vec());
        let waiting = Opts::new(WAITING, "Calls that wait for their turn.");
        let in_flight = Opts::new(IN_FLIGHT, "Calls under way.");
        let breaker =
            Opts::new(BREAKER, "1 while calls fail at once, because the back end did not answer.");
        let credentials =
            Opts::new(CREDENTIALS, "Times that credentials of AWS were fetched, by the outcome.");
        let metrics = Self {
            credentials: CredentialMetrics(IntCounterVec::new(credentials, &["outcome"])?),
            calls: IntCounterVec::new(calls, &["target", "outcome"])?,
            seconds: HistogramVec::new(seconds, &["target"])?,
            waiting: IntGaugeVec::new(waiting, &["target"])?,
            in_flight: IntGaugeVec::new(in_flight, &["target"])?,
            breaker: IntGaugeVec::new(breaker, &["target"])?,
        };
        registry.register(Box::new(metrics.calls.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        registry.register(Box::new(metrics.waiting.clone()))?;
        registry.register(Box::new(metrics.in_flight.clone()))?;
        registry.register(Box::new(metrics.breaker.clone()))?;
        registry.register(Box::new(metrics.credentials.0.clone()))?;
        for outcome in [CallOutcome::Ok, CallOutcome::Failed] {
            metrics.credentials.0.with_label_values(&[outcome.label()]);
        }
        Ok(metrics)
    }

    /// Returns what is counted of one back end; its counters are there from now on.
    pub(crate) fn of(&self, target: &str) -> TargetMetrics {
        TargetMetrics {
            calls: CallOutcome::ALL
                .map(|outcome| self.calls.with_label_values(&[target, outcome.label()])),
            seconds: self.seconds.with_label_values(&[target]),
            waiting: self.waiting.with_label_values(&[target]),
            in_flight: self.in_flight.with_label_values(&[target]),
            breaker: self.breaker.with_label_values(&[target]),
        }
    }
}

impl CredentialMetrics {
    pub(crate) fn fetched(&self, is_ok: bool) {
        let outcome = if is_ok { CallOutcome::Ok } else { CallOutcome::Failed };
        self.0.with_label_values(&[outcome.label()]).inc();
    }
}

impl TargetMetrics {
    pub(crate) fn called(&self, outcome: CallOutcome, time: Duration) {
        if let Some(calls) = self.calls.get(outcome as usize) {
            calls.inc();
        }
        self.seconds.observe(time.as_secs_f64());
    }

    pub(crate) fn waiting(&self, waiting: usize, in_flight: usize) {
        self.waiting.set(as_i64(waiting));
        self.in_flight.set(as_i64(in_flight));
    }

    pub(crate) fn breaker(&self, is_open: bool) {
        self.breaker.set(is_open.into());
    }
}
