//! The JSON schema of the configuration file, for editors and pipelines.
//!
//! It says of each setting what it may be. What contradicts another, what the text of a duration or
//! an expression means, and what is in the files that settings name, only `gatecast check` knows.

use serde_json::{Map, Value, json};

use super::row::{Described, Reload};
use super::table::ROWS;

type Object = Map<String, Value>;

/// Returns the schema (draft 2020-12).
pub(crate) fn schema() -> Value {
    let tables = ROWS
        .iter()
        .map(|row| row.table())
        .filter(|table| !table.is_empty() && !table.contains('*'));
    let tables = tables.map(|table| (table.to_owned(), object(table, Object::new()).into()));
    let mut schema = object("", tables.collect());
    schema.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("title".to_owned(), "The configuration of gatecast".into());
    schema.into()
}

/// Returns the schema of a table with its settings, these `properties`, and no others.
fn object(table: &str, mut properties: Object) -> Object {
    let rows = ROWS.iter().filter(|row| row.table() == table);
    let required: Vec<_> =
        rows.clone().filter(|row| row.is_required()).map(|row| row.name()).collect();
    properties.extend(rows.map(|row| (row.name().to_owned(), property(*row).into())));
    fields(json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    }))
}

fn property(row: &dyn Described) -> Object {
    let mut property = fields(row.schema());
    let tables = format!("{}.*", row.key());
    if ROWS.iter().any(|row| row.table() == tables) {
        let is_list = property.get("type").is_some_and(|kind| kind == "array");
        let members = if is_list { "items" } else { "additionalProperties" };
        let mut object = object(&tables, Object::new());
        object.extend(property.remove(members).map(fields).unwrap_or_default());
        property.insert(members.to_owned(), object.into());
    }
    property.insert("description".to_owned(), description(row).into());
    property
}

fn fields(schema: Value) -> Object {
    if let Value::Object(fields) = schema { fields } else { Object::new() }
}

/// Says what a setting is in plain text.
fn description(row: &dyn Described) -> String {
    let range = row
        .bounds_text()
        .map_or(String::new(), |(least, most)| format!(", from {least} to {most}"));
    let default = if row.is_required() {
        String::new()
    } else {
        format!(" Default: {}.", row.default_text())
    };
    let reload = match row.reload() {
        Reload::Restart => "A change needs a restart.",
        Reload::Next => "A reload takes it for what begins afterwards.",
        Reload::Open => "A reload takes it at once, for open connections too.",
    };
    without_links(&format!("{}{range}.{default} {reload}", row.help()))
}

/// Replaces `[text](target)` by the text.
fn without_links(markdown: &str) -> String {
    let mut parts = markdown.split("](");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        if let Some(bracket) = plain.rfind('[') {
            plain.remove(bracket);
        }
        plain.push_str(part.split_once(')').map_or(part, |(_, rest)| rest));
    }
    plain
}
