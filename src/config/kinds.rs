//! The kinds of values that settings have, and how each is written.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::HeaderName;
use ipnet::{IpNet, Ipv4Net};
use serde_json::{Value, json};

use super::otel;
use super::row::{Kind, Readable};
use super::secret::Secret;
use super::written::Written;
use crate::model::origin::OriginPattern;
use crate::routing::expression::Expression;

pub(super) mod domain;
pub(super) mod keys;
pub(super) mod lambda;
pub(super) mod maps;
pub(super) mod off;
pub(super) mod texts;
pub(super) mod words;

/// What a schema says of a duration's text.
const DURATION: &str = r"^\s*(0|(\d[\d\s]*(\.\d+)?\s*(nanos|nsec|ns|usec|us|µs|millis|msec|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d|weeks?|wks?|w|months?|M|years?|yrs?|y)\s*)+)$";

/// A value that can be written as one text, in the file or in a variable.
pub(super) trait Setting: Kind {
    /// What is expected, for the fault's text: `a duration such as "25s"`.
    const EXPECTED: &'static str;

    /// Whether a fault must not repeat the value.
    const SECRET: bool = false;

    /// Reads the value.
    fn read(text: &str) -> Option<Self>;

    /// Returns what is wrong with a text that cannot be read.
    fn problem(text: &str) -> String {
        let shown = if Self::SECRET { "this".to_owned() } else { format!("{text:?}") };
        format!("{shown} is not {}", Self::EXPECTED)
    }
}

impl<T: Setting> Readable for T {
    fn take(written: Written<'_>, problems: &mut Vec<String>) -> Option<Self> {
        let Some(text) = written.text() else {
            problems.push(format!("expected {}", T::EXPECTED));
            return None;
        };
        let value = T::read(&text);
        if value.is_none() {
            problems.push(T::problem(&text));
        }
        value
    }
}

/// A setting that may be missing.
impl<T: Setting> Kind for Option<T> {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        T::schema(None)
    }

    fn json(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::json)
    }
}

impl<T: Setting> Readable for Option<T> {
    fn take(written: Written<'_>, problems: &mut Vec<String>) -> Option<Self> {
        T::take(written, problems).map(Some)
    }
}

impl<T: Setting> Kind for Vec<T> {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        json!({ "type": "array", "items": T::schema(None) })
    }
}

impl<T: Setting> Readable for Vec<T> {
    fn take(written: Written<'_>, problems: &mut Vec<String>) -> Option<Self> {
        let Some(texts) = written.texts() else {
            problems.push("expected a list of texts, such as [\"a\", \"b\"]".to_owned());
            return None;
        };
        let mut values = Vec::new();
        for text in &texts {
            match T::read(text) {
                Some(value) => values.push(value),
                None => problems.push(T::problem(text)),
            }
        }
        Some(values)
    }
}

impl Kind for String {
    fn json(&self) -> Value {
        self.as_str().into()
    }
}

impl Setting for String {
    const EXPECTED: &'static str = "a text";

    fn read(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl Kind for Secret {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

impl Setting for Secret {
    const EXPECTED: &'static str = "a text that is not empty";
    const SECRET: bool = true;

    fn read(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self::new(text))
    }
}

impl Kind for bool {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        json!({ "type": "boolean" })
    }

    fn json(&self) -> Value {
        (*self).into()
    }
}

impl Setting for bool {
    const EXPECTED: &'static str = "true or false";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// Says what a number may be.
fn number(kind: &str, bounds: Option<(Value, Value)>) -> Value {
    let (least, most) = bounds.unwrap_or((0.into(), i64::MAX.into()));
    json!({ "type": kind, "minimum": least, "maximum": most })
}

macro_rules! numbers {
    ($($type:ty, $kind:literal, $expected:literal;)*) => {$(
        impl Kind for $type {
            fn schema(bounds: Option<&(Self, Self)>) -> Value {
                number($kind, bounds.map(|(least, most)| (least.json(), most.json())))
            }

            fn json(&self) -> Value {
                (*self).into()
            }
        }

        impl Setting for $type {
            const EXPECTED: &'static str = $expected;

            fn read(text: &str) -> Option<Self> {
                text.replace('_', "").parse().ok()
            }
        }
    )*};
}

numbers! {
    usize, "integer", "a whole number";
    u16, "integer", "a whole number up to 65535";
    f64, "number", "a number, such as 0.01";
}

impl Kind for SocketAddr {
    fn json(&self) -> Value {
        self.to_string().into()
    }
}

impl Setting for SocketAddr {
    const EXPECTED: &'static str =
        "an address with a port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Kind for IpNet {}

impl Setting for IpNet {
    const EXPECTED: &'static str = "an address or a network without bits behind its prefix, such as \"10.0.0.5\" or \"10.0.0.0/8\"";

    fn read(text: &str) -> Option<Self> {
        let host = |_| text.parse().map(|address: IpAddr| Self::from(address.to_canonical()));
        let network: Self = text.parse().or_else(host).ok()?;
        (network == network.trunc()).then_some(canonical(network))
    }
}

/// Addresses of IPv4 in IPv6 are known as what they are (RFC 4291 §2.5.5.2), so their networks have
/// to be.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else { return network };
    let plain = mapped.network().to_ipv4_mapped().zip(mapped.prefix_len().checked_sub(96));
    plain
        .and_then(|(address, length)| Ipv4Net::new(address, length).ok())
        .map_or(network, IpNet::from)
}

impl Kind for OriginPattern {}

impl Setting for OriginPattern {
    const EXPECTED: &'static str = "an origin, such as \"https://example.com\"";

    fn read(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }

    fn problem(text: &str) -> String {
        Self::parse(text).err().unwrap_or_default()
    }
}

impl Kind for HeaderName {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        json!({ "type": "string", "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$" })
    }
}

impl Setting for HeaderName {
    const EXPECTED: &'static str = "the name of a header, such as \"X-User\"";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Kind for Duration {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        json!({ "type": "string", "pattern": DURATION })
    }

    fn json(&self) -> Value {
        const UNITS: [(&str, u128); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
        let milliseconds = self.as_millis();
        let whole =
            UNITS.iter().find(|(_, unit)| milliseconds > 0 && milliseconds.is_multiple_of(*unit));
        whole
            .map_or("0s".to_owned(), |(name, unit)| format!("{}{name}", milliseconds / unit))
            .into()
    }
}

impl Setting for Duration {
    const EXPECTED: &'static str = "a duration, such as \"500ms\", \"25s\", \"10m\" or \"2h\"";

    fn read(text: &str) -> Option<Self> {
        humantime::parse_duration(text).ok()
    }
}

impl Kind for Expression {}

impl Setting for Expression {
    const EXPECTED: &'static str = "an expression, such as \"$request.body.data\"";

    fn read(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }

    fn problem(text: &str) -> String {
        Self::parse(text).err().map(|error| error.to_string()).unwrap_or_default()
    }
}

/// One of the attributes of spans.
#[derive(Clone, PartialEq)]
pub(super) struct Attribute(pub(super) (String, String));

impl Kind for Attribute {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        json!({ "type": "string", "pattern": "^\\s*[^=\\s][^=]*=" })
    }
}

impl Setting for Attribute {
    const EXPECTED: &'static str = "\"deployment.environment.name=production\" and the like";

    fn read(text: &str) -> Option<Self> {
        otel::attribute(text).map(Self)
    }

    fn problem(text: &str) -> String {
        format!("expected texts such as \"deployment.environment.name=production\", not {text:?}")
    }
}
