//! `CloudEvents` 1.0 over HTTP, binary mode, and the web hook's consent.
//!
//! Sources: `CloudEvents` 1.0.2, HTTP Protocol Binding §3.1; HTTP 1.1 Web Hooks for Event Delivery
//! §4 (abuse protection): a server is asked by `OPTIONS` whether it wants events of us, and is sent
//! none before it has said so.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::Full;

use super::raw::insert;
use super::{HttpTarget, Parts, unreached};
use crate::integrations::event::Scene;
use crate::integrations::target::Failure;
use crate::model::call::{Body, CallError, Event, Occasion};

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
        let answer = target.client.request(request).await.map_err(|error| unreached(&error))?;
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

/// Returns what is sent: the attributes as headers, the message as it came.
pub(super) fn parts(url: &Uri, event: &Event, scene: &Scene) -> Parts {
    let (mut headers, mut body) = (HeaderMap::new(), Bytes::new());
    let (kind, id) = match &event.occasion {
        Occasion::Connect(_) => ("io.gatecast.connect", event.request.to_string()),
        Occasion::Message { id, .. } => ("io.gatecast.message", id.to_string()),
        Occasion::Disconnect { code, reason } => {
            insert(&mut headers, "ce-code", &code.to_string());
            insert(&mut headers, "ce-reason", &escaped(reason));
            ("io.gatecast.disconnect", event.request.to_string())
        }
    };
    if let Occasion::Message { body: sent, .. } = &event.occasion {
        let (media_type, bytes) = match sent {
            Body::Text(text) => ("text/plain; charset=utf-8", text),
            Body::Binary(bytes) => ("application/octet-stream", bytes),
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        body = bytes.clone();
    }
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-type", kind),
        ("ce-id", &id),
        ("ce-source", &format!("//{}/{}", scene.domain_name, scene.stage)),
        ("ce-subject", event.record.id.as_str()),
        ("ce-time", &event.at.to_string()),
        ("ce-connectionid", event.record.id.as_str()),
        ("ce-routekey", &escaped(&event.route)),
        ("ce-requestid", &event.request.to_string()),
        ("ce-sourceip", &event.record.source_ip.to_string()),
    ] {
        insert(&mut headers, name, value);
    }
    if let Some(user) = &event.record.user {
        insert(&mut headers, "ce-userid", &escaped(user));
    }
    Parts { uri: url.clone(), headers, body }
}

/// Writes a value as §3.1.3.2 has it: what is not printable ASCII, a space, a quote and a percent
/// sign are percent-encoded.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'!' | b'#'..=b'$' | b'&'..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_escaped() {
        assert_eq!(escaped("Euro € \"50%\"~!"), "Euro%20%E2%82%AC%20%2250%25%22~!");
    }
}
