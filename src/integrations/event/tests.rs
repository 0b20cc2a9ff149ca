//! Events against those that were captured.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

use super::*;
use crate::model::id::{ConnectionId, RequestId};
use crate::model::registry::Record;
use crate::model::trail::Trail;

fn event(occasion: Occasion, user_agent: Option<&str>) -> Event {
    let record = Record {
        id: ConnectionId::parse("PJqB0fHsqRcCHlw=").expect("an id"),
        source_ip: "123.45.123.45".parse().expect("an address"),
        user_agent: user_agent.map(Into::into),
        user: None,
        connected_at: "2023-11-29T08:04:01.796Z".parse().expect("a time"),
    };
    Event {
        route: "sendMessage".into(),
        request: RequestId::mint(),
        record: Arc::new(record),
        at: "2023-11-29T08:04:03.417Z".parse().expect("a time"),
        occasion,
        trail: Trail { trace: 0x6566_f1a3 << 96 | 7, span: 8, is_sampled: false },
        trace: None,
        wants_reply: false,
        is_ordered: false,
    }
}

fn scene() -> Scene {
    Scene {
        stage: "production".into(),
        domain_name: "127.0.0.1:8443".into(),
        api_id: "aabbccdd".into(),
    }
}

fn text(event: &Event) -> String {
    String::from_utf8(render(event, &scene()).to_vec()).expect("UTF-8")
}

#[test]
fn a_message_is_as_api_gateway_sends_it() {
    let id = RequestId::mint();
    let event = event(Occasion::Message { id, body: Body::Text("{\"a\":\"é\"}".into()) }, None);
    let request = event.request.to_string();
    let expected = format!(
        r#"{{"requestContext":{{"routeKey":"sendMessage","messageId":"{id}","eventType":"MESSAGE","extendedRequestId":"{request}","requestTime":"29/Nov/2023:08:04:03 +0000","messageDirection":"IN","stage":"production","connectedAt":1701245041796,"requestTimeEpoch":1701245043417,"identity":{{"sourceIp":"123.45.123.45"}},"requestId":"{request}","domainName":"127.0.0.1:8443","connectionId":"PJqB0fHsqRcCHlw=","apiId":"aabbccdd"}},"body":"{{\"a\":\"é\"}}","isBase64Encoded":false}}"#
    );
    assert_eq!(text(&event), expected);
}

#[test]
fn a_binary_message_is_sent_in_base64() {
    let body = Body::Binary(Bytes::from_static(&[0, 255]));
    let event = event(Occasion::Message { id: RequestId::mint(), body }, None);
    assert!(text(&event).ends_with(r#""body":"AP8=","isBase64Encoded":true}"#));
}

#[test]
fn an_end_is_as_api_gateway_sends_it() {
    let event = event(
        Occasion::Disconnect { code: 1001, reason: "Going away".into() },
        Some("Mozilla/5.0"),
    );
    let request = event.request.to_string();
    let expected = format!(
        r#"{{"headers":{{"Host":"127.0.0.1:8443","x-api-key":"","X-Forwarded-For":"","x-restapi":""}},"multiValueHeaders":{{"Host":["127.0.0.1:8443"],"x-api-key":[""],"X-Forwarded-For":[""],"x-restapi":[""]}},"requestContext":{{"routeKey":"sendMessage","disconnectStatusCode":1001,"eventType":"DISCONNECT","extendedRequestId":"{request}","requestTime":"29/Nov/2023:08:04:03 +0000","messageDirection":"IN","disconnectReason":"Going away","stage":"production","connectedAt":1701245041796,"requestTimeEpoch":1701245043417,"identity":{{"userAgent":"Mozilla/5.0","sourceIp":"123.45.123.45"}},"requestId":"{request}","domainName":"127.0.0.1:8443","connectionId":"PJqB0fHsqRcCHlw=","apiId":"aabbccdd"}},"isBase64Encoded":false}}"#
    );
    assert_eq!(text(&event), expected);
}

#[test]
fn a_handshake_tells_headers_and_query() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "gate:8080"),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "AQIDBAUGBwgJCgsMDQ4PEA=="),
        ("x-api-key", "secret"),
        ("x-tag", "a"),
        ("x-tag", "b"),
        ("x-forwarded-for", "192.0.2.1"),
    ] {
        headers.append(name, HeaderValue::from_static(value));
    }
    let query = Some("token=a%20b&x=1&x=2&flag".to_owned());
    let handshake = Arc::new(Handshake { path: "/production".into(), query, headers });
    let rendered = text(&event(Occasion::Connect(handshake), None));
    let expected = r#"{"headers":{"Host":"gate:8080","Sec-WebSocket-Key":"AQIDBAUGBwgJCgsMDQ4PEA==","X-Amzn-Trace-Id":"Root=1-6566f1a3-000000000000000000000007","x-api-key":"secret","X-Forwarded-For":"192.0.2.1, 123.45.123.45","X-Forwarded-Port":"8080","X-Forwarded-Proto":"http","X-Tag":"b"},"multiValueHeaders":{"Host":["gate:8080"],"Sec-WebSocket-Key":["AQIDBAUGBwgJCgsMDQ4PEA=="],"X-Amzn-Trace-Id":["Root=1-6566f1a3-000000000000000000000007"],"x-api-key":["secret"],"X-Forwarded-For":["192.0.2.1, 123.45.123.45"],"X-Forwarded-Port":["8080"],"X-Forwarded-Proto":["http"],"X-Tag":["a","b"]},"queryStringParameters":{"token":"a b","x":"2","flag":""},"multiValueQueryStringParameters":{"token":["a b"],"x":["1","2"],"flag":[""]},"requestContext":{"routeKey":"sendMessage","eventType":"CONNECT","#;
    assert!(rendered.starts_with(expected), "{rendered}");
    assert!(rendered.ends_with(r#""apiId":"aabbccdd"},"isBase64Encoded":false}"#), "{rendered}");
}

#[test]
fn no_query_is_left_out() {
    let handshake = Arc::new(Handshake {
        path: "/".into(),
        query: Some(String::new()),
        ..Handshake::default()
    });
    assert!(!text(&event(Occasion::Connect(handshake), None)).contains("queryString"));
}
