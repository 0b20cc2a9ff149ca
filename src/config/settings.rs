//! The kinds of values that settings have, and how each is written.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::HeaderName;
use ipnet::{IpNet, Ipv4Net};

use super::reader::Setting;
use super::{LogFormat, ManagementAuth, OnOutage, Secret};
use crate::routing::expression::Expression;

impl Setting for String {
    const EXPECTED: &'static str = "a text";

    fn read(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl Setting for Secret {
    const EXPECTED: &'static str = "a text that is not empty";
    const SECRET: bool = true;

    fn read(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self::new(text))
    }
}

impl Setting for bool {
    const EXPECTED: &'static str = "true or false";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Setting for usize {
    const EXPECTED: &'static str = "a whole number";

    fn read(text: &str) -> Option<Self> {
        text.replace('_', "").parse().ok()
    }
}

impl Setting for u16 {
    const EXPECTED: &'static str = "a whole number up to 65535";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Setting for f64 {
    const EXPECTED: &'static str = "a number, such as 0.01";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Setting for SocketAddr {
    const EXPECTED: &'static str = "an address with a port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Setting for IpNet {
    const EXPECTED: &'static str =
        "an address or a network without bits behind its prefix, such as \"10.0.0.5\" or \"10.0.0.0/8\"";

    fn read(text: &str) -> Option<Self> {
        let host = |_| text.parse().map(|address: IpAddr| Self::from(address.to_canonical()));
        let network: Self = text.parse().or_else(host).ok()?;
        (network == network.trunc()).then_some(canonical(network))
    }
}

/// Addresses of IPv4 in IPv6 are known as what they are (RFC 4291 §2.5.5.2), so their networks have to be.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else { return network };
    let plain = mapped.network().to_ipv4_mapped().zip(mapped.prefix_len().checked_sub(96));
    plain.and_then(|(address, length)| Ipv4Net::new(address, length).ok()).map_or(network, IpNet::from)
}

impl Setting for HeaderName {
    const EXPECTED: &'static str = "the name of a header, such as \"X-User\"";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Setting for Duration {
    const EXPECTED: &'static str = "a duration, such as \"500ms\", \"25s\", \"10m\" or \"2h\"";

    fn read(text: &str) -> Option<Self> {
        humantime::parse_duration(text).ok()
    }
}

/// A duration that can be turned off.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(super) enum Switchable {
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

impl Setting for Switchable {
    const EXPECTED: &'static str = "\"off\" or a duration of at most 1h, such as \"25s\"";

    fn read(text: &str) -> Option<Self> {
        match text {
            "off" => Some(Self::Off),
            text => {
                Duration::read(text).filter(|duration| *duration <= Duration::from_secs(3_600)).map(Self::At)
            }
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
pub(super) enum Bound {
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
    pub(super) fn or(self, default: Option<usize>) -> Option<usize> {
        match self {
            Self::Unset => default,
            Self::Off => None,
            Self::At(bound) => Some(bound),
        }
    }
}

impl Setting for LogFormat {
    const EXPECTED: &'static str = "\"text\" or \"json\"";

    fn read(text: &str) -> Option<Self> {
        match text {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

impl Setting for ManagementAuth {
    const EXPECTED: &'static str = "\"sigv4\" or \"none\"";

    fn read(text: &str) -> Option<Self> {
        match text {
            "sigv4" => Some(Self::SigV4),
            "none" => Some(Self::None),
            _ => None,
        }
    }
}

impl Setting for OnOutage {
    const EXPECTED: &'static str = "\"reject\", \"local\" or \"buffer\"";

    fn read(text: &str) -> Option<Self> {
        match text {
            "reject" => Some(Self::Reject),
            "local" => Some(Self::Local),
            "buffer" => Some(Self::Buffer),
            _ => None,
        }
    }
}

/// An expression as typed; its own error says more than "not an expression", so parsing waits.
#[derive(Clone, Debug)]
pub(super) struct ExpressionText(pub(super) String);

impl Setting for ExpressionText {
    const EXPECTED: &'static str = "an expression, such as \"$request.body.data\"";

    fn read(text: &str) -> Option<Self> {
        Some(Self(text.to_owned()))
    }
}

impl ExpressionText {
    pub(super) fn parse(&self) -> Result<Expression, String> {
        Expression::parse(&self.0).map_err(|error| error.to_string())
    }
}
