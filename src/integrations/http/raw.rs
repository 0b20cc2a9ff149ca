//! The message as it came, with what is known of it in headers.

use std::borrow::Cow;

use http::header::{CONNECTION, CONTENT_TYPE, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::Parts;
use crate::config::HttpSettings;
use crate::model::call::{Body, Event, Occasion, Scene};
use crate::model::handshake::Handshake;
use crate::routing::expression::{self, Context, ContextKey};

/// Of a handshake, what concerns its own connection alone (RFC 9110 §7.6.1); `Sec-WebSocket-*`
/// besides.
const OWN: [HeaderName; 6] = [CONNECTION, UPGRADE, HOST, TE, TRAILER, TRANSFER_ENCODING];

/// Returns what is sent: the headers and the query of a handshake, the body of a message.
pub(super) fn parts(url: &Uri, event: &Event, scene: &Scene) -> Parts {
    let (mut headers, mut uri) = (HeaderMap::new(), url.clone());
    let mut body = bytes::Bytes::new();
    match &event.occasion {
        Occasion::Connect(handshake) => {
            headers = forwarded(handshake);
            uri = with_query(url, handshake.query.as_deref());
        }
        Occasion::Message { body: Body::Text(text), .. } => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            body = text.clone();
        }
        Occasion::Message { body: Body::Binary(bytes), .. } => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            body = bytes.clone();
        }
        Occasion::Disconnect { code, reason } => {
            insert(&mut headers, "x-gatecast-disconnect-code", &code.to_string());
            insert(&mut headers, "x-gatecast-disconnect-reason", reason);
        }
    }
    let kind = match event.occasion {
        Occasion::Connect(_) => "CONNECT",
        Occasion::Message { .. } => "MESSAGE",
        Occasion::Disconnect { .. } => "DISCONNECT",
    };
    for (name, value) in [
        ("x-gatecast-event-type", kind),
        ("x-gatecast-connection-id", event.record.id.as_str()),
        ("x-gatecast-request-id", &event.request.to_string()),
        ("x-gatecast-route-key", &event.route),
        ("x-gatecast-stage", &scene.stage),
        ("x-gatecast-source-ip", &event.record.source_ip.to_string()),
        ("x-gatecast-domain-name", &scene.domain_name),
    ] {
        insert(&mut headers, name, value);
    }
    Parts { uri, headers, body }
}

/// Adds the headers and parameters that the operator has mapped.
pub(super) fn add_mapped(parts: &mut Parts, settings: &HttpSettings, event: &Event, scene: &Scene) {
    let text = match &event.occasion {
        Occasion::Message { body: Body::Text(text), .. } => {
            str::from_utf8(text).unwrap_or_default()
        }
        _ => "",
    };
    let body = expression::Body::new(text);
    let context = EventContext { event, scene };
    for (name, value) in &settings.headers {
        let value =
            value.render(&body, &context).and_then(|value| HeaderValue::from_str(&value).ok());
        if let Some(value) = value {
            parts.headers.insert(name, value);
        }
    }
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in &settings.parameters {
        if let Some(value) = value.render(&body, &context) {
            query.append_pair(name, &value);
        }
    }
    parts.uri = with_query(&parts.uri, Some(&query.finish()));
}

pub(super) fn json() -> HeaderValue {
    HeaderValue::from_static("application/json")
}

/// Sets a header, unless its value cannot be one.
pub(super) fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        headers.insert(name, value);
    }
}

fn forwarded(handshake: &Handshake) -> HeaderMap {
    let is_own = |name: &HeaderName| {
        OWN.contains(name)
            || name.as_str().starts_with("sec-websocket-")
            || name.as_str().starts_with("x-gatecast-")
    };
    let headers = handshake.headers.iter().filter(|(name, _)| !is_own(name));
    let mut forwarded = HeaderMap::new();
    for (name, value) in headers {
        forwarded.append(name, value.clone());
    }
    forwarded
}

fn with_query(url: &Uri, query: Option<&str>) -> Uri {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return url.clone() };
    let joint = if url.query().is_some() { '&' } else { '?' };
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let mut parts = url.clone().into_parts();
    parts.path_and_query = format!("{path}{joint}{query}").parse().ok().or(parts.path_and_query);
    Uri::from_parts(parts).unwrap_or_else(|_| url.clone())
}

struct EventContext<'a> {
    event: &'a Event,
    scene: &'a Scene,
}

impl Context for EventContext<'_> {
    fn get(&self, key: ContextKey) -> Cow<'_, str> {
        let Self { event, scene } = self;
        match key {
            ContextKey::ConnectionId => event.record.id.as_str().into(),
            ContextKey::RequestId => event.request.to_string().into(),
            ContextKey::Stage => scene.stage.as_str().into(),
            ContextKey::SourceIp => event.record.source_ip.to_string().into(),
        }
    }
}
