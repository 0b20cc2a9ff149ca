//! Expressions over a message: which route it selects, which of its text goes where.
//!
//! The forms are those of API Gateway's selection expressions ("WebSocket selection expressions in API Gateway",
//! apigateway-websocket-api-selection-expressions): `$request.body.a.b`, `${request.body.a}/${request.body.b}`, a constant,
//! `\$literal`; and `context.*` in the same places. Values are cut out of the body as they stand there, never re-encoded.

use std::borrow::Cow;

use self::json::{Fault, Json};

mod json;

pub use self::json::DEPTH_MAX;

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

/// A message's body; knows whether it is JSON. It is taken apart once, whatever is asked of it.
#[derive(Debug)]
pub struct Body<'a> {
    text: &'a str,
    json: Result<Json<'a>, Fault>,
}

impl<'a> Body<'a> {
    /// Takes a body as typed.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self { text, json: Json::parse(text) }
    }

    /// Returns whether the body is anything but JSON. What nests deeper than [`DEPTH_MAX`] levels is neither text nor has it
    /// values.
    #[must_use]
    pub fn is_text(&self) -> bool {
        matches!(self.json, Err(Fault::Grammar))
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
                if path.is_empty() {
                    return Some(Cow::Borrowed(body.text));
                }
                let json = body.json.as_ref().ok()?;
                let found = path.iter().try_fold(0, |at, step| step.descend(json, at))?;
                stringify(json, found, arrays)
            }
        }
    }
}

impl Step {
    fn descend(&self, json: &Json<'_>, at: usize) -> Option<usize> {
        match self {
            Self::Key(key) => json.member(at, key),
            Self::Index(index) => json.element(at, *index),
        }
    }
}

fn stringify<'a>(json: &Json<'a>, at: usize, arrays: Arrays) -> Option<Cow<'a, str>> {
    match json.kind(at) {
        b'n' => None,
        b'"' => Some(json.string(at)),
        b'[' if arrays == Arrays::Listed => {
            let mut text = String::new();
            list(json, at, &mut text);
            Some(Cow::Owned(text))
        }
        _ => Some(Cow::Borrowed(json.text(at))),
    }
}

/// Writes an array as a route key has it: no deeper than [`DEPTH_MAX`] levels, since there is no JSON that is.
fn list(json: &Json<'_>, array: usize, text: &mut String) {
    let mut separator = "[";
    for at in json.elements(array) {
        text.push_str(separator);
        match json.kind(at) {
            b'[' => list(json, at, text),
            b'"' => text.push_str(&json.string(at)),
            _ => text.push_str(json.text(at)),
        }
        separator = ", ";
    }
    text.push_str(if separator == "[" { "[]" } else { "]" });
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
            assert!(Body::new(body).is_text(), "{body}");
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
    fn half_a_surrogate_pair_becomes_a_replacement_character() {
        let body = r#"{"data":"cut \ud83d","list":["\ud83d"],"raw":{"a":"\ud83d"},"\ud83d":1,"action":"x"}"#;
        assert_eq!(render("$request.body.data", body).as_deref(), Some("cut \u{fffd}"));
        assert_eq!(select("$request.body.list", body).as_deref(), Some("[\u{fffd}]"));
        assert_eq!(render("$request.body.raw", body).as_deref(), Some(r#"{"a":"\ud83d"}"#), "as typed");
        assert_eq!(select("$request.body['\u{fffd}']", body).as_deref(), Some("1"));
        assert_eq!(select("$request.body.action", body).as_deref(), Some("x"));
    }

    #[test]
    fn lists_are_written_at_every_level() {
        let body = r#"{"a":[1, [], [ "x", [null, {"b" : 2}]]]}"#;
        assert_eq!(select("$request.body.a", body).as_deref(), Some(r#"[1, [], [x, [null, {"b" : 2}]]]"#));
    }

    #[test]
    fn what_nests_too_deep_has_no_values_and_is_no_text() {
        for (levels, found) in [(DEPTH_MAX - 1, true), (DEPTH_MAX, false), (60_000, false)] {
            let array = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
            let body = format!(r#"{{"action":{array}}}"#);
            assert!(!Body::new(&body).is_text());
            assert_eq!(select("$request.body.action", &body), found.then_some(array));
        }
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
