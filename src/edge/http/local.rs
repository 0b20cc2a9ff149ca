//! What shows that a request comes from this host and is meant for it, where nobody has to prove
//! who they are.
//!
//! A port on loopback is reached by more than the programs of its host: by every page that a
//! browser here shows, also under a name that a stranger points at 127.0.0.1 (DNS rebinding), and
//! by whoever a proxy on this host serves. A page tells its origin, a browser and a proxy tell the
//! host that they were asked for, and most proxies tell that they are there.

use http::header::{FORWARDED, HOST, ORIGIN, VIA};
use http::{HeaderMap, HeaderName, Version};

use crate::edge::admission::single;
use crate::model::origin::{Host, Origin};

const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// How the names of what proxies add begin.
const FORWARDED_BY: &str = "x-forwarded-";

/// What shows the contrary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// The host that was asked for is not this one, or not told.
    Host,
    /// The page is not this host's.
    Origin,
    /// A proxy has passed the request on.
    Proxy,
}

/// Looks at the head of a request.
///
/// # Errors
/// What shows that it is foreign.
pub(crate) fn check(headers: &HeaderMap, version: Version) -> Result<(), Foreign> {
    // HTTP/1.0 is what nginx speaks to its servers by default; programs have not for twenty years.
    let is_passed_on = version < Version::HTTP_11
        || [FORWARDED, VIA, REAL_IP].iter().any(|name| headers.contains_key(name))
        || headers.keys().any(|name| name.as_str().starts_with(FORWARDED_BY));
    if is_passed_on {
        return Err(Foreign::Proxy);
    }
    match single(headers, &HOST) {
        Ok(Some(host)) if Host::of_authority(host).is_some_and(|host| host.is_local()) => {}
        _ => return Err(Foreign::Host),
    }
    match single(headers, &ORIGIN) {
        Ok(None) => Ok(()),
        Ok(Some(origin)) if Origin::parse(origin).is_some_and(|origin| origin.is_local()) => Ok(()),
        _ => Err(Foreign::Origin),
    }
}

impl Foreign {
    /// Says what was seen, for callers and logs.
    pub(crate) fn cause(self) -> &'static str {
        match self {
            Self::Host => "it asks for another host than this one",
            Self::Origin => "it comes from a page of another host",
            Self::Proxy => "it comes through a proxy",
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check_all(lines: &[(&str, &[u8])]) -> Result<(), Foreign> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, HeaderValue::from_bytes(value).expect("a value"));
        }
        check(&headers, Version::HTTP_11)
    }

    #[test]
    fn programs_and_pages_of_this_host_are_served() {
        for host in [
            "localhost",
            "localhost:8080",
            "127.0.0.1:8080",
            "127.3.2.1",
            "[::1]:8080",
            "a.LOCALHOST",
        ] {
            assert_eq!(check_all(&[("host", host.as_bytes())]), Ok(()), "{host}");
        }
        for origin in [
            "http://localhost:5173",
            "https://127.0.0.1",
            "http://[::1]:3000",
            "http://app.localhost",
        ] {
            let lines: [(&str, &[u8]); 2] =
                [("host", b"localhost:8080"), ("origin", origin.as_bytes())];
            assert_eq!(check_all(&lines), Ok(()), "{origin}");
        }
    }

    #[test]
    fn what_shows_to_be_foreign_is_not() {
        for host in [
            &b"evil.example"[..],
            b"0.0.0.0:8080",
            b"10.0.0.1",
            b"",
            b"localhost.evil.example",
            b"\xff",
        ] {
            assert_eq!(check_all(&[("host", host)]), Err(Foreign::Host), "{host:?}");
        }
        assert_eq!(check_all(&[]), Err(Foreign::Host));
        assert_eq!(
            check_all(&[("host", b"localhost"), ("host", b"localhost")]),
            Err(Foreign::Host)
        );
        for origin in [
            &b"http://evil.example"[..],
            b"null",
            b"",
            b"http://localhost.evil.example",
            b"file://",
            b"\xe9",
        ] {
            let lines: [(&str, &[u8]); 2] = [("host", b"localhost"), ("origin", origin)];
            assert_eq!(check_all(&lines), Err(Foreign::Origin), "{origin:?}");
        }
        let twice: [(&str, &[u8]); 3] = [
            ("host", b"localhost"),
            ("origin", b"http://localhost"),
            ("origin", b"http://localhost"),
        ];
        assert_eq!(check_all(&twice), Err(Foreign::Origin));
        for name in [
            "forwarded",
            "via",
            "x-real-ip",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-anything",
        ] {
            let lines: [(&str, &[u8]); 2] = [("host", b"localhost"), (name, b"")];
            assert_eq!(check_all(&lines), Err(Foreign::Proxy), "{name}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("localhost"));
        assert_eq!(check(&headers, Version::HTTP_10), Err(Foreign::Proxy));
    }
}
