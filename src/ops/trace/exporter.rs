//! Takes spans to the collector, many at a time, for as long as the node lives.
//!
//! A collector that is away costs spans, which are counted, and nothing else. Headers and
//! compression are what the standard's variables say, which the library reads itself: a key among
//! them passes through nothing of ours.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::settings::{TraceError, Tracing};
use crate::ops::metrics::{SpanCounters, SpanDropReason};

/// Spans in one request; as in the standard's own processor.
const BATCH: usize = 512;
/// How long a span waits for others to go with it.
const DELAY: Duration = Duration::from_secs(1);
/// How long the collector may take for one request, tries included.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The same for a node that ends.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(400);

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Exporter {
    collector: SpanExporter,
    counters: SpanCounters,
    /// Whether the last request failed: an outage is told once.
    is_away: bool,
}

impl Exporter {
    pub(super) fn new(
        settings: &Tracing,
        node_name: &str,
        endpoint: &str,
        counters: SpanCounters,
    ) -> Result<Self, TraceError> {
        let builder = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary);
        let built = builder.with_endpoint(endpoint).with_timeout(TIMEOUT).build();
        let mut collector = built.map_err(|error| TraceError(error.into()))?;
        let own = [
            ("service.name", settings.service_name.clone()),
            ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
            ("service.instance.id", node_name.to_owned()),
        ];
        let own = own.map(|(key, value)| KeyValue::new(key, value));
        let given = settings.attributes.iter();
        let given = given.map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
        // What the operator gives comes last, and counts.
        let resource =
            Resource::builder_empty().with_attributes(own).with_attributes(given).build();
        collector.set_resource(&resource);
        Ok(Self { collector, counters, is_away: false })
    }

    /// Runs until the node ends, and then takes what is left.
    pub(super) async fn run(
        mut self,
        mut spans: mpsc::Receiver<SpanData>,
        ending: CancellationToken,
    ) {
        let mut batch = Vec::with_capacity(BATCH);
        while ending.run_until_cancelled(fill(&mut batch, &mut spans)).await == Some(true) {
            self.export(std::mem::take(&mut batch), &ending).await;
        }
        spans.close();
        while let Ok(span) = spans.try_recv() {
            batch.push(span);
        }
        self.export(batch, &ending).await;
    }

    /// Takes spans to the collector; has not long for it when the node ends.
    async fn export(&mut self, batch: Vec<SpanData>, ending: &CancellationToken) {
        let count = batch.len();
        if count == 0 {
            return;
        }
        let too_late = async {
            ending.cancelled().await;
            tokio::time::sleep(FLUSH_TIMEOUT).await;
        };
        let exported = tokio::select! {
            exported = self.collector.export(batch) => exported,
            () = too_late => Err(OTelSdkError::Timeout(FLUSH_TIMEOUT)),
        };
        match exported {
            Ok(()) => {
                self.counters.exported.inc_by(count as u64);
                self.is_away = false;
            }
            Err(error) => {
                self.counters.dropped(SpanDropReason::ExportFailed).inc_by(count as u64);
                if !std::mem::replace(&mut self.is_away, true) {
                    tracing::warn!(%error, spans = count, "the collector did not take spans");
                }
            }
        }
    }
}

/// Waits until a batch is full, or its first span has waited for others; returns whether there is
/// anything. *Cancel safe:* what has come is in `batch`.
async fn fill(batch: &mut Vec<SpanData>, spans: &mut mpsc::Receiver<SpanData>) -> bool {
    let mut came = spans.recv_many(batch, BATCH).await;
    let deadline = Instant::now() + DELAY;
    while came > 0 && batch.len() < BATCH {
        came = timeout_at(deadline, spans.recv_many(batch, BATCH - batch.len())).await.unwrap_or(0);
    }
    !batch.is_empty()
}
