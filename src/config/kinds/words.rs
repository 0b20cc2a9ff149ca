//! Words of which one is chosen, and names.

use serde_json::{Value, json};

use super::Setting;
use crate::config::row::Kind;
use crate::config::settings::{Format, LambdaAuth, ManagementAuth, OnOutage, Runtime};
use crate::model::groups::{Pattern, Replay};
use crate::ops::log::LogFormat;
use crate::routing::route::Ordering;

/// Longest pattern, in bytes: that of a group's name.
const PATTERN_MAX: usize = 128;

/// What a schema says of a group's name.
const NAME_PATTERN: &str = r"^[^\u0000-\u001f\u007f-\u009f]{1,128}$";

macro_rules! choices {
    ($($type:ident, $expected:literal: $($word:literal => $variant:ident),*;)*) => {$(
        impl Kind for $type {
            fn schema(_bounds: Option<&(Self, Self)>) -> Value {
                json!({ "enum": [$($word),*] })
            }

            fn json(&self) -> Value {
                let words = [$(($word, Self::$variant)),*];
                words.iter().find(|(_, one)| one == self).map_or(Value::Null, |(word, _)| (*word).into())
            }
        }

        impl Setting for $type {
            const EXPECTED: &'static str = $expected;

            fn read(text: &str) -> Option<Self> {
                match text {
                    $($word => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    )*};
}

choices! {
    LogFormat, "\"text\" or \"json\"": "text" => Text, "json" => Json;
    ManagementAuth, "\"sigv4\" or \"none\"": "sigv4" => SigV4, "none" => None;
    LambdaAuth, "\"sigv4\" or \"none\"": "sigv4" => SigV4, "none" => None;
    Format, "\"lambda-proxy\", \"cloudevents\", \"cloudevents-structured\" or \"raw\"":
        "lambda-proxy" => LambdaProxy, "cloudevents" => CloudEvents,
        "cloudevents-structured" => CloudEventsStructured, "raw" => Raw;
    Ordering, "\"none\" or \"connection\"": "none" => None, "connection" => Connection;
    OnOutage, "\"reject\", \"local\" or \"buffer\"": "reject" => Reject, "local" => Local, "buffer" => Buffer;
    Runtime, "\"node\", \"python\" or \"command\"": "node" => Node, "python" => Python, "command" => Command;
    Replay, "\"on\" or \"off\"": "on" => On, "off" => Off;
}

impl Kind for Pattern {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        json!({ "type": "string", "pattern": NAME_PATTERN })
    }
}

impl Setting for Pattern {
    const EXPECTED: &'static str =
        "a group's name of 1 to 128 bytes, in which * stands for any text";

    fn read(text: &str) -> Option<Self> {
        is_name(text).then(|| Self(text.into()))
    }
}

/// Returns whether a text may name a group.
pub(in crate::config) fn is_name(text: &str) -> bool {
    (1..=PATTERN_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}
