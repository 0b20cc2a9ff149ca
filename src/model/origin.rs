//! Origins of web pages (RFC 6454), as browsers send them, and patterns of origins, as operators
//! write them.
//!
//! Both are read by one grammar and kept in one form: lower case, addresses in their canonical
//! form, no default port. So what is equal by RFC 6454 §5 is equal here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest host's name, in bytes (RFC 1035 §2.3.4).
const HOST_MAX: usize = 253;

/// Schemes of pages, and the port that their origins leave out.
const DEFAULT_PORTS: [(&str, u16); 2] = [("http", 80), ("https", 443)];

/// Where a page comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    scheme: Box<str>,
    host: Host,
    /// `None` for the scheme's own.
    port: Option<u16>,
}

/// A host, as it stands in an origin and in the header `Host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// A name, in lower case.
    Name(Box<str>),
    /// An address.
    Address(IpAddr),
}

/// Which origins an operator means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OriginPattern {
    /// `*`: every one.
    Any,
    /// `null`: pages whose browser does not say where they come from, such as those of a file.
    Opaque,
    /// One origin, or those of one scheme that differ in the subdomain or the port.
    Like(Likeness),
}

/// See [`OriginPattern::Like`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Likeness {
    scheme: Box<str>,
    host: HostPattern,
    port: PortPattern,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostPattern {
    Only(Host),
    /// Every name that ends with this one, a dot in between.
    Under(Box<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PortPattern {
    Only(Option<u16>),
    Any,
}

impl Origin {
    /// Reads `SCHEME://HOST[:PORT]`. What a browser sends for a page without an origin, `null`, is
    /// none.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = split_scheme(text)?;
        let (host, port) = split_port(rest);
        let (host, port) =
            (Host::parse(host)?, port.map_or(Some(None), |port| read_port(&scheme, port))?);
        Some(Self { scheme, host, port })
    }

    /// Returns whether the page comes from a server of the same host as its reader: one that
    /// somebody develops, as a rule.
    #[must_use]
    pub(crate) fn is_local(&self) -> bool {
        DEFAULT_PORTS.iter().any(|(scheme, _)| **scheme == *self.scheme) && self.host.is_local()
    }
}

impl Host {
    /// Reads a host; an address of IPv6 stands in brackets.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix('[') {
            let address: Ipv6Addr = rest.strip_suffix(']')?.parse().ok()?;
            return Some(Self::Address(address.into()));
        }
        if is_number(text.rsplit('.').next()?) {
            return text.parse().ok().map(|address: Ipv4Addr| Self::Address(address.into()));
        }
        is_name(text).then(|| Self::Name(text.to_ascii_lowercase().into()))
    }

    /// Reads the header `Host`: a host and perhaps a port.
    #[must_use]
    pub(crate) fn of_authority(text: &str) -> Option<Self> {
        let (host, port) = split_port(text);
        port.is_none_or(|port| port.is_empty() || to_port(port).is_some())
            .then(|| Self::parse(host))?
    }

    /// Returns whether this is the host itself by one of its loopback names (RFC 6761 §6.3) and
    /// addresses.
    #[must_use]
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Name(name) => **name == *"localhost" || name.ends_with(".localhost"),
            Self::Address(address) => address.to_canonical().is_loopback(),
        }
    }
}

impl OriginPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What to write instead.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "*" => return Ok(Self::Any),
            "null" => return Ok(Self::Opaque),
            "" => {
                return Err(
                    "empty; write an origin such as \"https://example.com\", or \"*\" for all"
                        .to_owned(),
                );
            }
            _ => {}
        }
        if !text.is_ascii() {
            return Err(format!("browsers send names in ASCII; write {:?}", in_ascii(text)));
        }
        let Some((scheme, rest)) = split_scheme(text) else {
            return Err(format!(
                "{text:?} has no scheme; write {:?}",
                format!("https://{}", text.trim_start_matches('/'))
            ));
        };
        if let Some(of_pages) = scheme.strip_prefix("ws") {
            return Err(format!(
                "an origin is that of the page; write {:?}",
                format!("http{of_pages}://{rest}")
            ));
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if let Some((authority, _)) = rest.split_once(['/', '?', '#']) {
            return Err(format!(
                "an origin has no path; write {:?}",
                format!("{scheme}://{authority}")
            ));
        }
        if let Some((_, host)) = rest.rsplit_once('@') {
            return Err(format!("an origin has no user; write {:?}", format!("{scheme}://{host}")));
        }
        let (host, port) = split_port(rest);
        let port = match port {
            None => PortPattern::Only(None),
            Some("*") => PortPattern::Any,
            Some(port) => match read_port(&scheme, port) {
                Some(port) => PortPattern::Only(port),
                None => {
                    return Err(format!("{port:?} is not a port; write 1 to 65535, or * for any"));
                }
            },
        };
        let host = HostPattern::parse(host).ok_or_else(|| {
            format!("{host:?} is not a host; write a name, an address, or *.NAME for all subdomains of one, or \"*\" alone for all origins")
        })?;
        Ok(Self::Like(Likeness { scheme, host, port }))
    }

    /// Returns whether the value of a header `Origin` is meant.
    #[must_use]
    pub(crate) fn matches(&self, value: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Opaque => value == "null",
            Self::Like(likeness) => {
                Origin::parse(value).is_some_and(|origin| likeness.matches(&origin))
            }
        }
    }
}

impl Likeness {
    fn matches(&self, origin: &Origin) -> bool {
        let has_port = match self.port {
            PortPattern::Only(port) => port == origin.port,
            PortPattern::Any => true,
        };
        has_port && self.scheme == origin.scheme && self.host.matches(&origin.host)
    }
}

impl HostPattern {
    fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("*.") {
            None => Host::parse(text).map(Self::Only),
            Some(parent) => match Host::parse(parent)? {
                Host::Name(parent) => Some(Self::Under(parent)),
                Host::Address(_) => None,
            },
        }
    }

    fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Only(own), host) => own == host,
            (Self::Under(parent), Host::Name(name)) => name
                .strip_suffix(&**parent)
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            (Self::Under(_), Host::Address(_)) => false,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Like(Likeness { scheme, host, port }) = self else {
            return f.write_str(if *self == Self::Any { "*" } else { "null" });
        };
        match host {
            HostPattern::Only(host) => write!(f, "{scheme}://{host}")?,
            HostPattern::Under(parent) => write!(f, "{scheme}://*.{parent}")?,
        }
        match port {
            PortPattern::Only(None) => Ok(()),
            PortPattern::Only(Some(port)) => write!(f, ":{port}"),
            PortPattern::Any => f.write_str(":*"),
        }
    }
}

/// Splits `SCHEME://REST`; the scheme in lower case (RFC 3986 §3.1).
fn split_scheme(text: &str) -> Option<(Box<str>, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let is_scheme = scheme.starts_with(|char: char| char.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    is_scheme.then(|| (scheme.to_ascii_lowercase().into(), rest))
}

/// Splits `HOST[:PORT]`; colons in brackets are the host's.
fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    }
}

/// Reads a port, `None` within for the scheme's own; `None` if it is not a port.
#[expect(clippy::option_option, reason = "whether it is a port, and whether it says anything")]
fn read_port(scheme: &str, text: &str) -> Option<Option<u16>> {
    if text.is_empty() {
        return Some(None);
    }
    let port = to_port(text)?;
    Some(if DEFAULT_PORTS.contains(&(scheme, port)) { None } else { Some(port) })
}

fn to_port(text: &str) -> Option<u16> {
    // `parse` would take a sign.
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok().filter(|port| *port > 0))?
}

/// Returns whether a browser takes a host for an address by its last label (WHATWG URL, "ends in a
/// number").
fn is_number(label: &str) -> bool {
    !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.len() <= HOST_MAX && text.split('.').all(is_label)
}

/// Writes what is not ASCII in an origin as browsers do (RFC 5891).
fn in_ascii(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").unwrap_or(("https", text));
    let end = rest.find(['/', ':', '?', '#']).unwrap_or(rest.len());
    let (host, rest) = rest.split_at(end);
    let (star, name) = host.strip_prefix("*.").map_or(("", host), |name| ("*.", name));
    let name = idna::domain_to_ascii(name).unwrap_or_else(|_| "example.com".to_owned());
    let port =
        rest.strip_prefix(':').map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let port =
        port.filter(|port| port.is_ascii()).map(|port| format!(":{port}")).unwrap_or_default();
    format!("{scheme}://{star}{name}{port}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, value: &str) -> bool {
        OriginPattern::parse(pattern).expect(pattern).matches(value)
    }

    #[test]
    fn however_an_origin_is_spelled_it_is_the_same() {
        for pattern in [
            "https://example.com",
            "https://example.com/",
            "https://example.com:443",
            "https://example.com:0443/",
            "https://example.com:",
            "HTTPS://Example.COM",
        ] {
            assert!(matches(pattern, "https://example.com"), "{pattern}");
            assert!(matches(pattern, "https://example.com:443"), "{pattern}");
            for other in [
                "http://example.com",
                "https://example.com:8443",
                "https://example.com.evil.example",
                "https://www.example.com",
                "https://example.com/",
                "https://example.com https://evil.example",
                "null",
                "",
            ] {
                assert!(!matches(pattern, other), "{pattern} {other}");
            }
        }
        assert!(matches("http://[0:0:0:0:0:0:0:1]:8080", "http://[::1]:8080"));
        assert!(matches("http://192.0.2.1:80", "http://192.0.2.1"));
        assert!(matches("capacitor://localhost", "capacitor://localhost"));
        assert!(matches("null", "null") && !matches("null", "https://null"));
    }

    #[test]
    fn a_star_stands_for_every_origin_subdomain_or_port() {
        for value in ["https://example.com", "null", "what is this"] {
            assert!(matches("*", value), "{value}");
        }
        for value in
            ["https://a.example.com", "https://a.b.example.com", "https://A.example.com:443"]
        {
            assert!(matches("https://*.example.com", value), "{value}");
        }
        for value in [
            "https://example.com",
            "https://.example.com",
            "https://evilexample.com",
            "https://a.example.com:8443",
            "http://a.example.com",
            "https://a.example.com.evil.example",
            "https://evil.example#.example.com",
            "https://evil.example/.example.com",
            "https://evil.example@a.example.com",
        ] {
            assert!(!matches("https://*.example.com", value), "{value}");
        }
        assert!(matches("http://localhost:*", "http://localhost:5173"));
        assert!(matches("http://localhost:*", "http://localhost"));
        assert!(!matches("http://localhost:*", "http://localhost:99999"));
    }

    #[test]
    fn what_no_browser_sends_is_refused_with_what_to_write() {
        for (text, cure) in [
            ("example.com", "write \"https://example.com\""),
            ("//example.com", "write \"https://example.com\""),
            ("*.example.com", "write \"https://*.example.com\""),
            ("localhost:8080", "write \"https://localhost:8080\""),
            ("https://example.com/app", "write \"https://example.com\""),
            ("https://example.com?a", "write \"https://example.com\""),
            ("https://tom@example.com", "write \"https://example.com\""),
            ("wss://example.com", "write \"https://example.com\""),
            ("ws://localhost:1", "write \"http://localhost:1\""),
            ("https://bücher.example:8443/x", "write \"https://xn--bcher-kva.example:8443\""),
            ("https://*.bücher.example", "write \"https://*.xn--bcher-kva.example\""),
            ("https://example.com:http", "write 1 to 65535, or * for any"),
            ("https://example.com:65536", "write 1 to 65535"),
            ("https://example.com:+443", "write 1 to 65535"),
            ("https://example.com:0", "write 1 to 65535"),
            ("https://", "is not a host"),
            ("https://*", "\"*\" alone for all origins"),
            ("https://a.*.example.com", "*.NAME for all subdomains"),
            ("https://*example.com", "*.NAME for all subdomains"),
            ("https://a..b", "is not a host"),
            ("https://a b", "is not a host"),
            ("https://127.1", "is not a host"),
            ("https://[::1", "is not a host"),
            ("https://::1", "is not a host"),
            ("", "such as \"https://example.com\""),
        ] {
            let message = OriginPattern::parse(text).expect_err(text);
            assert!(message.contains(cure), "{text}: {message}");
        }
    }

    #[test]
    fn only_loopback_is_local() {
        for text in [
            "localhost",
            "LOCALHOST",
            "app.localhost",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(Host::parse(text).expect(text).is_local(), "{text}");
            for authority in [text.to_owned(), format!("{text}:8080"), format!("{text}:")] {
                assert!(Host::of_authority(&authority).expect(text).is_local(), "{authority}");
            }
            assert!(Origin::parse(&format!("http://{text}:5173")).expect(text).is_local());
        }
        for text in [
            "localhost.evil.example",
            "notlocalhost",
            "0.0.0.0",
            "128.0.0.1",
            "10.0.0.1",
            "[::]",
            "[::2]",
        ] {
            assert!(!Host::parse(text).expect(text).is_local(), "{text}");
        }
        for text in [
            "",
            "127.1",
            "[::1%lo]",
            "localhost:x",
            "localhost:80:80",
            "::1",
            "127.0.0.1.",
            "0x7f.1.",
            "a/b",
        ] {
            assert!(Host::of_authority(text).is_none_or(|host| !host.is_local()), "{text}");
        }
        for text in [
            "null",
            "file://",
            "capacitor://localhost",
            "chrome-extension://localhost",
            "localhost:5173",
        ] {
            assert!(Origin::parse(text).is_none_or(|origin| !origin.is_local()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_in_its_final_form_stays(text in "(https?|[a-z]{1,3})://(\\*\\.)?[aA0-9.:\\[\\]-]{1,12}(:[0-9*]{0,5})?/?") {
            if let Ok(pattern) = OriginPattern::parse(&text) {
                prop_assert_eq!(OriginPattern::parse(&pattern.to_string()), Ok(pattern));
            }
        }

        #[test]
        fn an_exact_pattern_matches_itself_however_it_is_spelled(
            host in "[a-z][a-z0-9-]{0,8}(\\.[a-z]{1,5}){0,3}", port in prop::option::of(1_u16..),
        ) {
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            let sent = format!("https://{host}{port}");
            prop_assert!(matches(&sent, &sent));
            let matches_loud = matches(&(sent.to_uppercase() + "/"), &sent);
            prop_assert!(matches_loud);
            let matches_under = matches(&format!("https://*.{host}{port}"), &sent);
            prop_assert!(!matches_under);
        }

        #[test]
        fn nothing_that_comes_is_too_much(text in "\\PC{0,60}") {
            let _parsed = (OriginPattern::parse(&text), Origin::parse(&text), Host::of_authority(&text));
        }
    }
}
