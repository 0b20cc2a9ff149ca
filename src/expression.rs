//! Expressions over a message: which route it selects, which of its text goes where.
//!
//! The forms are those of API Gateway's selection expressions ("WebSocket selection expressions in API Gateway",
//! apigateway-websocket-api-selection-expressions): `$request.body.a.b`, `${request.body.a}/${request.body.b}`, a constant,
//! `\$literal`; and `context.*` in the same places. Values are cut out of the body as they stand there, never re-encoded.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A parsed expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression(Form);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// One variable and nothing else: may be missing.
    Variable(Variable),
    /// Literals and variables; what is missing counts as empty.
    Composite(Vec<Part>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Variable(Variable),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Variable {
    /// The value at a path of the body; the empty path is the body as typed.
    Body(Vec<Step>),
    Context(ContextKey),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// What an expression can tell of the connection and the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextKey {
    /// The id of the connection that sent the message.
    ConnectionId,
    /// The id of this run of the route.
    RequestId,
    /// The stage's name.
    Stage,
    /// The client's address.
    SourceIp,
}

/// Gives the values of `context.*`.
pub trait Context {
    /// Returns the value of `key`.
    fn get(&self, key: ContextKey) -> Cow<'_, str>;
}

/// Why a text is not an expression; says what would be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// `${` without its `}`.
    #[error("\"${{\" without its \"}}\"")]
    Unclosed,
    /// A variable that is none of the known ones.
    #[error(
        "unknown variable {0:?}; write request.body, request.body.PATH, context.connectionId, context.requestId, context.stage or context.identity.sourceIp"
    )]
    UnknownVariable(String),
    /// A path that is more than keys and indexes.
    #[error("path {0:?} is not of the form a.b[0]['c']")]
    Path(String),
}

/// A message's body; knows whether it is JSON. An object is taken apart once, whatever is asked of it.
#[derive(Debug)]
pub struct Body<'a> {
    text: &'a str,
    json: Option<Json<'a>>,
}

#[derive(Debug)]
enum Json<'a> {
    Object(Members<'a>),
    Other(&'a RawValue),
}

/// What an object holds, as typed and in that order.
#[derive(Debug)]
struct Members<'a>(Vec<(Name<'a>, &'a RawValue)>);

#[derive(Debug, Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Members<'a> {
    /// Returns a member; of several with one name the last, as most parsers do.
    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rfind(|(Name(own), _)| own == name).map(|(_, value)| *value)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Vec<(Name<'de>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Collect).map(Members)
    }
}

impl<'a> Body<'a> {
    /// Takes a body as typed.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        let object = serde_json::from_str(text).map(Json::Object);
        let json = object.or_else(|_| serde_json::from_str(text).map(Json::Other));
        Self { text, json: json.ok() }
    }

    /// Returns whether the body is JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.json.is_some()
    }
}

/// What an array becomes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arrays {
    /// `[item1, item2]`, as a route key (contract of selection expressions).
    Listed,
    /// The JSON as typed.
    Verbatim,
}

impl Expression {
    /// Parses an expression.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        if let Some(literal) = text.strip_prefix('\\') {
            return Ok(Self(Form::Composite(vec![Part::Literal(literal.to_owned())])));
        }
        let bare = text.strip_prefix('$').unwrap_or(text);
        if ["request.", "context."].iter().any(|root| bare.starts_with(root)) {
            return Variable::parse(bare).map(|variable| Self(Form::Variable(variable)));
        }
        if text.starts_with('$') && !text.starts_with("${") {
            return Err(ExpressionError::UnknownVariable(text.to_owned()));
        }
        parse_composite(text).map(|parts| Self(Form::Composite(parts)))
    }

    /// Evaluates to the text that goes on: JSON strings without their quotes, other values as typed. `None` if the one
    /// variable of the expression is missing or null.
    pub fn render<'a>(&'a self, body: &Body<'a>, context: &'a impl Context) -> Option<Cow<'a, str>> {
        self.evaluate(body, context, Arrays::Verbatim)
    }

    /// Evaluates to a route key; as [`Expression::render`], but arrays are written `[item1, item2]`.
    pub fn select<'a>(&'a self, body: &Body<'a>, context: &'a impl Context) -> Option<Cow<'a, str>> {
        self.evaluate(body, context, Arrays::Listed)
    }

    /// Returns whether this is `$request.body`: the message as it came.
    #[must_use]
    pub fn is_whole_body(&self) -> bool {
        matches!(&self.0, Form::Variable(Variable::Body(path)) if path.is_empty())
    }

    fn evaluate<'a>(
        &'a self,
        body: &Body<'a>,
        context: &'a impl Context,
        arrays: Arrays,
    ) -> Option<Cow<'a, str>> {
        match &self.0 {
            Form::Variable(variable) => variable.value(body, context, arrays),
            Form::Composite(parts) => match parts.as_slice() {
                [Part::Literal(text)] => Some(Cow::Borrowed(text)),
                parts => {
                    let values = parts.iter().map(|part| part.value(body, context, arrays));
                    Some(Cow::Owned(values.collect::<Vec<_>>().concat()))
                }
            },
        }
    }
}

impl Part {
    fn value<'a>(&'a self, body: &Body<'a>, context: &'a impl Context, arrays: Arrays) -> Cow<'a, str> {
        match self {
            Self::Literal(text) => Cow::Borrowed(text),
            Self::Variable(variable) => variable.value(body, context, arrays).unwrap_or_default(),
        }
    }
}

impl Variable {
    fn parse(text: &str) -> Result<Self, ExpressionError> {
        let unknown = || ExpressionError::UnknownVariable(text.to_owned());
        match text {
            "request.body" => return Ok(Self::Body(Vec::new())),
            "context.connectionId" => return Ok(Self::Context(ContextKey::ConnectionId)),
            "context.requestId" => return Ok(Self::Context(ContextKey::RequestId)),
            "context.stage" => return Ok(Self::Context(ContextKey::Stage)),
            "context.identity.sourceIp" => return Ok(Self::Context(ContextKey::SourceIp)),
            _ => {}
        }
        let path = text.strip_prefix("request.body").ok_or_else(unknown)?;
        if !path.starts_with(['.', '[']) {
            return Err(unknown());
        }
        parse_path(path).map(Self::Body).ok_or_else(|| ExpressionError::Path(text.to_owned()))
    }

    fn value<'a>(
        &'a self,
        body: &Body<'a>,
        context: &'a impl Context,
        arrays: Arrays,
    ) -> Option<Cow<'a, str>> {
        match self {
            Self::Context(key) => Some(context.get(*key)),
            Self::Body(path) => {
                let Some((first, rest)) = path.split_first() else { return Some(Cow::Borrowed(body.text)) };
                let begin = match (body.json.as_ref()?, first) {
                    (Json::Object(members), Step::Key(key)) => members.get(key)?,
                    (Json::Object(_), Step::Index(_)) => return None,
                    (Json::Other(value), step) => step.descend(value)?,
                };
                let found = rest.iter().try_fold(begin, |value, step| step.descend(value))?;
                stringify(found, arrays)
            }
        }
    }
}

impl Step {
    fn descend<'a>(&self, value: &'a RawValue) -> Option<&'a RawValue> {
        match self {
            Self::Key(key) => serde_json::from_str::<Members<'a>>(value.get()).ok()?.get(key),
            Self::Index(index) => {
                let items: Vec<&'a RawValue> = serde_json::from_str(value.get()).ok()?;
                items.get(*index).copied()
            }
        }
    }
}

fn stringify(value: &RawValue, arrays: Arrays) -> Option<Cow<'_, str>> {
    let text = value.get();
    match text.as_bytes().first()? {
        b'n' => None,
        b'"' => match text.get(1..text.len() - 1) {
            Some(plain) if !plain.contains('\\') => Some(Cow::Borrowed(plain)),
            _ => serde_json::from_str::<String>(text).ok().map(Cow::Owned),
        },
        b'[' if arrays == Arrays::Listed => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            let items: Vec<_> = items
                .into_iter()
                .map(|item| stringify(item, arrays).unwrap_or(Cow::Borrowed("null")))
                .collect();
            Some(Cow::Owned(format!("[{}]", items.join(", "))))
        }
        _ => Some(Cow::Borrowed(text)),
    }
}

fn parse_composite(text: &str) -> Result<Vec<Part>, ExpressionError> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((literal, after)) = rest.split_once("${") {
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.to_owned()));
        }
        let (variable, after) = after.split_once('}').ok_or(ExpressionError::Unclosed)?;
        parts.push(Part::Variable(Variable::parse(variable)?));
        rest = after;
    }
    if !rest.is_empty() || parts.is_empty() {
        parts.push(Part::Literal(rest.to_owned()));
    }
    Ok(parts)
}

/// Parses `.a.b[0]['c']`.
fn parse_path(path: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (key, tail) = after.split_at_checked(end)?;
            let plain = key.chars().all(|char| char.is_alphanumeric() || matches!(char, '_' | '-'));
            if key.is_empty() || !plain {
                return None;
            }
            steps.push(Step::Key(key.to_owned()));
            rest = tail;
        } else {
            let (inside, tail) = rest.strip_prefix('[')?.split_once(']')?;
            let quoted =
                ['\'', '"'].iter().find_map(|quote| inside.strip_prefix(*quote)?.strip_suffix(*quote));
            steps.push(match quoted {
                Some(key) => Step::Key(key.to_owned()),
                None => Step::Index(inside.parse().ok()?),
            });
            rest = tail;
        }
    }
    Some(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Context for Fixed {
        fn get(&self, key: ContextKey) -> Cow<'_, str> {
            format!("<{key:?}>").into()
        }
    }

    fn select(expression: &str, body: &str) -> Option<String> {
        let expression = Expression::parse(expression).expect("valid expression");
        expression.select(&Body::new(body), &Fixed).map(Cow::into_owned)
    }

    fn render(expression: &str, body: &str) -> Option<String> {
        let expression = Expression::parse(expression).expect("valid expression");
        expression.render(&Body::new(body), &Fixed).map(Cow::into_owned)
    }

    #[test]
    fn forms_of_the_contract_select() {
        let body = r#"{"service":"chat","action":"join","a":{"b":"deep"},"list":["item1", "item2"],"n":7}"#;
        assert_eq!(select("$request.body.action", body).as_deref(), Some("join"));
        assert_eq!(select("request.body.action", body).as_deref(), Some("join"));
        assert_eq!(select("$request.body.a.b", body).as_deref(), Some("deep"));
        assert_eq!(select("$request.body['a']['b']", body).as_deref(), Some("deep"));
        assert_eq!(select("$request.body.list[1]", body).as_deref(), Some("item2"));
        assert_eq!(
            select("${request.body.service}/${request.body.action}", body).as_deref(),
            Some("chat/join")
        );
        assert_eq!(
            select("${request.body.action}-${request.body.invalidPath}", body).as_deref(),
            Some("join-")
        );
        assert_eq!(select("$request.body.list", body).as_deref(), Some("[item1, item2]"));
        assert_eq!(select("$request.body.n", body).as_deref(), Some("7"));
        assert_eq!(select("action", body).as_deref(), Some("action"));
        assert_eq!(select(r"\$default", body).as_deref(), Some("$default"));
        assert_eq!(select("$request.body.missing", body), None);
        assert_eq!(select("$request.body.action.too.deep", body), None);
        assert_eq!(select("$request.body.action", r#"{"action":null}"#), None);
    }

    #[test]
    fn result_of_an_expression_is_not_evaluated_again() {
        let body = r#"{"action":"${request.body.other}","other":"x"}"#;
        assert_eq!(select("$request.body.action", body).as_deref(), Some("${request.body.other}"));
    }

    #[test]
    fn bodies_that_are_not_json_have_no_values() {
        for body in ["", "hello", "{\"action\":\"a\"} tail", "{'action':'a'}", "{\"action\":"] {
            assert!(!Body::new(body).is_json(), "{body}");
            assert_eq!(select("$request.body.action", body), None, "{body}");
        }
        assert_eq!(render("$request.body", "as typed ").as_deref(), Some("as typed "));
        assert_eq!(select("$request.body.action", "[1]"), None);
    }

    #[test]
    fn values_go_on_as_typed() {
        let body =
            r#"{"data": {"big": 12345678901234567890, "n" : 1.0e2 }, "text":"a\"\u00e4\n", "list":[1, 2]}"#;
        assert_eq!(
            render("$request.body.data", body).as_deref(),
            Some(r#"{"big": 12345678901234567890, "n" : 1.0e2 }"#)
        );
        assert_eq!(render("$request.body.text", body).as_deref(), Some("a\"ä\n"));
        assert_eq!(render("$request.body.list", body).as_deref(), Some("[1, 2]"));
        assert_eq!(render("${context.connectionId} left", "").as_deref(), Some("<ConnectionId> left"));
    }

    #[test]
    fn names_are_compared_as_they_are_meant_and_the_last_of_several_counts() {
        let body = r#" {"a":1,"\u0061ction":"x","a":{"b":[],"b":[2,{"\t":"deep"}]},"a ":3} "#;
        assert_eq!(select("$request.body.action", body).as_deref(), Some("x"));
        assert_eq!(select("$request.body.a.b[0]", body).as_deref(), Some("2"));
        assert_eq!(select("$request.body.a.b[1]['\t']", body).as_deref(), Some("deep"));
        assert_eq!(select("$request.body[0]", body), None);
        assert_eq!(select("$request.body[1].a", r#"[0, {"a": true}]"#).as_deref(), Some("true"));
        assert_eq!(select("$request.body.a", "[]"), None);
    }

    #[test]
    fn what_is_json_is_told_apart() {
        // Half of a surrogate pair is no text, but JSON's grammar has it (RFC 8259 §8.2): no name of ours is meant.
        for text in ["{}", " 1", "null", "[1]", r#""x""#, r#"{"a":{"b":[]}}"#, r#"{"\ud800":1,"a":2}"#] {
            assert!(Body::new(text).is_json(), "{text}");
        }
        for text in ["", "{", r#"{"a"}"#, r#"{"a":1,}"#, "{} x", "hello", r#"{"a":1}{"a":2}"#] {
            assert!(!Body::new(text).is_json(), "{text}");
        }
        assert_eq!(select("$request.body.a", r#"{"\ud800":1,"a":2}"#), None);
        let deep = format!("{}1{}", r#"{"a":"#.repeat(5_000), "}".repeat(5_000));
        assert!(Body::new(&deep).is_json());
    }

    #[test]
    fn faults_say_what_is_wrong() {
        assert_eq!(Expression::parse("${request.body.a"), Err(ExpressionError::Unclosed));
        for text in ["$request.header.x", "$body.action", "${action}", "$request.bodyaction"] {
            let error = Expression::parse(text).expect_err(text);
            assert!(matches!(error, ExpressionError::UnknownVariable(_)), "{text}: {error}");
        }
        for text in ["$request.body..a", "$request.body.a[*]", "$request.body.a[", "$request.body.$.a"] {
            let error = Expression::parse(text).expect_err(text);
            assert!(matches!(error, ExpressionError::Path(_)), "{text}: {error}");
        }
    }
}
