//! Expressions over a message: which route it selects, which of its text goes where.
//!
//! The forms are those of API Gateway's selection expressions ("WebSocket selection expressions in
//! API Gateway", apigateway-websocket-api-selection-expressions): `$request.body.a.b` and other
//! paths (`path.rs`), `${request.body.a}/${request.body.b}`, a constant, `\$literal`; and
//! `context.*` in the same places. Values are cut out of the body as they stand there, never
//! re-encoded.

use std::borrow::Cow;

use self::json::{Json, JsonError};
use self::path::{Found, Path};

mod json;
mod parse;
mod path;
mod shape;

/// Longest expression, in bytes: with the length of a message it bounds the work of evaluating.
const LENGTH_MAX: usize = 1_024;

/// A parsed expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expression(Form);

#[derive(Clone, Debug, PartialEq)]
enum Form {
    /// One variable and nothing else: may be missing.
    Variable(Variable),
    /// Literals and variables; what is missing counts as empty.
    Composite(Vec<TemplatePart>),
}

#[derive(Clone, Debug, PartialEq)]
enum TemplatePart {
    Literal(String),
    Variable(Variable),
}

#[derive(Clone, Debug, PartialEq)]
enum Variable {
    /// The body as typed.
    Whole,
    /// What is at a path of the body.
    Body(Path),
    Context(ContextKey),
}

/// What an expression can tell of the connection and the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContextKey {
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
pub(crate) trait Context {
    /// Returns the value of `key`.
    fn get(&self, key: ContextKey) -> Cow<'_, str>;
}

/// Why a text is not an expression; says what would be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExpressionError {
    /// `${` without its `}`.
    #[error("\"${{\" without its \"}}\"")]
    Unclosed,
    /// An unknown variable.
    #[error(
        "unknown variable {0:?}; write request.body, request.body.PATH, context.connectionId, context.requestId, context.stage or context.identity.sourceIp"
    )]
    UnknownVariable(String),
    /// A path of an unknown form.
    #[error(
        "path {0:?} is of no known form; write names and positions (.a.b[0]['c'][-1]), or what finds several: [*], ..a, [0:2], ['a','b'], [?(@.a == 'x')]"
    )]
    Path(String),
    /// Longer than [`LENGTH_MAX`].
    #[error("longer than {LENGTH_MAX} bytes")]
    TooLong,
}

/// A message's body; knows whether it is JSON. It is taken apart once, whatever is asked of it.
#[derive(Debug)]
pub(crate) struct Body<'a> {
    text: &'a str,
    json: Result<Json<'a>, JsonError>,
}

impl<'a> Body<'a> {
    /// Takes a body as typed.
    #[must_use]
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, json: Json::parse(text) }
    }

    /// Returns whether the body is anything but JSON. What nests deeper than [`json::DEPTH_MAX`]
    /// levels is neither text nor has it values.
    #[must_use]
    pub(crate) fn is_text(&self) -> bool {
        matches!(self.json, Err(JsonError::Grammar))
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
    pub(crate) fn parse(text: &str) -> Result<Self, ExpressionError> {
        if text.len() > LENGTH_MAX {
            return Err(ExpressionError::TooLong);
        }
        if let Some(literal) = text.strip_prefix('\\') {
            return Ok(Self(Form::Composite(vec![TemplatePart::Literal(literal.to_owned())])));
        }
        let bare = text.strip_prefix('$').unwrap_or(text);
        if ["request.", "context."].iter().any(|root| bare.starts_with(root)) {
            return match Variable::parse(bare)? {
                (variable, "") => Ok(Self(Form::Variable(variable))),
                _ => Err(ExpressionError::Path(bare.to_owned())),
            };
        }
        if text.starts_with('$') && !text.starts_with("${") {
            return Err(ExpressionError::UnknownVariable(text.to_owned()));
        }
        parse_composite(text).map(|parts| Self(Form::Composite(parts)))
    }

    /// Evaluates to the text that goes on: JSON strings without their quotes, other values as
    /// typed. `None` if the one variable of the expression is missing or null.
    pub(crate) fn render<'a>(
        &'a self,
        body: &Body<'a>,
        context: &'a impl Context,
    ) -> Option<Cow<'a, str>> {
        self.evaluate(body, context, Arrays::Verbatim)
    }

    /// Evaluates to a route key; as [`Expression::render`], but arrays are written `[item1,
    /// item2]`.
    pub(crate) fn select<'a>(
        &'a self,
        body: &Body<'a>,
        context: &'a impl Context,
    ) -> Option<Cow<'a, str>> {
        self.evaluate(body, context, Arrays::Listed)
    }

    /// Returns whether this is `$request.body`: the message as it came.
    #[must_use]
    pub(crate) fn is_whole_body(&self) -> bool {
        self.0 == Form::Variable(Variable::Whole)
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
                [TemplatePart::Literal(text)] => Some(Cow::Borrowed(text)),
                parts => {
                    let values = parts.iter().map(|part| part.value(body, context, arrays));
                    Some(Cow::Owned(values.collect::<Vec<_>>().concat()))
                }
            },
        }
    }
}

impl TemplatePart {
    fn value<'a>(
        &'a self,
        body: &Body<'a>,
        context: &'a impl Context,
        arrays: Arrays,
    ) -> Cow<'a, str> {
        match self {
            Self::Literal(text) => Cow::Borrowed(text),
            Self::Variable(variable) => variable.value(body, context, arrays).unwrap_or_default(),
        }
    }
}

impl Variable {
    /// Reads a variable at the beginning of a text; returns what is behind it.
    fn parse(text: &str) -> Result<(Self, &str), ExpressionError> {
        let unknown = || ExpressionError::UnknownVariable(text.to_owned());
        let known = [
            ("context.connectionId", ContextKey::ConnectionId),
            ("context.requestId", ContextKey::RequestId),
            ("context.stage", ContextKey::Stage),
            ("context.identity.sourceIp", ContextKey::SourceIp),
        ];
        let (variable, rest) = match text.strip_prefix("request.body") {
            Some(path) if path.starts_with(['.', '[']) => {
                let (path, rest) =
                    parse::path(path).ok_or_else(|| ExpressionError::Path(text.to_owned()))?;
                (Self::Body(path), rest)
            }
            Some(rest) => (Self::Whole, rest),
            None => {
                let read =
                    |(name, key)| text.strip_prefix(name).map(|rest| (Self::Context(key), rest));
                known.into_iter().find_map(read).ok_or_else(unknown)?
            }
        };
        // A name goes on, or its end is where the expression has it.
        if rest.is_empty() || rest.starts_with('}') || matches!(variable, Self::Body(_)) {
            Ok((variable, rest))
        } else {
            Err(unknown())
        }
    }

    fn value<'a>(
        &'a self,
        body: &Body<'a>,
        context: &'a impl Context,
        arrays: Arrays,
    ) -> Option<Cow<'a, str>> {
        match self {
            Self::Context(key) => Some(context.get(*key)),
            Self::Whole => Some(Cow::Borrowed(body.text)),
            Self::Body(path) => {
                let json = body.json.as_ref().ok()?;
                match path.find(json)? {
                    Found::One(at) => stringify(json, at, arrays),
                    Found::Many(found) => {
                        list(json, &mut found.into_iter(), arrays).map(Cow::Owned)
                    }
                }
            }
        }
    }
}

fn stringify<'a>(json: &Json<'a>, at: usize, arrays: Arrays) -> Option<Cow<'a, str>> {
    match json.kind(at) {
        b'n' => None,
        b'"' => Some(json.string(at)),
        b'[' if arrays == Arrays::Listed => {
            list(json, &mut json.elements(at), arrays).map(Cow::Owned)
        }
        _ => Some(Cow::Borrowed(json.text(at))),
    }
}

/// Makes a list of values. `None` if it is more than twice as long as the whole message, which
/// takes values that hold each other, 128 deep.
fn list(
    json: &Json<'_>,
    values: &mut dyn Iterator<Item = usize>,
    arrays: Arrays,
) -> Option<String> {
    let longest = 2 * json.text(0).len();
    let mut text = String::from("[");
    write_list(json, values, arrays, longest, &mut text);
    (text.len() <= longest).then_some(text)
}

/// Writes the values of a list and its end. Calls itself [`json::DEPTH_MAX`] times at most, since
/// no JSON is deeper.
fn write_list(
    json: &Json<'_>,
    values: &mut dyn Iterator<Item = usize>,
    arrays: Arrays,
    longest: usize,
    text: &mut String,
) {
    let separator = if arrays == Arrays::Listed { ", " } else { "," };
    for (index, at) in values.enumerate() {
        if text.len() > longest {
            return;
        }
        if index > 0 {
            text.push_str(separator);
        }
        match (json.kind(at), arrays) {
            (b'[', Arrays::Listed) => {
                text.push('[');
                write_list(json, &mut json.elements(at), arrays, longest, text);
            }
            (b'"', Arrays::Listed) => text.push_str(&json.string(at)),
            _ => text.push_str(json.text(at)),
        }
    }
    text.push(']');
}

fn parse_composite(text: &str) -> Result<Vec<TemplatePart>, ExpressionError> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((literal, after)) = rest.split_once("${") {
        if !literal.is_empty() {
            parts.push(TemplatePart::Literal(literal.to_owned()));
        }
        if !after.contains('}') {
            return Err(ExpressionError::Unclosed);
        }
        let (variable, behind) = Variable::parse(after)?;
        parts.push(TemplatePart::Variable(variable));
        rest = behind.strip_prefix('}').ok_or_else(|| ExpressionError::Path(after.to_owned()))?;
    }
    if !rest.is_empty() || parts.is_empty() {
        parts.push(TemplatePart::Literal(rest.to_owned()));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::json::DEPTH_MAX;
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
        let body = r#"{"data": {"big": 12345678901234567890, "n" : 1.0e2 }, "text":"a\"\u00e4\n", "list":[1, 2]}"#;
        assert_eq!(
            render("$request.body.data", body).as_deref(),
            Some(r#"{"big": 12345678901234567890, "n" : 1.0e2 }"#)
        );
        assert_eq!(render("$request.body.text", body).as_deref(), Some("a\"ä\n"));
        assert_eq!(render("$request.body.list", body).as_deref(), Some("[1, 2]"));
        assert_eq!(
            render("${context.connectionId} left", "").as_deref(),
            Some("<ConnectionId> left")
        );
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
        assert_eq!(
            render("$request.body.raw", body).as_deref(),
            Some(r#"{"a":"\ud83d"}"#),
            "as typed"
        );
        assert_eq!(select("$request.body['\u{fffd}']", body).as_deref(), Some("1"));
        assert_eq!(select("$request.body.action", body).as_deref(), Some("x"));
    }

    /// Of RFC 9535 and of the API Gateway documentation's forms.
    #[test]
    fn paths_that_find_several_give_a_list() {
        let body = r#"{"action":"x","list":["a","b","c", 4],"items":[{"k":"one","n":1},{"k":"two","n":2.0,"on":true},
            {"k":"t\u0068ree","n":30, "in":{"k":"deep"}}],"k":"top"}"#;
        for (path, selected, rendered) in [
            ("list[-1]", "4", "4"),
            ("list[-4]", "a", "a"),
            ("['list'][ 1 ]", "b", "b"),
            ("list[*]", "[a, b, c, 4]", r#"["a","b","c",4]"#),
            ("list.*", "[a, b, c, 4]", r#"["a","b","c",4]"#),
            ("list[0:2]", "[a, b]", r#"["a","b"]"#),
            ("list[-2:]", "[c, 4]", r#"["c",4]"#),
            ("list[:-3]", "[a]", r#"["a"]"#),
            ("list[::-1]", "[4, c, b, a]", r#"[4,"c","b","a"]"#),
            ("list[3:0:-2]", "[4, b]", r#"[4,"b"]"#),
            ("list[::9223372036854775807]", "[a]", r#"["a"]"#),
            ("list[0, 2]", "[a, c]", r#"["a","c"]"#),
            ("list[0, 0]", "[a]", r#"["a"]"#),
            ("['action', \"k\"]", "[x, top]", r#"["x","top"]"#),
            ("items[*].k", "[one, two, three]", r#"["one","two","t\u0068ree"]"#),
            (".k", "[top, one, two, three, deep]", r#"["top","one","two","t\u0068ree","deep"]"#),
            (".in..k", "[deep]", r#"["deep"]"#),
            (".[0].k", "[one]", r#"["one"]"#),
            ("items[?(@.n == 2)].k", "[two]", r#"["two"]"#),
            ("items[?@.k == 'three'].n", "[30]", "[30]"),
            ("items[?@.n > 1 && @.n <= 30].n", "[2.0, 30]", "[2.0,30]"),
            ("items[?@.n < 2 || @.on].k", "[one, two]", r#"["one","two"]"#),
            ("items[?!@.on && !(@.n >= 30)].k", "[one]", r#"["one"]"#),
            ("items[?@.on != true].n", "[1, 30]", "[1,30]"),
            ("items[?@.in.k == @['in'].k && @.in].n", "[30]", "[30]"),
            ("list[?@ > 'a'][0:9]", "", ""),
            ("list[?@ > 'a']", "[b, c]", r#"["b","c"]"#),
            ("list[?@ == 4.0]", "[4]", "[4]"),
            (".*[?@ == '}']", "", ""),
            ("list[-5]", "", ""),
            ("list[::0]", "", ""),
            ("missing[*]", "", ""),
            ("action[*]", "", ""),
        ] {
            let dot = if path.starts_with('[') { "" } else { "." };
            let expression = format!("$request.body{dot}{path}");
            let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            assert_eq!(select(&expression, body), some(selected), "{expression}");
            assert_eq!(render(&expression, body), some(rendered), "{expression}");
            let composite = format!("<${{request.body{dot}{path}}}>");
            assert_eq!(render(&composite, body), Some(format!("<{rendered}>")), "{composite}");
        }
    }

    /// Whatever finds the same again and again elsewhere: here each value once, so nothing grows.
    #[test]
    fn what_a_path_finds_is_found_once() {
        let nested = r#"{"a":[{"a":[{"a":[1,2]}]}]}"#;
        assert_eq!(render("$request.body..*..*..a[*]..*", nested).as_deref(), Some("[[1,2],1,2]"));
        assert_eq!(render("$request.body..a..a[1]", nested).as_deref(), Some("[2]"));
        let levels = DEPTH_MAX / 2;
        let body = format!(
            "{}{}{}",
            r#"{"a":["#.repeat(levels),
            "1,".repeat(10_000) + "1",
            "]}".repeat(levels)
        );
        let all = format!("$request.body{}", "..*".repeat(40));
        assert_eq!(render(&all, &body), None, "each of the levels with all that is inside");
        let leaves = format!("$request.body{}[?@ == 1]", "..*".repeat(40));
        assert_eq!(render(&leaves, &body).map(|found| found.len()), Some(2 * 10_001 + 1));
    }

    #[test]
    fn lists_are_written_at_every_level() {
        let body = r#"{"a":[1, [], [ "x", [null, {"b" : 2}]]]}"#;
        assert_eq!(
            select("$request.body.a", body).as_deref(),
            Some(r#"[1, [], [x, [null, {"b" : 2}]]]"#)
        );
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
        for text in [
            "$request.header.x",
            "$body.action",
            "${action}",
            "$request.bodyaction",
            "$context.stages",
            "${context.stage.x}",
            "${request.body action}",
        ] {
            let error = Expression::parse(text).expect_err(text);
            assert!(matches!(error, ExpressionError::UnknownVariable(_)), "{text}: {error}");
        }
        for text in [
            "$request.body.",
            "$request.body...a",
            "$request.body.a[",
            "$request.body.a[]",
            "$request.body.a[1",
            "$request.body.a['b]",
            "$request.body.a[1 2]",
            "$request.body.a[1,]",
            "$request.body.a[1:2:3:4]",
            "$request.body.a[99999999999999999999]",
            "$request.body.a[b]",
            "$request.body.$.a",
            "$request.body.a b",
            "$request.body.a}",
            "$request.body[?]",
            "$request.body[?(@.a]",
            "$request.body[?@.a ==]",
            "$request.body[?1]",
            "$request.body[?@..a == 1]",
            "$request.body[?@.a == $.b]",
            "$request.body[?length(@.a) > 1]",
            "$request.body[?@.a == 1e999]",
            "${request.body.a b}",
            "${request.body['}",
        ] {
            let error = Expression::parse(text).expect_err(text);
            assert!(matches!(error, ExpressionError::Path(_)), "{text}: {error}");
        }
        let deep = format!("$request.body[?{}@.a{}]", "(".repeat(400), ")".repeat(400));
        assert!(matches!(Expression::parse(&deep), Err(ExpressionError::Path(_))));
        let negated = format!("$request.body[?{}@.a]", "!".repeat(900));
        assert!(matches!(Expression::parse(&negated), Err(ExpressionError::Path(_))));
        assert_eq!(Expression::parse(&"x".repeat(LENGTH_MAX + 1)), Err(ExpressionError::TooLong));
    }
}
