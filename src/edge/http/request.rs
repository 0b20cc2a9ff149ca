//! What a request has to be before anything is done for it (RFC 9112 §3, §6; RFC 9110 §7.2,
//! §10.1.1).
//!
//! Both ways in, the HTTP server and the look at a whole handshake, take the same: nothing further
//! in sees a target without a path.

use std::ops::RangeInclusive;

use http::header::{EXPECT, HOST, RETRY_AFTER, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, Version};

use super::answer::error_reply;
use crate::ops::metrics::RequestRefusal;

/// Longest request head, in bytes; a JWT in a query string fits.
pub(super) const MAX_HEAD: usize = 16 << 10;

/// Most header fields of a request.
pub(super) const MAX_HEADERS: usize = 100;

/// Seconds after which a client that found no room should try again; randomised, so clients do not
/// all retry at once.
pub(super) const RETRY_SECONDS: RangeInclusive<u64> = 1..=5;

/// Checks a head. A target in absolute form becomes the path that it names, and its authority the
/// `Host` (RFC 9112 §3.2.2).
///
/// # Errors
/// Why the request is refused.
pub(super) fn normalize(
    uri: &mut Uri,
    version: Version,
    headers: &mut HeaderMap,
) -> Result<(), RequestRefusal> {
    let hosts = headers.get_all(HOST).iter().count();
    let is_good = headers.get(HOST).is_none_or(|host| is_host(host.as_bytes()));
    if hosts > 1 || (hosts == 0 && version == Version::HTTP_11) || !is_good {
        return Err(RequestRefusal::Host);
    }
    match (uri.scheme(), uri.authority()) {
        (None, None) if uri.path().starts_with('/') => {}
        (Some(scheme), Some(authority))
            if (*scheme == Scheme::HTTP || *scheme == Scheme::HTTPS)
                && !authority.host().is_empty()
                && is_host(authority.as_str().as_bytes()) =>
        {
            let host =
                HeaderValue::from_str(authority.as_str()).map_err(|_| RequestRefusal::Target)?;
            let path =
                uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
            if !path.path().starts_with('/') {
                return Err(RequestRefusal::Target);
            }
            headers.insert(HOST, host);
            *uri = path.into();
        }
        _ => return Err(RequestRefusal::Target),
    }
    if headers.get_all(TRANSFER_ENCODING).iter().any(|coding| !is(coding, "chunked")) {
        return Err(RequestRefusal::Coding);
    }
    if headers.get_all(EXPECT).iter().any(|expected| !is(expected, "100-continue")) {
        return Err(RequestRefusal::Expectation);
    }
    Ok(())
}

/// Returns whether a value is a `uri-host [ ":" port ]`, which may be empty (RFC 9110 §7.2).
fn is_host(value: &[u8]) -> bool {
    if value.is_empty() {
        return true;
    }
    let Ok(authority) = Authority::try_from(value) else { return false };
    let rest = authority.as_str().strip_prefix(authority.host());
    // Nobody is named in front of the host, and a port is a number.
    rest.is_some_and(|rest| {
        rest.is_empty()
            || rest
                .strip_prefix(':')
                .is_some_and(|port| port.is_empty() || port.parse::<u16>().is_ok())
    })
}

fn is(value: &HeaderValue, token: &str) -> bool {
    value.as_bytes().trim_ascii().eq_ignore_ascii_case(token.as_bytes())
}

/// The status and what the client is told: what is wrong, and what to do.
pub(super) fn told(refusal: RequestRefusal) -> (StatusCode, &'static str) {
    match refusal {
        RequestRefusal::Target => (
            StatusCode::BAD_REQUEST,
            "The request's target must be a path that starts with / or an http URL with a host; \
             CONNECT and * are not served",
        ),
        RequestRefusal::Host => (
            StatusCode::BAD_REQUEST,
            "An HTTP/1.1 request must have exactly one Host header: host or host:port",
        ),
        RequestRefusal::Coding => (
            StatusCode::NOT_IMPLEMENTED,
            "The only Transfer-Encoding that is understood is chunked",
        ),
        RequestRefusal::Expectation => {
            (StatusCode::EXPECTATION_FAILED, "The only Expect that is understood is 100-continue")
        }
        RequestRefusal::Malformed => (StatusCode::BAD_REQUEST, "This is not a request in HTTP/1.1"),
        RequestRefusal::Plain => {
            (StatusCode::BAD_REQUEST, "This port speaks TLS; use https:// in front of its address")
        }
        RequestRefusal::TooLarge => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "A request's head may have 16 KiB and 100 header fields; send fewer or shorter ones",
        ),
        RequestRefusal::Busy => (
            StatusCode::SERVICE_UNAVAILABLE,
            "As many requests as allowed are under way; try again later",
        ),
    }
}

/// Answers a request that is refused.
pub(super) fn refuse(refusal: RequestRefusal) -> Response<Vec<u8>> {
    let (status, message) = told(refusal);
    let error_type = match status {
        StatusCode::NOT_IMPLEMENTED => "NotImplementedException",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailableException",
        _ => "BadRequestException",
    };
    error_reply(status, error_type, message)
}

/// Answers a request whose turn did not come.
pub(super) fn busy() -> Response<Vec<u8>> {
    let mut answer = refuse(RequestRefusal::Busy);
    answer.headers_mut().insert(RETRY_AFTER, rand::random_range(RETRY_SECONDS).into());
    answer
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The target and the host that are left.
    fn check(
        target: &str,
        version: Version,
        fields: &[(&str, &str)],
    ) -> Result<(String, String), RequestRefusal> {
        let mut uri: Uri = target.parse().expect("something that the HTTP server lets through");
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a name");
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        normalize(&mut uri, version, &mut headers)?;
        let host = headers.get(HOST).map_or("", |host| host.to_str().expect("text"));
        Ok((uri.to_string(), host.to_owned()))
    }

    fn target(target: &str) -> Result<(String, String), RequestRefusal> {
        check(target, Version::HTTP_11, &[("host", "gate:80")])
    }

    #[test]
    fn a_target_is_a_path() {
        for path in ["/", "/beta", "/beta?a=b", "//beta/@connections/x", "/beta/%40x", "/*"] {
            assert_eq!(target(path), Ok((path.to_owned(), "gate:80".to_owned())));
        }
    }

    #[test]
    fn an_absolute_target_names_the_path_and_the_host() {
        for (absolute, path, host) in [
            ("http://other/beta", "/beta", "other"),
            ("HTTP://other:81/beta?a=b", "/beta?a=b", "other:81"),
            ("https://[::1]:8080", "/", "[::1]:8080"),
            ("http://other?a=b", "/?a=b", "other"),
        ] {
            assert_eq!(target(absolute), Ok((path.to_owned(), host.to_owned())), "{absolute}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for other in [
            "*",
            "beta",
            "a:443",
            "@broadcast:80",
            "gate",
            "user@gate",
            "ftp://gate/beta",
            "http://user@gate/beta",
        ] {
            assert_eq!(target(other), Err(RequestRefusal::Target), "{other}");
        }
    }

    #[test]
    fn there_is_one_host_and_it_is_one() {
        let hosts = |version, hosts: &[&str]| {
            let fields: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            check("/beta", version, &fields).map(|_| ())
        };
        for good in
            ["gate", "gate:8080", "gate:", "127.0.0.1:1", "[::1]:8080", "[::1]", "a_b.example", ""]
        {
            assert_eq!(hosts(Version::HTTP_11, &[good]), Ok(()), "{good}");
        }
        for bad in [
            "a b",
            "user@gate",
            "gate:http",
            "gate:65536",
            "http://gate",
            "gate/beta",
            "a, b",
            "[::1",
            "a:1:2",
        ] {
            assert_eq!(hosts(Version::HTTP_11, &[bad]), Err(RequestRefusal::Host), "{bad}");
        }
        assert_eq!(hosts(Version::HTTP_11, &[]), Err(RequestRefusal::Host));
        assert_eq!(hosts(Version::HTTP_10, &[]), Ok(()));
        for version in [Version::HTTP_10, Version::HTTP_11] {
            assert_eq!(hosts(version, &["gate", "gate"]), Err(RequestRefusal::Host));
        }
    }

    #[test]
    fn what_is_not_understood_is_not_guessed() {
        let with = |name, value| {
            check("/beta", Version::HTTP_11, &[("host", "gate"), (name, value)]).map(|_| ())
        };
        assert_eq!(with("transfer-encoding", "Chunked"), Ok(()));
        assert_eq!(with("transfer-encoding", "gzip, chunked"), Err(RequestRefusal::Coding));
        assert_eq!(with("expect", "100-Continue"), Ok(()));
        assert_eq!(with("expect", "a miracle"), Err(RequestRefusal::Expectation));
    }

    proptest! {
        /// Whatever passes has a path, which is what all further in rely on.
        #[test]
        fn what_passes_has_a_path(text in "[a-z*/:@.?#\\[\\]0-9]{1,24}", host in "[ -~]{0,24}") {
            let Ok(mut uri) = text.parse::<Uri>() else { return Ok(()) };
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_str(&host).expect("ASCII"));
            if normalize(&mut uri, Version::HTTP_11, &mut headers).is_ok() {
                prop_assert!(uri.path().starts_with('/') && uri.authority().is_none());
                prop_assert!(uri.path_and_query().is_some());
            }
        }
    }
}
