//! Every metric, its help, its labels and its buckets.
//!
//! Only this file spells a metric name. Labels are closed sets: route keys come from the table,
//! never from a client. Gauges are moved by guards or by the one owner of what they count; hot
//! loops add once a batch.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{
    CounterVec, Encoder as _, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter,
    IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::model::trouble::RedisRefusal;
use crate::ops::refusals::Refusals;
use crate::protocol::close::Close;

use self::backends::BackendMetrics;
use self::begin::begin;
pub(crate) use self::functions::{FunctionCounters, FunctionMetrics};
pub(crate) use self::gauges::{GaugeGuard, as_i64};
pub(crate) use self::http::HttpMetrics;
pub(crate) use self::labels::{
    CostFault, CutCause, DropReason, Farewell, Foreign, FunctionEnd, FunctionOutcome, GivenUp,
    HttpState, LagStage, MappedOutcome, NameLimit, ProxyRefusal, PublishOutcome, Reconciled,
    Recovery, Refusal, RequestRefusal, RouteOutcome, SendLimit, TlsOutcome,
};
pub(crate) use self::reloads::{ReloadMetrics, ReloadOutcome};
pub(crate) use self::runs::Runs;
#[cfg(feature = "otlp")]
pub(crate) use self::spans::{SpanCounters, SpanDropReason};

pub(crate) mod backends;
mod begin;
pub(crate) mod deletion_cost;
pub(crate) mod functions;
mod gauges;
pub(crate) mod http;
mod labels;
pub(crate) mod memory;
pub(crate) mod process;
mod reloads;
mod runs;
mod runtime;
#[cfg(feature = "otlp")]
mod spans;
pub(crate) mod tls;

/// From a loopback round trip to a stuck client.
const LATENCY_BUCKETS: [f64; 14] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
    5.0,
];

/// What is done with a connection that does not keep up.
const SLOW_POLICY: &str = "disconnect";

/// Makes the struct and registers each field: the doc comment is the help text.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ident($name:literal $(, [$($label:literal),*])? $(; $buckets:expr)?);)+) => {
        /// All metrics of a node.
        #[derive(Debug)]
        pub(crate) struct Metrics {
            registry: Registry,
            /// Held while what others count is taken over: two readers at once would take it twice.
            reading: Mutex<()>,
            /// Writes what is refused into the log.
            pub(crate) refusals: Arc<Refusals>,
            pub(crate) http: HttpMetrics,
            pub(crate) reloads: ReloadMetrics,
            pub(crate) backends: BackendMetrics,
            pub(crate) functions: FunctionMetrics,
            $($(#[doc = $help])+ pub(crate) $field: $kind,)+
        }

        impl Metrics {
            fn register(registry: Registry) -> Result<Self, prometheus::Error> {
                $(
                    let help = concat!($($help),+).trim();
                    let $field = metrics!(@make $kind $name help $(, [$($label),*])? $(; $buckets)?);
                    registry.register(Box::new($field.clone()))?;
                )+
                let http = HttpMetrics::register(&registry)?;
                let reloads = ReloadMetrics::register(&registry)?;
                let backends = BackendMetrics::register(&registry)?;
                let functions = FunctionMetrics::register(&registry)?;
                Ok(Self {
                    registry,
                    reading: Mutex::new(()),
                    refusals: Arc::default(),
                    http,
                    reloads,
                    backends,
                    functions,
                    $($field,)+
                })
            }
        }
    };
    (@make Histogram $name:literal $help:ident; $buckets:expr) => {
        Histogram::with_opts(HistogramOpts::new($name, $help).buckets($buckets.to_vec()))?
    };
    (@make HistogramVec $name:literal $help:ident, [$($label:literal),*]; $buckets:expr) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets($buckets.to_vec()), &[$($label),*])?
    };
    (@make $kind:ident $name:literal $help:ident, [$($label:literal),*]) => {
        $kind::new(Opts::new($name, $help), &[$($label),*])?
    };
    (@make $kind:ident $name:literal $help:ident) => { $kind::new($name, $help)? };
}

metrics! {
    /// Always 1; the labels say what runs.
    build_info: IntGaugeVec("gatecast_build_info", ["version"]);
    /// Connections open now.
    connections: IntGauge("gatecast_connections");
    /// Connections that the node takes at most.
    connections_limit: IntGauge("gatecast_connections_limit");
    /// Connections opened.
    opened: IntCounter("gatecast_connections_opened_total");
    /// Connections ended, by close code, by who ended them and why.
    closed: IntCounterVec("gatecast_connections_closed_total", ["code", "initiator", "reason"]);
    /// Close frames sent, by how the clients took them.
    farewells: IntCounterVec("gatecast_close_handshakes_total", ["outcome"]);
    /// Bytes from clients that were thrown away because the connection was being closed.
    thrown_away_bytes: IntCounter("gatecast_thrown_away_bytes_total");
    /// HTTP connections accepted.
    accepted: IntCounterVec("gatecast_http_connections_accepted_total", ["port"]);
    /// Failures to accept an HTTP connection.
    accept_errors: IntCounter("gatecast_http_accept_errors_total");
    /// Connections refused for what they began with instead of a PROXY header, or because they may
    /// send none.
    proxy_headers_refused: IntCounterVec("gatecast_proxy_headers_refused_total", ["reason"]);
    /// Time from a handshake's request to its answer, $connect included.
    handshake_duration: Histogram("gatecast_handshake_duration_seconds"; LATENCY_BUCKETS);
    /// Handshakes refused.
    handshakes_rejected: IntCounterVec("gatecast_handshakes_rejected_total", ["reason"]);
    /// Groups and users with members on this node.
    channels: IntGauge("gatecast_channels");
    /// Memberships of this node's connections in groups.
    group_members: IntGauge("gatecast_group_members");
    /// Messages received from clients.
    received: IntCounter("gatecast_messages_received_total");
    /// Bytes received from clients, frame headers included.
    received_bytes: IntCounter("gatecast_received_bytes_total");
    /// Times that a client was not read from for a while since it had sent faster than it may, by
    /// limit.
    slowed: IntCounterVec("gatecast_senders_slowed_total", ["limit"]);
    /// Time for which clients were not read from since they had sent faster than they may, by
    /// limit.
    slowed_time: CounterVec("gatecast_senders_slowed_seconds_total", ["limit"]);
    /// Frames handed to the sockets of clients, control frames included.
    sent: IntCounter("gatecast_messages_sent_total");
    /// Bytes written to the sockets of clients.
    sent_bytes: IntCounter("gatecast_sent_bytes_total");
    /// Messages that the broker accepted for a channel.
    published: IntCounter("gatecast_messages_published_total");
    /// Messages that Redis did not take and that were delivered to this node's members alone.
    published_locally: IntCounter("gatecast_messages_published_local_total");
    /// Messages that wait for Redis to come back.
    buffer_messages: IntGauge("gatecast_buffer_messages");
    /// Bytes of messages that wait for Redis to come back.
    buffer_bytes: IntGauge("gatecast_buffer_bytes");
    /// Messages that were not published because their idempotency key had been seen.
    duplicates: IntCounter("gatecast_messages_duplicate_total");
    /// Time from a message's way to the broker to the broker's answer.
    publish_duration: HistogramVec("gatecast_publish_duration_seconds", ["outcome"]; LATENCY_BUCKETS);
    /// Messages that did not reach whom they were for.
    dropped: IntCounterVec("gatecast_messages_dropped_total", ["reason"]);
    /// Connections closed because they did not keep up.
    slow_consumers: IntCounterVec("gatecast_slow_consumer_disconnects_total", ["policy"]);
    /// Bytes waiting in outboxes, with what the queues need for each message.
    outbox_bytes: IntGauge("gatecast_outbox_bytes");
    /// Age of a channel's message when a stage has done its part: queue (a shard took it), socket
    /// (every member was written to or has it in its outbox).
    delivery_lag: HistogramVec("gatecast_delivery_lag_seconds", ["stage"]; LATENCY_BUCKETS);
    /// Time from a ping to its pong.
    ping_rtt: Histogram("gatecast_ping_rtt_seconds"; LATENCY_BUCKETS);
    /// Runs of routes; route "none" stands for no route matched.
    routes: IntCounterVec("gatecast_route_requests_total", ["route", "outcome"]);
    /// Requests of the management API, by operation and HTTP status.
    management: IntCounterVec("gatecast_management_requests_total", ["operation", "status"]);
    /// Time that the event loops were not waiting for events.
    shard_busy: CounterVec("gatecast_shard_busy_seconds_total", ["shard"]);
    /// Nodes that the registry names, this one included; one that died is named until the others
    /// have ended its connections.
    nodes: IntGauge("gatecast_nodes");
    /// 1 while Redis takes this node's writes and messages go through it; always 0 for a node that
    /// is alone.
    redis_up: IntGauge("gatecast_redis_up");
    /// Subscriber connections to Redis that ended, or could not be made.
    redis_reconnects: IntCounter("gatecast_redis_reconnects_total");
    /// Commands that Redis did not carry out: refused, or not answered.
    redis_errors: IntCounter("gatecast_redis_command_errors_total");
    /// What Redis refused, by the class of its error.
    redis_refusals: IntCounterVec("gatecast_redis_refusals_total", ["class"]);
    /// What was found in Redis that no node has written, and is not handed on.
    redis_foreign: IntCounterVec("gatecast_redis_foreign_total", ["kind"]);
    /// Groups that clients were refused since they named too many that were new to this node.
    new_channels_refused: IntCounterVec("gatecast_new_channels_refused_total", ["by"]);
    /// Memory that the fullest server of Redis uses.
    redis_memory_used: IntGauge("gatecast_redis_memory_used_bytes");
    /// Memory that it may use (`maxmemory`); 0 if it has no limit of its own.
    redis_memory_limit: IntGauge("gatecast_redis_memory_limit_bytes");
    /// How long streams keep messages now; less than is set while Redis is short of memory.
    stream_age: Gauge("gatecast_redis_stream_age_seconds");
    /// Time of a heartbeat through Redis and back.
    redis_round_trip: Histogram("gatecast_redis_round_trip_seconds"; LATENCY_BUCKETS);
    /// Gaps in channels that were read from the stream, by how that ended.
    recoveries: IntCounterVec("gatecast_recoveries_total", ["result"]);
    /// Messages that were delivered from the stream because they had not come.
    repaired: IntCounter("gatecast_messages_repaired_total");
    /// Messages that neither came nor were in the stream any more.
    lost: IntCounter("gatecast_messages_lost_total");
    /// Records of this node's connections that Redis lacked (written) or held too many (removed).
    reconciled: IntCounterVec("gatecast_registry_reconciled_total", ["result"]);
    /// Connections of dead nodes that this node has ended.
    reaped: IntCounter("gatecast_connections_reaped_total");
    /// Runs of $disconnect that were published again, since Redis did not take them or did not say
    /// so.
    disconnects_retried: IntCounter("gatecast_disconnects_retried_total");
    /// Runs of $disconnect that will never be published.
    disconnects_given_up: IntCounterVec("gatecast_disconnects_given_up_total", ["reason"]);
    /// 1 while the node is shutting down.
    draining: IntGauge("gatecast_draining");
    /// Connections that a shutdown has still to close.
    drain_remaining: IntGauge("gatecast_drain_remaining_connections");
    /// Closes a second that a shutdown has planned.
    drain_rate: Gauge("gatecast_drain_rate");
    /// Tasks of the async runtime.
    runtime_tasks: IntGauge("gatecast_runtime_tasks");
    /// Tasks waiting in the async runtime's queue.
    runtime_queue: IntGauge("gatecast_runtime_queue_depth");
    /// Time that the workers of the async runtime were not waiting.
    runtime_busy: CounterVec("gatecast_runtime_busy_seconds_total", ["worker"]);
    /// Panics of any thread or task.
    panics: IntCounter("gatecast_panics_total");
    /// Lines that are not in the log.
    log_lost: IntCounterVec("gatecast_log_lines_lost_total", ["reason"]);
    /// Lines that are not in the access log.
    access_lost: IntCounterVec("gatecast_access_log_lines_lost_total", ["reason"]);
    /// Memory that the process may use: the least of its control groups' limits and what the host
    /// has.
    memory_limit: IntGauge("gatecast_memory_limit_bytes");
    /// What clients and callers may make the node hold, as it is set, or half of the limit.
    memory_budget: IntGauge("gatecast_memory_budget_bytes");
    /// What they make it hold, by what for.
    memory_used: IntGaugeVec("gatecast_memory_used_bytes", ["kind"]);
}

impl Metrics {
    /// Registers all metrics, and those of the process.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let metrics = Self::register(registry)?;
        metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        metrics.nodes.set(1);
        metrics
            .memory_limit
            .set(memory::limit().and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or(i64::MAX));
        Close::kinds().iter().for_each(|close| drop(metrics.closed_as(close)));
        begin(&metrics.handshakes_rejected, Refusal::ALL, Refusal::label);
        begin(&metrics.recoveries, Recovery::ALL, Recovery::label);
        begin(&metrics.reconciled, Reconciled::ALL, Reconciled::label);
        begin(&metrics.redis_refusals, RedisRefusal::ALL, RedisRefusal::label);
        begin(&metrics.farewells, Farewell::ALL, Farewell::label);
        begin(&metrics.new_channels_refused, NameLimit::ALL, NameLimit::label);
        begin(&metrics.redis_foreign, Foreign::ALL, Foreign::label);
        begin(&metrics.dropped, DropReason::ALL, DropReason::label);
        begin(&metrics.disconnects_given_up, GivenUp::ALL, GivenUp::label);
        begin(&metrics.proxy_headers_refused, ProxyRefusal::ALL, ProxyRefusal::label);
        begin(&metrics.slowed, SendLimit::ALL, SendLimit::label);
        begin(&metrics.slowed_time, SendLimit::ALL, SendLimit::label);
        begin(&metrics.delivery_lag, LagStage::ALL, LagStage::label);
        begin(&metrics.publish_duration, PublishOutcome::ALL, PublishOutcome::label);
        metrics.slow_consumers.with_label_values(&[SLOW_POLICY]);
        Ok(metrics)
    }

    /// Registers what becomes of spans.
    #[cfg(feature = "otlp")]
    pub(crate) fn span_counters(&self) -> Result<SpanCounters, prometheus::Error> {
        SpanCounters::register(&self.registry)
    }

    /// Writes all metrics in the text format of Prometheus.
    pub(crate) fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let _reading = self.reading.lock();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.read_runtime(&runtime.metrics());
        }
        self.read_process();
        encode(&self.registry)
    }

    pub(crate) fn count_closed(&self, close: &Close) {
        self.closed_as(close).inc();
    }

    fn closed_as(&self, close: &Close) -> IntCounter {
        self.closed.with_label_values(&[
            close.code_label(),
            close.initiator().label(),
            close.label(),
        ])
    }

    pub(crate) fn count_farewell(&self, farewell: Farewell) {
        self.farewells.with_label_values(&[farewell.label()]).inc();
    }

    pub(crate) fn count_refusal(&self, refusal: Refusal) {
        self.handshakes_rejected.with_label_values(&[refusal.label()]).inc();
    }

    pub(crate) fn count_redis_refusal(&self, class: RedisRefusal) {
        self.redis_refusals.with_label_values(&[class.label()]).inc();
    }

    /// Counts how often and for how long senders were slowed.
    pub(crate) fn count_slowed(&self, limit: SendLimit, times: u64, time: Duration) {
        self.slowed.with_label_values(&[limit.label()]).inc_by(times);
        self.slowed_time.with_label_values(&[limit.label()]).inc_by(time.as_secs_f64());
    }

    pub(crate) fn count_proxy_refusal(&self, refusal: ProxyRefusal) {
        self.proxy_headers_refused.with_label_values(&[refusal.label()]).inc();
    }

    pub(crate) fn count_recovery(&self, recovery: Recovery, repaired: usize, lost: u64) {
        self.recoveries.with_label_values(&[recovery.label()]).inc();
        self.repaired.inc_by(repaired as u64);
        self.lost.inc_by(lost);
    }

    pub(crate) fn count_reconciled(&self, what: Reconciled, count: usize) {
        self.reconciled.with_label_values(&[what.label()]).inc_by(count as u64);
    }

    pub(crate) fn count_given_up(&self, reason: GivenUp) {
        self.disconnects_given_up.with_label_values(&[reason.label()]).inc();
    }

    /// Returns what counts the runs of a route.
    pub(crate) fn runs_of(&self, key: &str) -> Runs {
        Runs::of(&self.routes, key)
    }

    /// Counts a connection that did not keep up, and the messages it did not get.
    pub(crate) fn count_slow_consumer(&self, dropped: usize) {
        self.slow_consumers.with_label_values(&[SLOW_POLICY]).inc();
        self.count_dropped(DropReason::SlowConsumer, dropped);
    }

    pub(crate) fn count_dropped(&self, reason: DropReason, count: usize) {
        self.dropped.with_label_values(&[reason.label()]).inc_by(count as u64);
    }

    pub(crate) fn dropped_by(&self, reason: DropReason) -> u64 {
        self.dropped.with_label_values(&[reason.label()]).get()
    }

    pub(crate) fn count_new_channel_refused(&self, by: NameLimit) {
        self.new_channels_refused.with_label_values(&[by.label()]).inc();
    }

    pub(crate) fn count_foreign(&self, kind: Foreign, count: usize) {
        self.redis_foreign.with_label_values(&[kind.label()]).inc_by(count as u64);
    }

    pub(crate) fn observe_publish(&self, outcome: PublishOutcome, time: Duration) {
        self.publish_duration.with_label_values(&[outcome.label()]).observe(time.as_secs_f64());
    }

    /// Returns the histogram of a stage, for those who would look it up with every message.
    pub(crate) fn lag_of(&self, stage: LagStage) -> Histogram {
        self.delivery_lag.with_label_values(&[stage.label()])
    }
}

fn encode(registry: &Registry) -> Result<Vec<u8>, prometheus::Error> {
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(text)
}
