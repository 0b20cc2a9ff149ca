//! Reads the route table.

use super::groups::is_name;
use super::reader::{Reader, Section};
use super::settings::ExpressionText;
use crate::routing::expression::Expression;
use crate::routing::route::{Integration, PREDEFINED, Route, RouteTable};

const INTEGRATIONS: &str = "mock, broadcast, reply, close, join, leave or send_group";
const SELECTION: &str = "$request.body.action";

/// Takes `route_selection_expression` and `[routes]`.
pub(super) fn read<'d>(reader: &mut Reader<'d>, document: &mut Section<'d>) -> RouteTable {
    let selection = expression(reader, document, "route_selection_expression");
    #[expect(clippy::expect_used, reason = "a constant, parsed in every test")]
    let selection = selection.unwrap_or_else(|| Expression::parse(SELECTION).expect("valid"));
    let section = reader.section(document, "routes");
    let mut routes = Vec::new();
    for (key, at, section) in reader.named_sections(section) {
        if let Some(problem) = key_problem(&key) {
            reader.fault_at(at, &format!("routes.{key}"), &problem);
        } else if !key.starts_with('$') && !selection.may_be(&key) {
            reader
                .warn(format!("routes.{key} is for no message: route_selection_expression never gives this"));
        }
        routes.extend(route(reader, &key, at, section));
    }
    RouteTable::new(selection, routes)
}

fn key_problem(key: &str) -> Option<String> {
    if key.starts_with('$') && !PREDEFINED.contains(&key) {
        return Some(format!("route keys may not start with $, except {}", PREDEFINED.join(", ")));
    }
    (key.is_empty() || key.len() > 128 || key.chars().any(char::is_control))
        .then(|| "route keys have 1 to 128 bytes and no control characters".to_owned())
}

fn route<'d>(reader: &mut Reader<'d>, key: &str, at: usize, mut section: Section<'d>) -> Option<Route> {
    let name = reader.optional::<String>(&mut section, "integration");
    let reply = expression(reader, &mut section, "reply");
    let status = match key {
        "$connect" => reader.within(&mut section, "status", 200, 200..=599),
        _ => 200,
    };
    let Some(name) = name else {
        let path = section.dotted("integration");
        reader.fault_at(at, &path, &format!("missing; set it to {INTEGRATIONS}"));
        return None;
    };
    let without_sender = matches!(key, "$connect" | "$disconnect");
    if without_sender && reply.is_some() {
        let path = section.dotted("reply");
        reader.fault_at(at, &path, "nobody can be answered on $connect and $disconnect; remove it");
    }
    if without_sender && matches!(name.as_str(), "join" | "leave" | "close" | "reply") {
        let path = section.dotted("integration");
        let fix = format!(
            "{name:?} needs an open connection; $connect and $disconnect take mock, broadcast, send_group"
        );
        reader.fault_at(at, &path, &fix);
    }
    if name == "reply" && reply.is_none() {
        let path = section.dotted("reply");
        reader.fault_at(at, &path, "missing; set it to what is answered, such as \"$request.body\"");
    }
    let integration = integration(reader, &name, at, &mut section);
    let idempotency_key = match integration {
        Some(Integration::Broadcast { .. } | Integration::SendGroup { .. }) => {
            expression(reader, &mut section, "idempotency_key")
        }
        _ => None,
    };
    if !(200..300).contains(&status) && !matches!(integration, None | Some(Integration::Mock)) {
        let fix =
            format!("{name:?} is not done, since status refuses every client; take mock, or remove status");
        reader.fault_at(at, &section.dotted("integration"), &fix);
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
        reader.fault_at(at, &section.dotted(name), &fix);
    }
    if key == "$disconnect" && route.as_mut().is_some_and(|route| route.idempotency_key.take().is_some()) {
        let path = section.dotted("idempotency_key");
        reader.warn(format!(
            "{path} has no effect: what $disconnect publishes is published once for each connection"
        ));
    }
    reader.finish(section);
    route
}

/// Returns the expressions of a route that never give what they are for, and what to do.
fn in_vain(route: &Route) -> Vec<(&'static str, String)> {
    let (group, data) = match &route.integration {
        Integration::Mock | Integration::Close => (None, None),
        Integration::Broadcast { data } => (None, Some(data)),
        Integration::SendGroup { group, data } => (Some(group), Some(data)),
        Integration::Join { group } | Integration::Leave { group } => (Some(group), None),
    };
    let id = route.idempotency_key.as_ref();
    let all = [("group", group), ("data", data), ("idempotency_key", id), ("reply", route.reply.as_ref())];
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
        let problem = problem.map(str::to_owned).or_else(|| constant_problem(name, expression.constant()?));
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

fn integration<'d>(
    reader: &mut Reader<'d>,
    name: &str,
    at: usize,
    section: &mut Section<'d>,
) -> Option<Integration> {
    Some(match name {
        "mock" | "reply" => Integration::Mock,
        "close" => Integration::Close,
        "broadcast" => Integration::Broadcast { data: required(reader, section, "data", at)? },
        "join" => Integration::Join { group: required(reader, section, "group", at)? },
        "leave" => Integration::Leave { group: required(reader, section, "group", at)? },
        "send_group" => {
            let group = required(reader, section, "group", at);
            let data = required(reader, section, "data", at);
            Integration::SendGroup { group: group?, data: data? }
        }
        other => {
            let path = section.dotted("integration");
            reader.fault_at(
                at,
                &path,
                &format!("unknown integration {other:?}; it is one of {INTEGRATIONS}"),
            );
            return None;
        }
    })
}

fn required<'d>(
    reader: &mut Reader<'d>,
    section: &mut Section<'d>,
    key: &'static str,
    at: usize,
) -> Option<Expression> {
    let before = reader.fault_count();
    let found = expression(reader, section, key);
    if found.is_none() && reader.fault_count() == before {
        let path = section.dotted(key);
        reader.fault_at(at, &path, &format!("missing; for instance {key} = \"$request.body.{key}\""));
    }
    found
}

fn expression<'d>(
    reader: &mut Reader<'d>,
    section: &mut Section<'d>,
    key: &'static str,
) -> Option<Expression> {
    let place = reader.place(section, key);
    let text = reader.optional::<ExpressionText>(section, key)?;
    match text.parse() {
        Ok(expression) => Some(expression),
        Err(problem) => {
            reader.fault(place, section.dotted(key), problem);
            None
        }
    }
}
