//! The events of API Gateway's Lambda proxy integration, key by key in the order in which it sends
//! them.
//!
//! Source: Amazon API Gateway Developer Guide, "Set up a WebSocket API integration request"; what
//! is absent is left out, never `null`. Header names are written as RFC 9110 and RFC 6455 do: HTTP
//! is not told how the client wrote them.

use std::borrow::Cow;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use indexmap::IndexMap;
use percent_encoding::percent_decode_str;
use serde::Serialize;

use crate::model::call::{Body, Event, Occasion, Scene};
use crate::model::handshake::Handshake;
use crate::ops::access::format::clf;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProxyEvent<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<Fields<Cow<'a, str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multi_value_headers: Option<Fields<Vec<Cow<'a, str>>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query_string_parameters: Option<Fields<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multi_value_query_string_parameters: Option<Fields<Vec<String>>>,
    request_context: RequestContext<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Cow<'a, str>>,
    is_base64_encoded: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestContext<'a> {
    route_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnect_status_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    event_type: &'static str,
    extended_request_id: &'a str,
    request_time: String,
    message_direction: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnect_reason: Option<&'a str>,
    stage: &'a str,
    connected_at: i64,
    request_time_epoch: i64,
    identity: Identity<'a>,
    request_id: &'a str,
    domain_name: &'a str,
    connection_id: &'a str,
    api_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Identity<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    source_ip: IpAddr,
}

/// Names and values, in an order of their own.
type Fields<V> = IndexMap<String, V>;

/// Returns the event in JSON.
pub(crate) fn render(event: &Event, scene: &Scene) -> Bytes {
    let request = event.request.to_string();
    let (mut headers, mut query) = (None, None);
    let mut context = context(event, scene, &request);
    let mut body = None;
    let mut is_base64_encoded = false;
    match &event.occasion {
        Occasion::Connect(handshake) => {
            context.event_type = "CONNECT";
            headers = Some(of_handshake(handshake, event));
            query = handshake.query.as_deref().filter(|query| !query.is_empty()).map(parameters);
        }
        Occasion::Message { id, body: sent } => {
            context.event_type = "MESSAGE";
            context.message_id = Some(id.to_string());
            body = Some(match sent {
                Body::Text(text) => String::from_utf8_lossy(text),
                Body::Binary(bytes) => {
                    is_base64_encoded = true;
                    STANDARD.encode(bytes).into()
                }
            });
        }
        Occasion::Disconnect { code, reason } => {
            context.event_type = "DISCONNECT";
            context.disconnect_status_code = Some(*code);
            context.disconnect_reason = Some(reason);
            headers = Some(of_disconnect(&scene.domain_name));
        }
    }
    let event = ProxyEvent {
        headers: headers.as_ref().map(last_of_each),
        multi_value_headers: headers,
        query_string_parameters: query.as_ref().map(last_of_each),
        multi_value_query_string_parameters: query,
        request_context: context,
        body,
        is_base64_encoded,
    };
    serde_json::to_vec(&event).unwrap_or_default().into()
}

fn context<'a>(event: &'a Event, scene: &'a Scene, request: &'a str) -> RequestContext<'a> {
    let record = &event.record;
    RequestContext {
        route_key: &event.route,
        disconnect_status_code: None,
        message_id: None,
        event_type: "",
        extended_request_id: request,
        request_time: clf(event.at),
        message_direction: "IN",
        disconnect_reason: None,
        stage: &scene.stage,
        connected_at: record.connected_at.as_millisecond(),
        request_time_epoch: event.at.as_millisecond(),
        identity: Identity {
            user_agent: record.user_agent.as_deref(),
            source_ip: record.source_ip,
        },
        request_id: request,
        domain_name: &scene.domain_name,
        connection_id: record.id.as_str(),
        api_id: &scene.api_id,
    }
}

/// The headers of a handshake without those of the upgrade itself, and with those that a load
/// balancer adds; by name.
fn of_handshake<'h>(handshake: &'h Handshake, event: &Event) -> Fields<Vec<Cow<'h, str>>> {
    let mut headers: Fields<Vec<Cow<'_, str>>> = Fields::new();
    for name in
        handshake.headers.keys().filter(|name| !matches!(name.as_str(), "connection" | "upgrade"))
    {
        let values = handshake.headers.get_all(name).iter();
        let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()));
        headers.insert(cased(name.as_str()), values.collect());
    }
    let hops = headers.entry("X-Forwarded-For".to_owned()).or_default();
    let source_ip = event.record.source_ip.to_string();
    if !hops.iter().any(|hop| hop.split(',').any(|one| one.trim() == source_ip)) {
        hops.push(source_ip.into());
    }
    if hops.len() > 1 {
        *hops = vec![hops.join(", ").into()];
    }
    let port = port_of(&handshake.headers).into();
    for (name, value) in [("X-Forwarded-Port", port), ("X-Forwarded-Proto", Cow::Borrowed("http"))]
    {
        headers.entry(name.to_owned()).or_insert_with(|| vec![value]);
    }
    headers.insert("X-Amzn-Trace-Id".to_owned(), vec![event.trail.root().into()]);
    headers.sort_by_cached_key(|name, _| name.to_ascii_lowercase());
    headers
}

/// Returns the port that the client has connected to, as it says itself.
fn port_of(headers: &HeaderMap) -> String {
    let host =
        headers.get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let port =
        host.rsplit_once(':').map(|(_, port)| port).filter(|port| port.parse::<u16>().is_ok());
    port.unwrap_or("80").to_owned()
}

/// What API Gateway sends with every `$disconnect`.
fn of_disconnect(domain_name: &str) -> Fields<Vec<Cow<'_, str>>> {
    let all =
        [("Host", domain_name), ("x-api-key", ""), ("X-Forwarded-For", ""), ("x-restapi", "")];
    all.into_iter().map(|(name, value)| (name.to_owned(), vec![value.into()])).collect()
}

/// Returns a header's name as it is written where it is defined: `Sec-WebSocket-Key`, `User-Agent`.
fn cased(name: &str) -> String {
    let part = |part: &str| match part {
        "websocket" => "WebSocket".to_owned(),
        "id" | "ua" | "te" | "dnt" => part.to_ascii_uppercase(),
        _ => {
            let mut letters = part.chars();
            letters
                .next()
                .map(|first| first.to_ascii_uppercase().to_string() + letters.as_str())
                .unwrap_or_default()
        }
    };
    match name {
        "x-api-key" => name.to_owned(),
        _ => name.split('-').map(part).collect::<Vec<_>>().join("-"),
    }
}

/// Decodes a query string as forms are encoded (WHATWG URL, `application/x-www-form-urlencoded`).
fn parameters(query: &str) -> Fields<Vec<String>> {
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    let mut all: Fields<Vec<String>> = Fields::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        all.entry(decode(name)).or_default().push(decode(value));
    }
    all
}

/// Of each list the last, which is what a map of single values has.
fn last_of_each<T: Clone>(all: &Fields<Vec<T>>) -> Fields<T> {
    let last = |(name, values): (&String, &Vec<T>)| Some((name.clone(), values.last()?.clone()));
    all.iter().filter_map(last).collect()
}

#[cfg(test)]
mod tests;
