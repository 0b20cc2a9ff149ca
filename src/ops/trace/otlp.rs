//! The tracer: what is sampled, and what its spans say.
//!
//! Rule: who makes a span waits for nobody. It goes into a bounded queue, and is dropped and
//! counted where that is full. No span has a payload, or the name of a group or user.

use std::borrow::Cow;
use std::time::{Instant, SystemTime};

use http::{HeaderMap, StatusCode};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId,
    TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use prometheus::IntCounter;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::called::Called;
use super::exporter::Exporter;
use super::settings::{TraceError, Tracing};
use crate::model::call::{Event, Occasion};
use crate::model::trace_context::TraceContext;
use crate::model::trail::Trail;
use crate::ops::lifecycle::Lifecycle;
use crate::ops::metrics::{Metrics, SpanDropReason};

/// Spans that wait to be exported; as in the standard's own processor.
const QUEUE: usize = 2_048;

/// Decides what is sampled, and takes its spans.
#[derive(Debug, Default)]
pub(crate) struct Tracer(Option<Running>);

#[derive(Debug)]
struct Running {
    /// What is below it, of the lower 63 bits of a trace's id, is sampled: the standard's way.
    threshold: u64,
    spans: mpsc::Sender<SpanData>,
    overflown: IntCounter,
    scope: InstrumentationScope,
}

/// What a span is besides its place in its trace.
struct Span {
    name: Cow<'static, str>,
    kind: SpanKind,
    from: Instant,
    to: Instant,
    attributes: Vec<KeyValue>,
    link: Option<TraceContext>,
}

impl Tracer {
    /// Starts to export, if there is where to.
    ///
    /// # Errors
    /// The endpoint is no URL.
    pub(crate) fn start(
        settings: &Tracing,
        node_name: &str,
        metrics: &Metrics,
        lifecycle: &Lifecycle,
    ) -> Result<Self, TraceError> {
        let Some(endpoint) = &settings.endpoint else { return Ok(Self::default()) };
        let counters = metrics.span_counters().map_err(|error| TraceError(error.into()))?;
        let overflown = counters.dropped(SpanDropReason::QueueFull);
        let (spans, to_export) = mpsc::channel(QUEUE);
        let exporter = Exporter::new(settings, node_name, endpoint, counters)?;
        lifecycle.spawn_vital(
            "exporter of spans",
            lifecycle.ending(),
            exporter.run(to_export, lifecycle.ending()),
        );
        let threshold = threshold(settings.ratio);
        let scope = InstrumentationScope::builder("gatecast")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        Ok(Self(Some(Running { threshold, spans, overflown, scope })))
    }

    /// Returns where a message's spans belong, if it is sampled; the same on every node.
    pub(crate) fn message(&self, channel: &str, epoch: &str, offset: u64) -> Option<TraceContext> {
        let running = self.0.as_ref().filter(|running| running.threshold > 0)?;
        let context = of_message(channel, epoch, offset);
        running.samples(context.trace).then_some(context)
    }

    /// Returns where a request's spans belong, if it is sampled. A caller who may decide that does
    /// so by its `traceparent`.
    pub(crate) fn request(&self, caller: Option<&HeaderMap>) -> Option<TraceContext> {
        let running = self.0.as_ref()?;
        if let Some(headers) = caller.filter(|headers| headers.contains_key("traceparent")) {
            let parent = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
            let parent = parent.span().span_context().clone();
            if parent.is_valid() {
                let own = || TraceContext {
                    trace: parent.trace_id(),
                    span: new_span(),
                    parent: parent.span_id(),
                };
                return parent.is_sampled().then(own);
            }
        }
        let trace = TraceId::from(rand::random::<u128>());
        running.samples(trace).then(|| TraceContext {
            trace,
            span: new_span(),
            parent: SpanId::INVALID,
        })
    }

    /// Returns where a handshake's spans belong, if it is sampled: in the trace that its client
    /// names. Whether it is sampled is not the client's to say.
    pub(crate) fn handshake(&self, headers: &HeaderMap) -> Option<TraceContext> {
        let own = self.request(None)?;
        let Some(Trail { trace, span, .. }) = Trail::of(headers) else { return Some(own) };
        Some(TraceContext { trace: TraceId::from(trace), parent: SpanId::from(span), ..own })
    }

    /// Returns where the span of a call belongs, if it is sampled: under its handshake's, or under
    /// one of the message or end that it is made for.
    pub(crate) fn call(&self, event: &Event) -> Option<TraceContext> {
        let above = match event.occasion {
            Occasion::Connect(_) => event.trace,
            Occasion::Message { .. } | Occasion::Disconnect { .. } => self.request(None),
        };
        above.map(|above| TraceContext { span: new_span(), parent: above.span, ..above })
    }

    /// A call has ended: when it was taken, and when its turn came.
    pub(crate) fn called(
        &self,
        context: TraceContext,
        event: &Event,
        [taken, begun]: [Instant; 2],
        what: Called<'_>,
    ) {
        let now = Instant::now();
        let above = match event.occasion {
            // It has a span that is longer.
            Occasion::Connect(_) => None,
            Occasion::Message { .. } => Some("message"),
            Occasion::Disconnect { .. } => Some("$disconnect"),
        };
        if let Some(name) = above {
            let root = TraceContext { span: context.parent, parent: SpanId::INVALID, ..context };
            let attributes = vec![KeyValue::new("gatecast.route", event.route.to_string())];
            let span = Span { attributes, ..Span::new(name, SpanKind::Server, taken, now) };
            self.end(root, span, what.error.is_some());
        }
        let said = what.attributes.iter().map(|(key, value)| KeyValue::new(*key, value.clone()));
        let error = what.error.map(|error| KeyValue::new("error.type", error));
        let span = Span::new(what.name.to_owned(), SpanKind::Client, begun, now);
        let attributes = said.chain(error).collect();
        self.end(context, Span { attributes, ..span }, what.error.is_some());
    }

    /// A request has been answered.
    pub(crate) fn answered(
        &self,
        context: TraceContext,
        name: &'static str,
        since: Instant,
        status: StatusCode,
    ) {
        let attributes =
            vec![KeyValue::new("http.response.status_code", i64::from(status.as_u16()))];
        let span = Span { attributes, ..Span::new(name, SpanKind::Server, since, Instant::now()) };
        self.end(context, span, status.is_server_error());
    }

    /// The broker has accepted a message. A caller whose request is sampled sees that among its own
    /// spans, with a link.
    pub(crate) fn published(
        &self,
        message: Option<TraceContext>,
        caller: Option<TraceContext>,
        kind: &'static str,
        since: Instant,
    ) {
        let own = caller.map(|caller| {
            (TraceContext { span: new_span(), parent: caller.span, ..caller }, message)
        });
        for (context, link) in message.map(|message| (message, caller)).into_iter().chain(own) {
            let attributes = vec![KeyValue::new("gatecast.channel.kind", kind)];
            let span = Span::new("broker", SpanKind::Producer, since, Instant::now());
            self.end(context, Span { attributes, link, ..span }, false);
        }
    }

    /// A shard has handed a message to its members: when it came here, when the shard took it, when
    /// it was written.
    pub(crate) fn delivered(
        &self,
        message: TraceContext,
        shard: usize,
        [came, taken, written]: [Instant; 3],
    ) {
        for (name, from, to) in [("queue", came, taken), ("socket", taken, written)] {
            let context = TraceContext { span: new_span(), parent: message.span, ..message };
            let shard = i64::try_from(shard).unwrap_or(i64::MAX);
            let attributes = vec![KeyValue::new("gatecast.shard", shard)];
            let span = Span { attributes, ..Span::new(name, SpanKind::Consumer, from, to) };
            self.end(context, span, false);
        }
    }

    fn end(&self, context: TraceContext, span: Span, is_error: bool) {
        let Some(running) = &self.0 else { return };
        let TraceContext { trace, span: id, parent } = context;
        let (now, time) = (Instant::now(), SystemTime::now());
        let mut links = SpanLinks::default();
        links
            .links
            .extend(span.link.map(|link| Link::with_context(span_context(link.trace, link.span))));
        let data = SpanData {
            span_context: span_context(trace, id),
            parent_span_id: parent,
            // Another node's span, or a caller's, as far as anybody here can tell.
            parent_span_is_remote: parent != SpanId::INVALID,
            span_kind: span.kind,
            name: span.name,
            start_time: time_of(span.from, now, time),
            end_time: time_of(span.to, now, time),
            attributes: span.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status: if is_error { Status::error("") } else { Status::Unset },
            instrumentation_scope: running.scope.clone(),
        };
        if running.spans.try_send(data).is_err() {
            running.overflown.inc();
        }
    }
}

impl Running {
    fn samples(&self, trace: TraceId) -> bool {
        let low = trace.to_bytes().last_chunk().copied().unwrap_or_default();
        u64::from_be_bytes(low) >> 1 < self.threshold
    }
}

impl Span {
    fn new(name: impl Into<Cow<'static, str>>, kind: SpanKind, from: Instant, to: Instant) -> Self {
        Self { name: name.into(), kind, from, to, attributes: Vec::new(), link: None }
    }
}

/// Returns the root of a message's trace.
fn of_message(channel: &str, epoch: &str, offset: u64) -> TraceContext {
    let digest = Sha256::new()
        .chain_update(channel)
        .chain_update([0])
        .chain_update(epoch)
        .chain_update([0])
        .chain_update(offset.to_be_bytes())
        .finalize();
    let trace = digest.first_chunk().copied().unwrap_or_default();
    let span = digest.last_chunk().copied().unwrap_or_default();
    TraceContext {
        trace: TraceId::from_bytes(trace),
        span: SpanId::from_bytes(span),
        parent: SpanId::INVALID,
    }
}

fn threshold(ratio: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "a ratio is at most 1")]
    let threshold = (ratio * (1_u64 << 63) as f64) as u64;
    threshold
}

fn new_span() -> SpanId {
    SpanId::from(rand::random::<u64>())
}

fn span_context(trace: TraceId, span: SpanId) -> SpanContext {
    SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::default())
}

/// Returns the time of day of a moment that is past.
fn time_of(moment: Instant, now: Instant, time: SystemTime) -> SystemTime {
    time.checked_sub(now.saturating_duration_since(moment)).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";

    fn tracer(ratio: f64, queue: usize) -> (Tracer, mpsc::Receiver<SpanData>, IntCounter) {
        let (spans, exported) = mpsc::channel(queue);
        let overflown = IntCounter::new("overflown", "For tests.").expect("a counter");
        let (threshold, scope) = (threshold(ratio), InstrumentationScope::default());
        let running = Running { threshold, spans, overflown: overflown.clone(), scope };
        (Tracer(Some(running)), exported, overflown)
    }

    fn headers(traceparent: &str) -> HeaderMap {
        [(http::HeaderName::from_static("traceparent"), traceparent.parse().expect("a value"))]
            .into_iter()
            .collect()
    }

    #[test]
    fn a_message_has_one_trace_and_no_other_has_it() {
        let (one, another) = (tracer(1.0, 1).0, tracer(1.0, 1).0);
        let context = one.message("channel", "epoch", 7).expect("sampled");
        assert_eq!(another.message("channel", "epoch", 7), Some(context));
        for other in [("channels", "epoch", 7), ("channel", "epochs", 7), ("channel", "epoch", 8)] {
            let other = one.message(other.0, other.1, other.2).expect("sampled");
            assert!(other.trace != context.trace && other.span != context.span);
        }
    }

    #[test]
    fn the_ratio_is_the_share_that_is_sampled() {
        for (ratio, range) in
            [(0.0, 0..=0), (0.1, 850..=1_150), (0.5, 4_750..=5_250), (1.0, 10_000..=10_000)]
        {
            let tracer = tracer(ratio, 1).0;
            let sampled =
                (0..10_000).filter(|offset| tracer.message("c", "e", *offset).is_some()).count();
            assert!(range.contains(&sampled), "{ratio}: {sampled}");
        }
        let off = Tracer::default();
        assert!(off.message("c", "e", 1).is_none() && off.request(None).is_none());
    }

    #[test]
    fn a_caller_decides_for_its_request_and_nobody_else() {
        let (all, none) = (tracer(1.0, 1).0, tracer(0.0, 1).0);
        let (yes, no) = (headers(&format!("00-{PARENT}-01")), headers(&format!("00-{PARENT}-00")));
        let context = none.request(Some(&yes)).expect("sampled");
        assert_eq!(format!("{}-{}", context.trace, context.parent), PARENT);
        assert_eq!(all.request(Some(&no)), None);
        for broken in [
            "",
            "00-nothing-of-the-kind",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        ] {
            assert_eq!(none.request(Some(&headers(broken))), None, "{broken}");
            let own = all.request(Some(&headers(broken))).expect("sampled");
            assert_eq!(own.parent, SpanId::INVALID, "{broken}");
        }
    }

    #[test]
    fn a_handshake_is_in_its_clients_trace_and_whether_it_is_sampled_is_not_the_clients_to_say() {
        let (all, none) = (tracer(1.0, 1).0, tracer(0.0, 1).0);
        let (yes, no) = (headers(&format!("00-{PARENT}-01")), headers(&format!("00-{PARENT}-00")));
        let context = all.handshake(&no).expect("sampled");
        assert_eq!(format!("{}-{}", context.trace, context.parent), PARENT);
        assert!(context.trail().traceparent().ends_with("-01"));
        assert_eq!(none.handshake(&yes), None);
        let own = all.handshake(&headers("broken")).expect("sampled");
        assert_eq!(own.parent, SpanId::INVALID);
    }

    #[test]
    fn what_the_caller_sees_and_what_became_of_the_message_are_linked() {
        let (tracer, mut spans, _) = tracer(1.0, 8);
        let message = tracer.message("c", "e", 1);
        let caller = tracer.request(None);
        tracer.published(message, caller, "group", Instant::now());
        let (of_message, of_caller) =
            (spans.try_recv().expect("the message's"), spans.try_recv().expect("the caller's"));
        let ids =
            |context: Option<TraceContext>| context.map(|it| (it.trace, it.span)).expect("sampled");
        let own = |span: &SpanData| (span.span_context.trace_id(), span.span_context.span_id());
        let linked = |span: &SpanData| {
            span.links
                .iter()
                .map(|it| (it.span_context.trace_id(), it.span_context.span_id()))
                .collect::<Vec<_>>()
        };
        assert_eq!((own(&of_message), linked(&of_message)), (ids(message), vec![ids(caller)]));
        assert_eq!(of_caller.parent_span_id, ids(caller).1);
        assert_eq!((own(&of_caller).0, linked(&of_caller)), (ids(caller).0, vec![ids(message)]));
    }

    #[test]
    fn what_a_full_queue_does_not_take_is_counted() {
        let (tracer, mut spans, overflown) = tracer(1.0, 3);
        let (message, now) = (tracer.message("c", "e", 1).expect("sampled"), Instant::now());
        (0..3).for_each(|_| tracer.delivered(message, 0, [now; 3]));
        assert_eq!(overflown.get(), 3);
        let names: Vec<_> =
            std::iter::from_fn(|| spans.try_recv().ok()).map(|span| span.name).collect();
        assert_eq!(names, ["queue", "socket", "queue"]);
    }
}
