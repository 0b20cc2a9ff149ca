//! Texts and addresses by their names.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::Setting as _;
use super::domain::is_host;
use crate::config::row::{Kind, Readable};
use crate::config::secret::Secret;
use crate::config::written::Written;

/// What a schema says of the name of a variable.
const VARIABLE: &str = "^[A-Za-z_][A-Za-z0-9_]{0,127}$";

/// What a schema says of the name of a host.
const HOST: &str = "^[a-z0-9_-]{1,63}([.][a-z0-9_-]{1,63})*$";

/// Variables of an environment that the node sets itself; `*` stands for any text.
const RESERVED: [&str; 5] =
    ["AWS_LAMBDA_RUNTIME_API", "_HANDLER", "LAMBDA_*", "AWS_LAMBDA_FUNCTION_*", "GATECAST_*"];

/// Variables of an environment. They may be secrets.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::config) struct Variables(pub(in crate::config) BTreeMap<String, Secret>);

/// Addresses by hosts' names.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::config) struct Addresses(pub(in crate::config) BTreeMap<String, SocketAddr>);

impl Kind for Variables {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        let value = json!({ "type": ["string", "number", "boolean"], "pattern": r"^[^\u0000]*$" });
        json!({ "type": "object", "propertyNames": { "pattern": VARIABLE }, "additionalProperties": value })
    }
}

impl Kind for Addresses {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        let value = SocketAddr::schema(None);
        json!({ "type": "object", "propertyNames": { "pattern": HOST }, "additionalProperties": value })
    }
}

impl Readable for Variables {
    fn take(written: Written<'_>, problems: &mut Vec<String>) -> Option<Self> {
        let Some(texts) = written.named_texts() else {
            problems.push("expected texts by name, such as { TABLE = \"connections\" }".to_owned());
            return None;
        };
        problems.extend(texts.iter().filter_map(|(name, value)| variable_problem(name, value)));
        Some(Self(texts.into_iter().map(|(name, value)| (name, Secret::new(&value))).collect()))
    }
}

impl Readable for Addresses {
    fn take(written: Written<'_>, problems: &mut Vec<String>) -> Option<Self> {
        let Some(texts) = written.named_texts() else {
            let message =
                "expected addresses by name, such as { \"db.example.com\" = \"127.0.0.1:8000\" }";
            problems.push(message.to_owned());
            return None;
        };
        let mut addresses = BTreeMap::new();
        for (name, text) in texts {
            if !is_host(&name) || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
                problems.push(format!(
                    "{name:?} is no name of a host; write it in small letters, without a port"
                ));
            }
            match SocketAddr::read(&text) {
                Some(address) => drop(addresses.insert(name, address)),
                None => problems.push(format!("{name}: {}", SocketAddr::problem(&text))),
            }
        }
        Some(Self(addresses))
    }
}

fn variable_problem(name: &str, value: &str) -> Option<String> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_name = (1..=128).contains(&name.len())
        && name.bytes().all(is_word)
        && !name.starts_with(|first: char| first.is_ascii_digit());
    if !is_name {
        return Some(format!(
            "{name:?} is no name of a variable: 1 to 128 letters, digits and _, no digit first"
        ));
    }
    let reserved = RESERVED.iter().find(|reserved| match reserved.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == **reserved,
    });
    if let Some(reserved) = reserved {
        let all = reserved.strip_suffix('*').map(|start| format!(", as all {start}… are"));
        let all = all.unwrap_or_default();
        return Some(format!("{name} is set by the node{all}; choose another name"));
    }
    value
        .contains('\0')
        .then(|| format!("{name} has a byte 0, which no variable can hold; remove it"))
}
