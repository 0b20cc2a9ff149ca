//! What a turn did, counted without atomics and added to the metrics once.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use prometheus::{Counter, Histogram};

use crate::limits::budget::{Budget, Gauge, Kind};
use crate::model::trace_context::TraceContext;
use crate::ops::metrics::{LagStage, Metrics, as_i64};
use crate::ops::telemetry::Telemetry;
use crate::ops::trace::Tracer;
use crate::shard::outbox::Load;

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Tally {
    shard: usize,
    metrics: Arc<Metrics>,
    tracer: Arc<Tracer>,
    budget: Arc<Budget>,
    /// What this shard's outboxes hold, and what has arrived of messages that are not whole.
    outboxes: Gauge,
    partials: Gauge,
    busy: Counter,
    lag_queue: Histogram,
    lag_socket: Histogram,
    received: u64,
    received_bytes: usize,
    thrown_away_bytes: usize,
    sent: u64,
    sent_bytes: usize,
    /// What came into outboxes, and what left them.
    queued: Load,
    unqueued: Load,
    /// What more of unfinished messages is held, and what less.
    partial: (usize, usize),
    joined: usize,
    left: usize,
    delivered: Vec<Instant>,
    /// Those that are sampled, again.
    traced: Vec<(TraceContext, Instant)>,
}

impl Tally {
    pub(super) fn new(
        shard: usize,
        Telemetry { metrics, tracer, .. }: &Telemetry,
        budget: &Arc<Budget>,
    ) -> Self {
        Self {
            shard,
            metrics: Arc::clone(metrics),
            tracer: Arc::clone(tracer),
            budget: Arc::clone(budget),
            outboxes: budget.gauge(Kind::Outboxes, shard),
            partials: budget.gauge(Kind::Partial, shard),
            busy: metrics.shard_busy.with_label_values(&[shard.to_string()]),
            lag_queue: metrics.lag_of(LagStage::Queue),
            lag_socket: metrics.lag_of(LagStage::Socket),
            received: 0,
            received_bytes: 0,
            thrown_away_bytes: 0,
            sent: 0,
            sent_bytes: 0,
            queued: Load::default(),
            unqueued: Load::default(),
            partial: (0, 0),
            joined: 0,
            left: 0,
            delivered: Vec::new(),
            traced: Vec::new(),
        }
    }

    pub(super) fn received(&mut self) {
        self.received += 1;
    }

    pub(super) fn received_bytes(&mut self, count: usize) {
        self.received_bytes += count;
    }

    /// Bytes were received for nothing.
    pub(super) fn thrown_away(&mut self, count: usize) {
        self.thrown_away_bytes += count;
    }

    /// Frames came into an outbox.
    pub(super) fn queued(&mut self, frames: u32, load: Load) {
        self.sent += u64::from(frames);
        self.queued += load;
    }

    /// Answers that wait for others hold as much now.
    pub(super) fn held(&mut self, before: Load, after: Load) {
        self.queued += after;
        self.unqueued += before;
    }

    /// Bytes went to a socket.
    pub(super) fn written(&mut self, bytes: usize) {
        self.sent_bytes += bytes;
    }

    /// An outbox holds less, wherever that went.
    pub(super) fn unqueued(&mut self, load: Load) {
        self.unqueued += load;
    }

    /// What has arrived of an unfinished message changed in size.
    pub(super) fn partial(&mut self, before: u32, after: u32) {
        self.partial.0 += after as usize;
        self.partial.1 += before as usize;
    }

    /// Returns how many bytes more are held than when that was last reported.
    pub(super) fn grown(&self) -> usize {
        (self.queued.own + self.partial.0).saturating_sub(self.unqueued.own + self.partial.1)
    }

    /// Returns bytes that many outboxes will hold, counted once.
    pub(super) fn share(&self, wire: Bytes) -> Bytes {
        self.outboxes.share(wire)
    }

    pub(super) fn joined(&mut self) {
        self.joined += 1;
    }

    pub(super) fn left(&mut self, count: usize) {
        self.left += count;
    }

    /// A message has come from the inbox; the write at the end of this turn is its socket stage.
    pub(super) fn delivered(
        &mut self,
        accepted_at: Instant,
        trace: Option<TraceContext>,
        now: Instant,
    ) {
        self.lag_queue.observe(now.saturating_duration_since(accepted_at).as_secs_f64());
        self.delivered.push(accepted_at);
        if let Some(trace) = trace {
            self.traced.push((trace, accepted_at));
        }
    }

    /// Adds all to the metrics at the end of a turn that began at `began`.
    pub(super) fn report(&mut self, began: Instant) {
        let now = Instant::now();
        for accepted_at in self.delivered.drain(..) {
            self.lag_socket.observe(now.saturating_duration_since(accepted_at).as_secs_f64());
        }
        let metrics = &self.metrics;
        for (trace, accepted_at) in self.traced.drain(..) {
            self.tracer.delivered(trace, self.shard, [accepted_at, began, now]);
        }
        self.busy.inc_by(now.saturating_duration_since(began).as_secs_f64());
        metrics.received.inc_by(std::mem::take(&mut self.received));
        metrics.received_bytes.inc_by(std::mem::take(&mut self.received_bytes) as u64);
        metrics.thrown_away_bytes.inc_by(std::mem::take(&mut self.thrown_away_bytes) as u64);
        metrics.sent.inc_by(std::mem::take(&mut self.sent));
        metrics.sent_bytes.inc_by(std::mem::take(&mut self.sent_bytes) as u64);
        let left = std::mem::take(&mut self.left);
        metrics.group_members.add(as_i64(std::mem::take(&mut self.joined)) - as_i64(left));
        self.report_memory();
    }

    /// Adds what is held to the budget.
    pub(super) fn report_memory(&mut self) {
        let (queued, unqueued) =
            (std::mem::take(&mut self.queued), std::mem::take(&mut self.unqueued));
        let (more, less) = std::mem::take(&mut self.partial);
        self.metrics.outbox_bytes.add(as_i64(queued.all) - as_i64(unqueued.all));
        self.outboxes.add(queued.own);
        self.outboxes.sub(unqueued.own);
        if more != less {
            self.partials.add(more);
            self.partials.sub(less);
        }
        self.budget.renew();
    }
}
