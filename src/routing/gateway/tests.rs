//! Routes, from a message to its outcome.

use jiff::Timestamp;

use super::*;
use crate::config::{Config, Sources};
use crate::model::id::ConnectionId;

fn gateway(routes: &str) -> Gateway {
    let file = Some(("test.toml".to_owned(), routes.to_owned()));
    let config = Config::load(&Sources { file, ..Sources::default() }).expect("valid routes");
    Gateway::new(config.routes, "beta", NodeTag::random(), &Metrics::new().expect("metrics"))
}

fn record() -> Record {
    Record {
        id: ConnectionId::mint(NodeTag::random()),
        source_ip: [192, 0, 2, 1].into(),
        user_agent: None,
        user: None,
        connected_at: Timestamp::now(),
    }
}

fn text_of(frame: &Bytes) -> &str {
    assert!(frame.len() < 126 + 2 && frame[0] == 0x81, "a short text frame");
    std::str::from_utf8(&frame[2..]).expect("text")
}

fn published(outcome: Outcome) -> (Channel, String) {
    match outcome.action {
        Some(Action::Publish { channel, frame, .. }) => (channel, text_of(&frame).to_owned()),
        other => panic!("{other:?}"),
    }
}

fn send(gateway: &Gateway, text: &str) -> Outcome {
    gateway.on_message(Payload::Text(text), &Arc::new(record()))
}

#[test]
fn built_in_table_is_a_chat_room() {
    let gateway = gateway("");
    let said =
        send(&gateway, r#"{"action": "sendMessage", "data" : "Ground Control to Major Tom"}"#);
    assert_eq!(published(said), (Channel::Broadcast, "Ground Control to Major Tom".to_owned()));
    let typed = send(&gateway, "Can you hear me?");
    assert_eq!(published(typed), (Channel::Broadcast, "Can you hear me?".to_owned()));
    let joined = send(&gateway, r#"{"action":"joinGroup","group":"moon"}"#);
    assert!(matches!(&joined.action, Some(Action::Join(group)) if &**group == "moon"));
    assert_eq!(text_of(&joined.reply.expect("a reply")), "joined moon");
    let sent = send(&gateway, r#"{"action":"sendToGroup","group":"moon","data":{"a":1}}"#);
    assert_eq!(published(sent), (Channel::Group("moon".into()), r#"{"a":1}"#.to_owned()));
    let left = send(&gateway, r#"{"action":"leaveGroup","group":"moon"}"#);
    assert!(matches!(&left.action, Some(Action::Leave(group)) if &**group == "moon"));
    let bye = send(&gateway, r#"{"action":"disconnect"}"#);
    assert!(matches!(bye.action, Some(Action::Close)));
    assert_eq!(text_of(&bye.reply.expect("a reply")), "bye!");
}

#[test]
fn unknown_actions_are_forbidden() {
    let gateway = gateway("");
    let record = Arc::new(record());
    let mut requests = Vec::new();
    for text in [r#"{"action":"nope"}"#, "{}", "[]", "42", r#"{"action":"$text"}"#] {
        let outcome = gateway.on_message(Payload::Text(text), &record);
        assert!(outcome.action.is_none(), "{text}");
        let reply = outcome.reply.expect("a reply");
        let start =
            format!(r#"{{"message": "Forbidden", "connectionId":"{}", "requestId":""#, record.id);
        let request =
            text_of(&reply).strip_prefix(&start).expect("the frame of the contract").to_owned();
        assert_eq!(request.len(), 16 + 2);
        requests.push(request);
    }
    requests.sort();
    requests.dedup();
    assert_eq!(requests.len(), 5, "every request has its own id");
}

#[test]
fn bodies_without_what_the_route_takes_are_bad() {
    let gateway = gateway("");
    let long = format!(r#"{{"action":"joinGroup","group":"{}"}}"#, "x".repeat(GROUP_NAME_MAX + 1));
    let bad = [
        r#"{"action":"sendMessage"}"#,
        r#"{"action":"sendMessage","data":null}"#,
        r#"{"action":"joinGroup"}"#,
        r#"{"action":"joinGroup","group":""}"#,
        r#"{"action":"joinGroup","group":"a\u0000b"}"#,
        r#"{"action":"sendToGroup","group":"moon"}"#,
        &long,
    ];
    for text in bad {
        let outcome = send(&gateway, text);
        assert!(outcome.action.is_none(), "{text}");
        let reply = outcome.reply.expect("a reply");
        assert!(text_of(&reply).starts_with(r#"{"message" : "Bad request body", "#), "{text}");
    }
}

#[test]
fn default_takes_what_nothing_else_takes() {
    let gateway = gateway(
        r#"
        route_selection_expression = "${request.body.service}/${request.body.action}"
        [routes."chat/join"]
        integration = "reply"
        reply = "composite"
        [routes."$default"]
        integration = "reply"
        reply = "default"
        "#,
    );
    let reply = |text| text_of(&send(&gateway, text).reply.expect("a reply")).to_owned();
    assert_eq!(reply(r#"{"service":"chat","action":"join"}"#), "composite");
    for text in ["not JSON", "{}", r#"{"service":"chat"}"#, r#"{"action":"$default"}"#] {
        assert_eq!(reply(text), "default", "{text}");
    }
}

#[test]
fn what_nests_too_deep_goes_to_default_or_is_forbidden() {
    let deep =
        format!(r#"{{"action":"sendMessage","data":{}}}"#, "[".repeat(6_000) + &"]".repeat(6_000));
    let outcome = send(&gateway(""), &deep);
    assert!(outcome.action.is_none());
    assert!(text_of(&outcome.reply.expect("a reply")).starts_with(r#"{"message": "Forbidden", "#));
    let gateway = gateway(
        r#"
        [routes."$text"]
        integration = "mock"
        [routes."$default"]
        integration = "reply"
        reply = "default"
        "#,
    );
    assert_eq!(text_of(&send(&gateway, &deep).reply.expect("a reply")), "default");
    assert!(send(&gateway, "plain").reply.is_none());
}

#[test]
fn half_a_surrogate_pair_stops_nothing() {
    let gateway = gateway("");
    let cut = send(&gateway, r#"{"action":"sendMessage","data":"cut \ud83d"}"#);
    assert_eq!(published(cut), (Channel::Broadcast, "cut \u{fffd}".to_owned()));
    let named = send(&gateway, r#"{"\ud83d":"x","action":"sendMessage","data":{"\ud83d":1}}"#);
    assert_eq!(published(named), (Channel::Broadcast, r#"{"\ud83d":1}"#.to_owned()));
}

#[test]
fn binary_messages_are_echoed_as_binary() {
    let gateway =
        gateway("[routes.\"$default\"]\nintegration = \"reply\"\nreply = \"$request.body\"");
    let outcome = gateway.on_message(Payload::Binary(b"\x00\xff"), &Arc::new(record()));
    assert_eq!(outcome.reply.expect("a reply")[..], [0x82, 2, 0x00, 0xFF]);
}

#[test]
fn connect_and_disconnect_run_with_the_context() {
    let gateway = gateway(
        r#"
        [routes."$connect"]
        integration = "broadcast"
        data = "${context.connectionId} came to ${context.stage} from ${context.identity.sourceIp}"
        [routes."$disconnect"]
        integration = "send_group"
        group = "lobby"
        data = "${context.connectionId} left"
        "#,
    );
    let record = Arc::new(record());
    let connecting = gateway.on_connect(&record, &Handshake::default());
    let Connecting::Answer(200, Some(Action::Publish { channel: Channel::Broadcast, frame, .. })) =
        connecting
    else {
        panic!("{connecting:?}")
    };
    assert_eq!(text_of(&frame), format!("{} came to beta from 192.0.2.1", record.id));
    let Some(Action::Publish { channel, frame, .. }) =
        gateway.on_disconnect(&record, &Close::Lost, false)
    else {
        panic!("nothing")
    };
    assert_eq!(channel, Channel::Group("lobby".into()));
    assert_eq!(text_of(&frame), format!("{} left", record.id));
}
