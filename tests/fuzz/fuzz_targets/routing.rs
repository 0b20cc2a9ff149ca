//! Routes whatever comes, as bytes and as JSON of every shape: no message may end the node, none
//! may become more than a few times its length, and what another parser reads as a chat's message
//! must lead to what that message says.

#![no_main]

use std::fmt::Write as _;
use std::sync::LazyLock;

use gatecast::fuzz::{Led, Routing};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

/// Expressions of every form.
const FORMS: &str = r#"
route_selection_expression = "$request.body.action"
[routes."$default"]
integration = "broadcast"
data = "$request.body..*"
reply = "<${request.body..a}> ${request.body[?(@.n > 1 && @.a != 'x' || !@.b)]}"
[routes."$binary"]
integration = "broadcast"
data = "$request.body"
[routes."[a, b]"]
integration = "send_group"
group = "$request.body.group"
data = "${request.body.a[1:9:2]}${request.body.a[-1]}${request.body.*.*}${request.body..[0]..a}"
reply = "${request.body..['a','b'][::-1]}"
idempotency_key = "$request.body.id"
[routes.a]
integration = "join"
group = "$request.body.group"
reply = "$request.body.a.a.a.a[0][0].a"
"#;

static CHAT: LazyLock<Routing> = LazyLock::new(|| Routing::new("").expect("the built-in table"));
static ALL: LazyLock<Routing> = LazyLock::new(|| Routing::new(FORMS).expect("valid"));

#[derive(Arbitrary, Debug)]
enum Input {
    Bytes(Vec<u8>),
    Json(Value, u8),
}

#[derive(Arbitrary, Debug)]
enum Value {
    Null,
    Bool(bool),
    Number(i16, u8),
    Digits(u16),
    Text(String),
    Word(Name),
    /// Half of a surrogate pair, or any other unit.
    Unit(u16),
    Array(Vec<Value>),
    Object(Vec<(Name, Value)>),
    Deep(u16, bool, Box<Value>),
    /// What may be no JSON.
    Typed(String),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Name {
    Action,
    Escaped,
    Data,
    Group,
    Id,
    A,
    B,
    N,
    Half,
    SendMessage,
    JoinGroup,
    SendToGroup,
}

impl Name {
    fn typed(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Escaped => r"\u0061ction",
            Self::Data => "data",
            Self::Group => "group",
            Self::Id => "id",
            Self::A => "a",
            Self::B => "b",
            Self::N => "n",
            Self::Half => r"\ud83d",
            Self::SendMessage => "sendMessage",
            Self::JoinGroup => "joinGroup",
            Self::SendToGroup => "sendToGroup",
        }
    }
}

impl Value {
    fn write(&self, out: &mut String, blank: &str) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(bool) => write!(out, "{bool}").expect("memory"),
            Self::Number(number, exponent) => write!(out, "{number}.5e{exponent}").expect("memory"),
            Self::Digits(count) => out.extend((0..=*count).map(|_| '9')),
            Self::Text(text) => out.push_str(&serde_json::to_string(text).expect("JSON")),
            Self::Word(name) => write!(out, "\"{}\"", name.typed()).expect("memory"),
            Self::Unit(unit) => write!(out, "\"x\\u{unit:04x}\"").expect("memory"),
            Self::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { blank });
                    item.write(out, blank);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (index, (name, value)) in members.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { blank });
                    write!(out, "\"{}\"{blank}:", name.typed()).expect("memory");
                    value.write(out, blank);
                }
                out.push_str(blank);
                out.push('}');
            }
            Self::Deep(levels, is_object, inside) => {
                let levels = usize::from(levels % 300);
                out.push_str(&if *is_object { r#"{"a":"# } else { "[" }.repeat(levels));
                inside.write(out, blank);
                out.push_str(&if *is_object { "}" } else { "]" }.repeat(levels));
            }
            Self::Typed(text) => out.push_str(text),
        }
    }
}

fuzz_target!(|input: Input| {
    let text = match &input {
        Input::Bytes(bytes) => {
            bounded(&ALL.binary(bytes), bytes.len());
            String::from_utf8_lossy(bytes).into_owned()
        }
        Input::Json(value, blanks) => {
            let mut text = String::new();
            value.write(&mut text, ["", " ", "\n", "\t\r "][usize::from(blanks % 4)]);
            text
        }
    };
    bounded(&ALL.text(&text), text.len());
    let led = CHAT.text(&text);
    bounded(&led, text.len());
    agrees(&led, &text);
});

/// An expression's value is at most twice the message, and no route has more than six of them.
fn bounded(led: &Led, len: usize) {
    let published = led.published.as_ref().map_or(0, |(group, data)| group.len() + data.len());
    let all = published + led.reply.as_ref().map_or(0, String::len) + led.name.as_ref().map_or(0, String::len);
    assert!(all <= 12 * len + 512, "{all} bytes of {len}: {led:?}");
}

/// Compares with what `serde_json` reads. It takes no half of a surrogate pair, no number over all
/// bounds, and one level less.
fn agrees(led: &Led, text: &str) {
    let Ok(value) = serde_json::from_str::<serde_json::Value>(text) else { return };
    let word = |name: &str| value.get(name).and_then(serde_json::Value::as_str);
    let is_forbidden = led.reply.as_ref().is_some_and(|reply| reply.starts_with(r#"{"message": "Forbidden""#));
    match (word("action"), word("data"), word("group")) {
        (Some("sendMessage"), Some(data), _) => {
            assert_eq!(led.published, Some((String::new(), data.to_owned())), "{text}");
        }
        (Some("joinGroup"), _, Some(group)) if (1..=128).contains(&group.len()) && !group.contains(char::is_control) => {
            assert_eq!(led.name.as_deref(), Some(group), "{text}");
        }
        (Some("sendMessage" | "joinGroup" | "sendToGroup"), _, _) => assert!(!is_forbidden, "{text}"),
        (Some("leaveGroup" | "disconnect"), _, _) => {}
        (None, _, _) | (Some(_), _, _) => {
            let is_known = |name: &str| ["sendMessage", "joinGroup", "sendToGroup", "leaveGroup", "disconnect"].contains(&name);
            assert!(is_forbidden || word("action").is_some_and(is_known), "{text}: {led:?}");
        }
    }
}
