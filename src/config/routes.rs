//! Reads the route table.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::kinds::words::is_name;
use super::reader::{Reader, Section};
use super::row::{Kind, Row};
use super::settings::{Format, FunctionSettings, HttpSettings, LambdaSettings, StreamSettings};
use super::table::{node, route};
use super::variables::nearest;
use crate::model::call::TargetName;
use crate::routing::expression::Expression;
use crate::routing::route::{BUILT_IN, Integration, Ordering, PREDEFINED, Route, RouteTable};

const INTEGRATIONS: &str =
    "mock, broadcast, reply, close, join, leave, send_group, http, lambda, function or stream";

/// Of each integration what its route must have, and what it may have besides `reply`.
const TAKES: [(&str, &[&str], &[&str]); 11] = [
    ("mock", &[], &[]),
    ("broadcast", &["data"], &["idempotency_key"]),
    ("reply", &["reply"], &[]),
    ("close", &[], &[]),
    ("join", &["group"], &[]),
    ("leave", &["group"], &[]),
    ("send_group", &["group", "data"], &["idempotency_key"]),
    ("http", &["target"], &["two_way", "ordering"]),
    ("lambda", &["lambda"], &["two_way", "ordering"]),
    ("function", &["function"], &["two_way", "ordering"]),
    ("stream", &["stream"], &[]),
];

/// What only some integrations take.
const OWN: [&str; 9] = [
    "data",
    "group",
    "idempotency_key",
    "stream",
    "target",
    "lambda",
    "function",
    "two_way",
    "ordering",
];

/// Those that call a back end.
const CALLS: [&str; 4] = ["http", "lambda", "function", "stream"];

/// Where there is no open connection, and what can be done there.
const WITHOUT_SENDER: [&str; 2] = ["$connect", "$disconnect"];
const DONE_WITHOUT_SENDER: [&str; 7] =
    ["mock", "broadcast", "send_group", "http", "lambda", "function", "stream"];

/// The back ends that a route may name.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known<'k> {
    pub(super) targets: &'k [HttpSettings],
    pub(super) lambdas: &'k [LambdaSettings],
    pub(super) streams: &'k [StreamSettings],
    pub(super) functions: &'k [FunctionSettings],
}

impl Kind for Vec<Route> {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        let names = PREDEFINED.join("|").replace('$', r"\$");
        let of_integration = |(name, needed, allowed): &(&str, &[&str], &[&str])| {
            let may = |name: &&str| needed.contains(name) || allowed.contains(name);
            let others = OWN.into_iter().filter(|name| !may(name));
            let never: serde_json::Map<_, _> =
                others.map(|name| (name.to_owned(), false.into())).collect();
            let is = json!({ "required": ["integration"], "properties": { "integration": { "const": name } } });
            json!({ "if": is, "then": { "required": needed, "properties": never } })
        };
        let integrations: Vec<_> = TAKES.iter().map(|(name, ..)| name).collect();
        let mut conditions: Vec<_> = TAKES.iter().map(of_integration).collect();
        conditions.push(json!({ "properties": { "integration": { "enum": integrations } } }));
        let done = json!({ "properties": { "integration": { "enum": DONE_WITHOUT_SENDER }, "reply": false } });
        let special: serde_json::Map<_, _> =
            WITHOUT_SENDER.iter().map(|key| ((*key).to_owned(), done.clone())).collect();
        json!({
            "type": "object",
            "propertyNames": { "pattern": format!(r"^({names}|[^$\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]{{0,127}})$") },
            "allOf": [
                { "properties": special },
                { "patternProperties": { r"^(?!\$connect$)": { "properties": { "status": false } } } },
            ],
            "additionalProperties": { "allOf": conditions },
        })
    }
}

/// Takes `route_selection_expression` and `[routes]`; a file that names no routes has the built-in
/// ones.
pub(super) fn read(reader: &mut Reader<'_>, known: Known<'_>) -> RouteTable {
    let table = table(reader, known);
    if table.iter().next().is_some() {
        return table;
    }
    let no_overrides = BTreeMap::new();
    let mut built_in = Reader::open("built-in routes", BUILT_IN, &no_overrides, None);
    let table = self::table(&mut built_in, Known::default());
    debug_assert_eq!(built_in.end().faults, []);
    table
}

fn table(reader: &mut Reader<'_>, known: Known<'_>) -> RouteTable {
    let selection = reader.take(&node::route_selection_expression);
    let mut routes = Vec::new();
    for (key, place, section) in reader.named_sections(&node::routes) {
        if let Some(problem) = key_problem(&key) {
            reader.fault(place, &format!("routes.{key}"), problem);
        } else if !key.starts_with('$') && !selection.may_be(&key) {
            reader.warn(format!(
                "routes.{key} is for no message: route_selection_expression never gives this"
            ));
        }
        routes.extend(route(reader, known, &key, section));
    }
    RouteTable::new(selection, reader.settle(&node::routes, routes))
}

fn key_problem(key: &str) -> Option<String> {
    if key.starts_with('$') && !PREDEFINED.contains(&key) {
        return Some(format!("route keys may not start with $, except {}", PREDEFINED.join(", ")));
    }
    (key.is_empty() || key.len() > 128 || key.chars().any(char::is_control))
        .then(|| "route keys have 1 to 128 bytes and no control characters".to_owned())
}

fn route<'d>(
    reader: &mut Reader<'d>,
    known: Known<'_>,
    key: &str,
    mut section: Section<'d>,
) -> Option<Route> {
    let name = reader.take_from(&mut section, &route::integration);
    let reply = reader.take_from(&mut section, &route::reply);
    let status =
        if key == "$connect" { reader.take_from(&mut section, &route::status) } else { 200 };
    let mut fault = |name: &str, message: String| reader.fault_in(&section, name, message);
    let Some(name) = name else {
        fault("integration", format!("missing; set it to {INTEGRATIONS}"));
        return None;
    };
    let without_sender = WITHOUT_SENDER.contains(&key);
    if without_sender && reply.is_some() {
        fault("reply", "nobody can be answered on $connect and $disconnect; remove it".to_owned());
    }
    let is_known = TAKES.iter().any(|(known, ..)| *known == name);
    if without_sender && is_known && !DONE_WITHOUT_SENDER.contains(&name.as_str()) {
        let fix = format!(
            "{name:?} needs an open connection; $connect and $disconnect take {}",
            DONE_WITHOUT_SENDER.join(", ")
        );
        fault("integration", fix);
    }
    if name == "reply" && reply.is_none() {
        fault("reply", "missing; set it to what is answered, such as \"$request.body\"".to_owned());
    }
    let integration = match name.as_str() {
        calls if CALLS.contains(&calls) => call(reader, known, calls, &mut section),
        _ => integration(reader, &name, &mut section),
    };
    if let Some(Integration::Call { two_way, .. }) = integration {
        let has_reply = reply.is_some() && !without_sender;
        unanswered(reader, &section, two_way && without_sender, has_reply);
    }
    let idempotency_key = match integration {
        Some(Integration::Broadcast { .. } | Integration::SendGroup { .. }) => {
            reader.take_from(&mut section, &route::idempotency_key)
        }
        _ => None,
    };
    if !(200..300).contains(&status) && !matches!(integration, None | Some(Integration::Mock)) {
        let fix = format!(
            "{name:?} is not done, since status refuses every client; take mock, or remove status"
        );
        reader.fault_in(&section, "integration", fix);
    }
    let mut route = integration.map(|integration| Route {
        key: key.into(),
        integration,
        idempotency_key,
        reply,
        status,
        number: 0,
    });
    for (name, fix) in route.iter().flat_map(in_vain) {
        reader.fault_in(&section, name, fix);
    }
    if let Some(route) = route.as_mut().filter(|_| key == "$disconnect") {
        drop_key_of_disconnect(reader, &section, route);
    }
    reader.finish(section);
    route
}

fn drop_key_of_disconnect(reader: &mut Reader<'_>, section: &Section<'_>, route: &mut Route) {
    if route.idempotency_key.take().is_some() {
        let path = section.dotted("idempotency_key");
        reader.warn(format!(
            "{path} has no effect: what $disconnect publishes is published once for each connection"
        ));
    }
}

/// Says what a call cannot have: somebody to answer where there is nobody, and two answers.
fn unanswered(reader: &mut Reader<'_>, section: &Section<'_>, two_way: bool, reply: bool) {
    if two_way {
        let fix = "nobody can be answered on $connect and $disconnect; remove it";
        reader.fault_in(section, "two_way", fix);
    }
    if reply {
        let fix = "the back end answers; write two_way = true for the sender to be sent that, and remove reply";
        reader.fault_in(section, "reply", fix);
    }
}

/// Returns the expressions of a route that never give what they are for, and what to do.
fn in_vain(route: &Route) -> Vec<(&'static str, String)> {
    let (group, data) = match &route.integration {
        Integration::Mock | Integration::Close | Integration::Call { .. } => (None, None),
        Integration::Broadcast { data } => (None, Some(data)),
        Integration::SendGroup { group, data } => (Some(group), Some(data)),
        Integration::Join { group } | Integration::Leave { group } => (Some(group), None),
    };
    let id = route.idempotency_key.as_ref();
    let all = [
        ("group", group),
        ("data", data),
        ("idempotency_key", id),
        ("reply", route.reply.as_ref()),
    ];
    let mut found = Vec::new();
    for (name, expression) in all {
        let Some(expression) = expression else { continue };
        let problem = match &*route.key {
            "$connect" | "$disconnect" if expression.takes_body() => {
                Some("there is no message here; take \"${context.connectionId}\" and the like")
            }
            "$text" if expression.takes_from_body() => {
                Some("a message here is not JSON; take \"$request.body\"")
            }
            "$binary" if expression.takes_from_body() => {
                Some("a message here is not text; take \"$request.body\"")
            }
            _ => None,
        };
        let problem =
            problem.map(str::to_owned).or_else(|| constant_problem(name, expression.constant()?));
        found.extend(problem.map(|problem| (name, problem)));
    }
    found
}

/// Returns what is wrong with a text that is the same for all messages.
fn constant_problem(name: &str, text: &str) -> Option<String> {
    match name {
        "group" if !is_name(text) => {
            Some(format!("{text:?} is not a group's name: 1 to 128 bytes without control characters"))
        }
        "idempotency_key" => Some(
            "it names every message the same, so only the first would be sent; take it from the message, such as \
             \"$request.body.id\""
                .to_owned(),
        ),
        _ => None,
    }
}

/// Takes what a call of a back end needs.
fn call<'d>(
    reader: &mut Reader<'d>,
    known: Known<'_>,
    name: &str,
    section: &mut Section<'d>,
) -> Option<Integration> {
    let (row, table, names): (_, _, Vec<&str>) = match name {
        "http" => {
            (&route::target, "targets", known.targets.iter().map(|it| it.name.as_str()).collect())
        }
        "lambda" => {
            (&route::lambda, "lambdas", known.lambdas.iter().map(|it| it.name.as_str()).collect())
        }
        "stream" => {
            (&route::stream, "streams", known.streams.iter().map(|it| it.name.as_str()).collect())
        }
        _ => (
            &route::function,
            "functions",
            known.functions.iter().map(|it| it.name.as_str()).collect(),
        ),
    };
    let (two_way, ordering) = match name {
        // Nothing is answered, and what is appended is in order.
        "stream" => (false, Some(Ordering::Connection)),
        _ => (
            reader.take_from(section, &route::two_way),
            reader.take_from(section, &route::ordering),
        ),
    };
    let called = reader.take_from(section, row);
    let fix = match &called {
        Some(called) if names.contains(&called.as_str()) => None,
        Some(called) => Some(match nearest(called, &names) {
            Some(near) => format!("there is no [{table}.{called}]; did you mean {near:?}?"),
            None => format!("there is no [{table}.{called}]; write that table"),
        }),
        None => Some(format!("missing; it names one of [{table}]")),
    };
    if let Some(fix) = fix {
        reader.fault_in(section, row.name, fix);
        return None;
    }
    let called = called?;
    let format = known.targets.iter().find(|target| name == "http" && target.name == called);
    let is_ordered = match ordering {
        Some(ordering) => ordering == Ordering::Connection,
        None => format.is_some_and(|target| target.format != Format::LambdaProxy),
    };
    let target = TargetName(format!("{table}.{called}").into());
    Some(Integration::Call { target, two_way, is_ordered })
}

fn integration<'d>(
    reader: &mut Reader<'d>,
    name: &str,
    section: &mut Section<'d>,
) -> Option<Integration> {
    let mut required = |row: &'static Row<Option<Expression>>| {
        let before = reader.fault_count();
        let found = reader.take_from(section, row);
        if found.is_none() && reader.fault_count() == before {
            let message = format!("missing; for instance {0} = \"$request.body.{0}\"", row.name);
            reader.fault_in(section, row.name, message);
        }
        found
    };
    Some(match name {
        "mock" | "reply" => Integration::Mock,
        "close" => Integration::Close,
        "broadcast" => Integration::Broadcast { data: required(&route::data)? },
        "join" => Integration::Join { group: required(&route::group)? },
        "leave" => Integration::Leave { group: required(&route::group)? },
        "send_group" => {
            let (group, data) = (required(&route::group), required(&route::data));
            Integration::SendGroup { group: group?, data: data? }
        }
        other => {
            let message = format!("unknown integration {other:?}; it is one of {INTEGRATIONS}");
            reader.fault_in(section, "integration", message);
            return None;
        }
    })
}
