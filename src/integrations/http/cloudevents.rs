//! `CloudEvents` 1.0 over HTTP, binary and structured mode, and the web hook's consent.
//!
//! Sources: `CloudEvents` 1.0.2, HTTP Protocol Binding §3 and JSON Format; HTTP 1.1 Web Hooks for
//! Event Delivery §4 (abuse protection): a server is asked by `OPTIONS` whether it wants events of
//! us, and is sent none before it has said so.

use std::sync::atomic::{AtomicBool, Ordering};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use serde_json::Value;

use super::raw::insert;
use super::{HttpTarget, Parts};
use crate::integrations::target::Failure;
use crate::model::call::{Body, CallError, Event, Occasion, Scene};

/// Whether the server has said that it wants our events.
#[derive(Debug, Default)]
pub(super) struct Consent(AtomicBool);

impl Consent {
    /// Asks, unless the server has consented already.
    ///
    /// # Errors
    /// It does not consent, or cannot be reached.
    pub(super) async fn ask(&self, target: &HttpTarget) -> Result<(), Failure> {
        if self.0.load(Ordering::Relaxed) {
            return Ok(());
        }
        let origin = &target.scene.domain_name;
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.method_mut() = Method::OPTIONS;
        *request.uri_mut() = target.settings.url.clone();
        insert(request.headers_mut(), "webhook-request-origin", origin);
        let answer = target.client.send(request).await?;
        let allowed =
            answer.headers().get("webhook-allowed-origin").and_then(|value| value.to_str().ok());
        if !answer.status().is_success()
            || !allowed.is_some_and(|allowed| allowed == "*" || allowed == origin)
        {
            let status = answer.status();
            let message = format!(
                "it answered OPTIONS with {status}; to be sent events it has to answer 2xx with \
                 WebHook-Allowed-Origin: {origin}, or *"
            );
            return Err(Failure { error: CallError::Unreachable, message });
        }
        self.0.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// Returns what is sent in binary mode (§3.1): the attributes as headers, the message as it came.
pub(super) fn binary(url: &Uri, event: &Event, scene: &Scene) -> Parts {
    let mut headers = HeaderMap::new();
    for (name, value) in attributes(event, scene) {
        if let Ok(name) = HeaderName::try_from(format!("ce-{name}")) {
            headers.insert(name, escaped(&value));
        }
    }
    let mut body = Bytes::new();
    if let Occasion::Message { body: sent, .. } = &event.occasion {
        let (media_type, bytes) = content(sent);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        body = bytes.clone();
    }
    Parts { uri: url.clone(), headers, body }
}

/// Returns what is sent in structured mode (§3.2): everything in one JSON object.
pub(super) fn structured(url: &Uri, event: &Event, scene: &Scene) -> Parts {
    let mut object: serde_json::Map<String, Value> = attributes(event, scene)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    if let Occasion::Message { body, .. } = &event.occasion {
        let (media_type, bytes) = content(body);
        object.insert("datacontenttype".to_owned(), media_type.into());
        let (name, data) = match str::from_utf8(bytes) {
            Ok(text) if matches!(body, Body::Text(_)) => ("data", text.to_owned()),
            _ => ("data_base64", BASE64_STANDARD.encode(bytes)),
        };
        object.insert(name.to_owned(), data.into());
    }
    let media_type = HeaderValue::from_static("application/cloudevents+json; charset=utf-8");
    Parts {
        uri: url.clone(),
        headers: HeaderMap::from_iter([(CONTENT_TYPE, media_type)]),
        body: Value::Object(object).to_string().into(),
    }
}

fn content(body: &Body) -> (&'static str, &Bytes) {
    match body {
        Body::Text(text) => ("text/plain; charset=utf-8", text),
        Body::Binary(bytes) => ("application/octet-stream", bytes),
    }
}

/// The context attributes of an event, and our extensions.
fn attributes(event: &Event, scene: &Scene) -> Vec<(&'static str, String)> {
    let request = event.request.to_string();
    let (kind, id) = match &event.occasion {
        Occasion::Connect(_) => ("io.gatecast.connect", request.clone()),
        Occasion::Message { id, .. } => ("io.gatecast.message", id.to_string()),
        Occasion::Disconnect { .. } => ("io.gatecast.disconnect", request.clone()),
    };
    let mut attributes = vec![
        ("specversion", "1.0".to_owned()),
        ("type", kind.to_owned()),
        ("id", id),
        ("source", format!("//{}/{}", scene.domain_name, scene.stage)),
        ("subject", event.record.id.to_string()),
        ("time", event.at.to_string()),
        ("connectionid", event.record.id.to_string()),
        ("routekey", event.route.to_string()),
        ("requestid", request),
        ("sourceip", event.record.source_ip.to_string()),
        // The extension for distributed tracing, which stays as the event goes on.
        ("traceparent", event.trail.traceparent().to_string()),
    ];
    if let Occasion::Disconnect { code, reason } = &event.occasion {
        attributes.push(("code", code.to_string()));
        attributes.push(("reason", reason.to_string()));
    }
    if let Some(user) = &event.record.user {
        attributes.push(("userid", user.to_string()));
    }
    attributes
}

/// Writes a value as §3.1.3.2 has it: what is not printable ASCII, a space, a quote and a percent
/// sign are percent-encoded.
fn escaped(value: &str) -> HeaderValue {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'!' | b'#'..=b'$' | b'&'..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_escaped() {
        assert_eq!(escaped("Euro € \"50%\"~!"), "Euro%20%E2%82%AC%20%2250%25%22~!");
    }
}
