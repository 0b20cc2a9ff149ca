//! URLs of back ends, formats of lines, and tables whose values are texts.

use std::collections::BTreeMap;

use http::Uri;
use serde_json::{Value, json};

use super::Setting;
use crate::config::row::{Kind, Readable};
use crate::config::written::Written;
use crate::ops::access::format::{Format, LONGEST};

/// A table of names and values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Texts<T>(pub(in crate::config) BTreeMap<String, T>);

impl<T> Default for Texts<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Setting> Kind for Texts<T> {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        json!({ "type": "object", "additionalProperties": T::schema(None) })
    }
}

impl<T: Setting> Readable for Texts<T> {
    fn take(written: Written<'_>, problems: &mut Vec<String>) -> Option<Self> {
        let Some(entries) = written.named_texts() else {
            problems.push(format!("expected a table whose values are each {}", T::EXPECTED));
            return None;
        };
        let mut values = BTreeMap::new();
        for (name, text) in entries {
            match T::read(&text) {
                Some(value) => drop(values.insert(name, value)),
                None => problems.push(format!("{name}: {}", T::problem(&text))),
            }
        }
        Some(Self(values))
    }
}

/// An absolute URL of HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Url(pub(in crate::config) Uri);

impl Kind for Url {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        json!({ "type": "string", "pattern": "^https?://[^@#]+$" })
    }
}

impl Setting for Url {
    const EXPECTED: &'static str =
        "a URL without user or fragment, such as \"http://127.0.0.1:9000/events\"";

    fn read(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority()?.as_str();
        let is_plain = !authority.contains('@') && !uri.host()?.is_empty() && !text.contains('#');
        (is_http && is_plain).then_some(Self(uri))
    }
}

/// What a line of the access log is put together from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct AccessFormat(pub(in crate::config) Format);

impl Kind for AccessFormat {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        json!({ "type": "string", "minLength": 1, "maxLength": LONGEST })
    }
}

impl Setting for AccessFormat {
    const EXPECTED: &'static str = "one line with variables such as $context.requestId";

    fn read(text: &str) -> Option<Self> {
        Format::parse(text).ok().map(Self)
    }

    fn problem(text: &str) -> String {
        Format::parse(text).err().unwrap_or_default()
    }
}
