//! Names under which others reach a port: a host, and a port where it is not 443.

use http::uri::Authority;
use serde_json::{Value, json};

use super::Setting;
use crate::config::row::Kind;

/// Longest name of a host (RFC 1035 §2.3.4).
const HOST_MAX: usize = 253;

/// `host` or `host:port`.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct DomainName(pub(in crate::config) String);

impl Kind for DomainName {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        json!({ "type": "string", "pattern": r"^([A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$" })
    }
}

impl Setting for DomainName {
    const EXPECTED: &'static str =
        "a host or host:port, such as \"gatecast.internal:8443\", without a scheme and a path";

    fn read(text: &str) -> Option<Self> {
        let authority: Authority = text.parse().ok()?;
        let host = authority.host();
        let port = text.strip_prefix(host)?;
        let is_port =
            port.strip_prefix(':').is_some_and(|port| port.parse().is_ok_and(|port: u16| port > 0));
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_address =
            address.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
        ((is_host(host) || is_address) && (port.is_empty() || is_port))
            .then(|| Self(text.to_owned()))
    }
}

/// The same, or an address of plain HTTP or TLS: `http://host:port`.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct Domain(pub(in crate::config) String);

impl Kind for Domain {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        let host = r"([A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?";
        json!({ "type": "string", "pattern": format!("^(https?://)?{host}$") })
    }
}

impl Setting for Domain {
    const EXPECTED: &'static str = "a host or host:port, such as \"gatecast.internal:8443\", or that behind \"http://\", without a path";

    fn read(text: &str) -> Option<Self> {
        let name = ["http://", "https://"].iter().find_map(|scheme| text.strip_prefix(scheme));
        DomainName::read(name.unwrap_or(text)).map(|_| Self(text.to_owned()))
    }
}

/// Returns whether a text is the name of a host, or an address of IPv4.
pub(super) fn is_host(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(is_plain);
    name.len() <= HOST_MAX && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_a_host_with_or_without_a_port() {
        for good in
            ["localhost", "gate_1.svc:8443", "127.0.0.1:1", "[::1]", "[::1]:65535", "a-b.example"]
        {
            assert_eq!(DomainName::read(good), Some(DomainName(good.to_owned())));
        }
        for bad in [
            "",
            "https://gate",
            "gate/beta",
            "gate:",
            "gate:0",
            "gate:65536",
            "a b",
            "me@gate",
            "a..b",
            "[gate]",
            "::1",
        ] {
            assert_eq!(DomainName::read(bad), None, "{bad}");
        }
    }
}
