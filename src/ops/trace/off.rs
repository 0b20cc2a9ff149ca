//! The tracer of a program without the feature `otlp`: samples nothing.

use std::time::Instant;

use http::{HeaderMap, StatusCode};

use super::called::Called;
use super::settings::{TraceError, Tracing};
use crate::model::call::Event;
use crate::model::trace_context::TraceContext;
use crate::ops::lifecycle::Lifecycle;
use crate::ops::metrics::Metrics;

/// See `otlp.rs`.
#[derive(Debug, Default)]
pub(crate) struct Tracer;

impl Tracer {
    pub(crate) fn start(
        _: &Tracing,
        _: &str,
        _: &Metrics,
        _: &Lifecycle,
    ) -> Result<Self, TraceError> {
        Ok(Self)
    }

    pub(crate) fn message(
        &self,
        _channel: &str,
        _epoch: &str,
        _offset: u64,
    ) -> Option<TraceContext> {
        None
    }

    pub(crate) fn request(&self, _caller: Option<&HeaderMap>) -> Option<TraceContext> {
        None
    }

    pub(crate) fn handshake(&self, _: &HeaderMap) -> Option<TraceContext> {
        None
    }

    pub(crate) fn answered(
        &self,
        context: TraceContext,
        _name: &'static str,
        _since: Instant,
        _status: StatusCode,
    ) {
        match context {}
    }

    pub(crate) fn call(&self, _event: &Event) -> Option<TraceContext> {
        None
    }

    pub(crate) fn called(
        &self,
        context: TraceContext,
        _event: &Event,
        _times: [Instant; 2],
        _what: Called<'_>,
    ) {
        match context {}
    }

    pub(crate) fn published(
        &self,
        _message: Option<TraceContext>,
        _caller: Option<TraceContext>,
        _kind: &'static str,
        _since: Instant,
    ) {
    }

    pub(crate) fn delivered(&self, context: TraceContext, _shard: usize, _stages: [Instant; 3]) {
        match context {}
    }
}
