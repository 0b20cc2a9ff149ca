//! What can be turned off.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Setting, number};
use crate::config::row::Kind;

/// Longest duration of those that can be turned off.
const LONGEST: Duration = Duration::from_secs(3_600);

/// A duration that can be turned off.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(in crate::config) enum Switchable {
    At(Duration),
    /// Longer than any.
    Off,
}

/// As it is written.
impl fmt::Debug for Switchable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(duration) => write!(f, "{duration:?}"),
            Self::Off => f.write_str("1h, or \"off\""),
        }
    }
}

impl Kind for Switchable {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        json!({ "anyOf": [Duration::schema(None), { "const": "off" }] })
    }

    fn json(&self) -> Value {
        match self {
            Self::At(duration) => duration.json(),
            Self::Off => "off".into(),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::At(duration) => duration.text(),
            Self::Off => "`1h`, or `off`".to_owned(),
        }
    }
}

impl Setting for Switchable {
    const EXPECTED: &'static str = "\"off\" or a duration of at most 1h, such as \"25s\"";

    fn read(text: &str) -> Option<Self> {
        match text {
            "off" => Some(Self::Off),
            text => Duration::read(text).filter(|duration| *duration <= LONGEST).map(Self::At),
        }
    }
}

impl From<Switchable> for Option<Duration> {
    fn from(switchable: Switchable) -> Self {
        match switchable {
            Switchable::At(duration) => Some(duration),
            Switchable::Off => None,
        }
    }
}

/// A bound that there may or may not be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(in crate::config) enum Bound {
    /// Nobody has said.
    Unset,
    Off,
    At(usize),
}

/// As it is written.
impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset | Self::Off => f.write_str("\"off\""),
            Self::At(bound) => write!(f, "{bound}"),
        }
    }
}

impl Kind for Bound {
    fn schema(bounds: Option<&(Self, Self)>) -> Value {
        let bounds = bounds.map(|(_, most)| (1.into(), most.json()));
        json!({ "anyOf": [number("integer", bounds), { "const": "off" }] })
    }

    fn json(&self) -> Value {
        match self {
            Self::Unset | Self::Off => "off".into(),
            Self::At(bound) => bound.json(),
        }
    }
}

impl Setting for Bound {
    const EXPECTED: &'static str = "\"off\" or a whole number that is not 0";

    fn read(text: &str) -> Option<Self> {
        match text {
            "off" => Some(Self::Off),
            text => usize::read(text).filter(|bound| *bound > 0).map(Self::At),
        }
    }
}

impl Bound {
    /// Returns the bound; `default` if nobody has said.
    pub(in crate::config) fn or(self, default: Option<usize>) -> Option<usize> {
        match self {
            Self::Unset => default,
            Self::Off => None,
            Self::At(bound) => Some(bound),
        }
    }
}
