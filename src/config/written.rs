//! What is written for a setting, in the file or in a variable, before anybody says what it means.

use std::collections::BTreeMap;

use toml::de::{DeString, DeValue};

/// See the [module documentation](self).
pub(super) enum Written<'a> {
    /// In a variable.
    Variable(&'a str),
    /// In the file.
    File(DeValue<'a>),
}

impl Written<'_> {
    /// Returns it as one text; `None` if it is a list or a table.
    pub(super) fn text(self) -> Option<String> {
        match self {
            Self::Variable(text) => Some(text.to_owned()),
            Self::File(value) => scalar(value),
        }
    }

    /// Returns it as a list of texts: an array in the file, separated by commas in a variable.
    /// `None` if it is none.
    pub(super) fn texts(self) -> Option<Vec<String>> {
        match self {
            Self::Variable(text) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Some(items.map(str::to_owned).collect())
            }
            Self::File(DeValue::Array(items)) => {
                items.into_iter().map(|item| scalar(item.into_inner())).collect()
            }
            Self::File(_) => None,
        }
    }

    /// Returns it as texts by their names: a table in the file, a JSON object in a variable. `None`
    /// if it is none.
    pub(super) fn named_texts(self) -> Option<BTreeMap<String, String>> {
        match self {
            Self::Variable(text) => serde_json::from_str(text).ok(),
            Self::File(DeValue::Table(members)) => {
                let named = |name: DeString<'_>, value| Some((name.into_owned(), scalar(value)?));
                members
                    .into_iter()
                    .map(|(name, value)| named(name.into_inner(), value.into_inner()))
                    .collect()
            }
            Self::File(_) => None,
        }
    }
}

fn scalar(value: DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.into_owned()),
        DeValue::Integer(number) => match number.radix() {
            10 => Some(number.as_str().to_owned()),
            radix => {
                i64::from_str_radix(number.as_str(), radix).ok().map(|number| number.to_string())
            }
        },
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(flag) => Some(flag.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}
