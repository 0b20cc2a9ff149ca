//! Presigned URLs: the signature and all that belongs to it stand in the query ("Authenticating
//! requests: using query parameters" in the reference of Amazon S3; so do botocore's
//! `SigV4QueryAuth` and `presign` of `@smithy/signature-v4`).
//!
//! Such a URL is good for as long as it says, a week at most, and for whoever has it. Its body is
//! the one that was signed; or any, where the signer signed `UNSIGNED-PAYLOAD` in its place.

use std::borrow::Cow;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::authorization::Authorization;
use super::error::{SignatureError, incomplete, malformed_date};
use crate::sigv4::ALGORITHM;
use crate::sigv4::canonical::{self, SIGNATURE, parse_iso_time};

/// Stands for the hash of a body that the signer left open.
pub(super) const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// Longest time that such a URL is good for, in seconds.
const EXPIRES_MAX: u64 = 7 * 24 * 60 * 60;

/// The parameters besides the signature; all are needed.
const NEEDED: [&str; 5] =
    ["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders"];

/// A request's signature and the time it is good for.
pub(super) struct Presigned<'a> {
    pub(super) authorization: Authorization<'a>,
    /// In seconds since 1970.
    pub(super) signed_at: i64,
    pub(super) expires: Duration,
}

impl<'a> Presigned<'a> {
    /// Reads a query; `None` if it has no signature.
    pub(super) fn from_query(query: &'a str) -> Result<Option<Self>, SignatureError> {
        let Some(signature) = parameter(query, SIGNATURE)? else { return Ok(None) };
        let [algorithm, credential, date, expires, signed_headers] =
            NEEDED.map(|name| parameter(query, name));
        let (Some(algorithm), Some(credential), Some(date), Some(expires), Some(signed_headers)) =
            (algorithm?, credential?, date?, expires?, signed_headers?)
        else {
            let names = NEEDED.join(", ");
            let message =
                format!("AWS query-string parameters must include {names} and {SIGNATURE}.");
            return Err(SignatureError::IncompleteSignature(message.into()));
        };
        if algorithm != ALGORITHM {
            return Err(incomplete("Unsupported AWS 'algorithm' (only AWS4-HMAC-SHA256 for now)."));
        }
        let expires = expires.parse().ok().filter(|seconds| (1..=EXPIRES_MAX).contains(seconds));
        let expires =
            expires.ok_or_else(|| incomplete("X-Amz-Expires must be from 1 to 604800 seconds."))?;
        let signed_at = parse_iso_time(&date).ok_or_else(malformed_date)?;
        let signed_headers = canonical::names(&signed_headers);
        let authorization = Authorization { credential, signed_headers, signature };
        Ok(Some(Self { authorization, signed_at, expires: Duration::from_secs(expires) }))
    }
}

/// Returns the value of a parameter, which may be there once.
fn parameter<'a>(query: &'a str, name: &str) -> Result<Option<Cow<'a, str>>, SignatureError> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(own, _)| *own == name).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (value, None) => value
            .map(|value| percent_decode_str(value).decode_utf8())
            .transpose()
            .map_err(|_| incomplete("AWS query-string parameters must be UTF-8.")),
        _ => Err(incomplete("AWS query-string parameters must be given only once.")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use http::header::{AUTHORIZATION, HOST};
    use http::{HeaderMap, HeaderValue, Method};

    use super::super::Verifier;
    use super::*;
    use crate::config::{AccessKey, Secret};
    use crate::sigv4::SignedRequest;

    /// Method, path and query, body: signed at [`SIGNED_AT`] by botocore, the last by
    /// `@smithy/signature-v4` 5.
    const PRESIGNED: [(&str, &str, &str); 5] = [
        (
            "GET",
            "/beta/@connections/L0SM9cOFvHcCIhw%3D?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20261122%2Feu-west-1%2Fexecute-api%2Faws4_request&X-Amz-Date=20261122T200422Z&X-Amz-Expires=3600&X-Amz-SignedHeaders=host&X-Amz-Signature=b601c04fb5f762dd130a85f2c37c1b561ed8510acea241d3cdf4118e2398085a",
            "",
        ),
        (
            "DELETE",
            "/beta/@connections/L0SM9cOFvHcCIhw%3D?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20261122%2Feu-west-1%2Fexecute-api%2Faws4_request&X-Amz-Date=20261122T200422Z&X-Amz-Expires=604800&X-Amz-SignedHeaders=host&X-Amz-Security-Token=FwoGZXIvYXdz%2F%2Ftoken%2Bpart%3D&X-Amz-Signature=201bd5a2c0ad7b17647d7904148b6c36c051bfd347053abff5cbd3e5bef90769",
            "",
        ),
        (
            "GET",
            "/beta/@connections?limit=2&cursor=a%20b&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20261122%2Feu-west-1%2Fexecute-api%2Faws4_request&X-Amz-Date=20261122T200422Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=5794ee542262c810685ea7097e14508834ed297d825a928dccf05ea3c783131d",
            "",
        ),
        (
            "POST",
            "/beta/@broadcast?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20261122%2Feu-west-1%2Fexecute-api%2Faws4_request&X-Amz-Date=20261122T200422Z&X-Amz-Expires=300&X-Amz-SignedHeaders=host&X-Amz-Signature=a409ea6abcbc46b177be820823fda8ae43cbaae220d5c64a3fb958bed64859d5",
            "UNSIGNED-PAYLOAD was signed, so this may be any text",
        ),
        (
            "POST",
            "/beta/@connections/L0SM9cOFvHcCIhw%3D?x-amz-meta=a%20b&X-Amz-Security-Token=FwoGZXIvYXdz%2F%2Ftoken%2Bpart%3D&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20261122%2Feu-west-1%2Fexecute-api%2Faws4_request&X-Amz-Date=20261122T200422Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host&X-Amz-Signature=ace3d6b9d0ae09e63ff6be48dd202fcc6ae37f1124b8839dd0d15efb4bb55011",
            "hello",
        ),
    ];

    const SIGNED_AT: &str = "20261122T200422Z";

    fn after(seconds: i64) -> SystemTime {
        let at = parse_iso_time(SIGNED_AT).expect("a time") + seconds;
        UNIX_EPOCH + Duration::from_secs(at.try_into().expect("after 1970"))
    }

    /// Verifies a request, `seconds` after it was signed; returns the error's type and message.
    fn verify(
        method: &str,
        target: &str,
        body: &str,
        seconds: i64,
    ) -> Result<(), (&'static str, String)> {
        let key = AccessKey {
            id: "AKIDEXAMPLE".to_owned(),
            secret: Secret::new("fake/secret+for0Tests9only"),
        };
        let verifier = Verifier::new(vec![key], Duration::from_secs(300));
        let (path, query) = target.split_once('?').expect("a query");
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("127.0.0.1:8080"));
        let method: Method = method.parse().expect("a method");
        let request = SignedRequest {
            method: &method,
            path,
            query: Some(query),
            headers: &headers,
            body: body.as_bytes(),
        };
        verifier
            .verify(&request, after(seconds))
            .map(drop)
            .map_err(|error| (error.error_type(), error.to_string()))
    }

    #[test]
    fn every_presigner_is_accepted() {
        for (method, target, body) in PRESIGNED {
            assert_eq!(verify(method, target, body, 0), Ok(()), "{method} {target}");
        }
    }

    #[test]
    fn one_changed_part_is_refused() {
        for (method, target, body) in PRESIGNED {
            for (part, other) in [
                ("/beta", "/prod"),
                ("eu-west-1", "eu-west-2"),
                ("Expires=", "Expires=1"),
                ("20261122T200422Z", "20261122T200421Z"),
                ("&X-Amz-Signature", "&x=&X-Amz-Signature"),
                ("SignedHeaders=host", "SignedHeaders=host%3Bhost2"),
                ("X-Amz-Signature=", "X-Amz-Signature=0"),
            ] {
                let refused =
                    verify(method, &target.replacen(part, other, 1), body, 0).expect_err(other);
                let is_too_long =
                    other == "Expires=1" && refused.0 == "IncompleteSignatureException";
                assert!(
                    refused.0 == "InvalidSignatureException" || is_too_long,
                    "{other}: {refused:?}"
                );
            }
            assert!(verify("PUT", target, body, 0).is_err());
            let is_open = body.starts_with(UNSIGNED_PAYLOAD);
            assert_eq!(verify(method, target, &format!("{body}!"), 0).is_ok(), is_open, "{target}");
        }
    }

    #[test]
    fn it_is_good_for_as_long_as_it_says() {
        for ((method, target, body), life) in
            PRESIGNED.into_iter().zip([3_600, 604_800, 60, 300, 900])
        {
            assert_eq!(verify(method, target, body, life), Ok(()));
            assert_eq!(verify(method, target, body, -300), Ok(()));
            let (error_type, message) =
                verify(method, target, body, life + 1).expect_err("too late");
            assert_eq!(error_type, "InvalidSignatureException");
            assert!(message.starts_with("Signature expired: "), "{message}");
            assert!(verify(method, target, body, -301).is_err(), "too early");
        }
    }

    #[test]
    fn what_is_wrong_with_the_parameters_is_said() {
        let (method, target, body) = PRESIGNED[0];
        for (part, other, message) in [
            (
                "X-Amz-Date=",
                "X-Amz-Other=",
                "must include X-Amz-Algorithm, X-Amz-Credential, X-Amz-Date",
            ),
            ("X-Amz-Expires=3600", "X-Amz-Expires=604801", "from 1 to 604800 seconds"),
            ("X-Amz-Expires=3600", "X-Amz-Expires=0", "from 1 to 604800 seconds"),
            ("X-Amz-Expires=3600", "X-Amz-Expires=-1", "from 1 to 604800 seconds"),
            (
                "X-Amz-Expires=3600",
                "X-Amz-Expires=99999999999999999999",
                "from 1 to 604800 seconds",
            ),
            ("HMAC-SHA256", "ECDSA-P256-SHA256", "only AWS4-HMAC-SHA256"),
            ("20261122T200422Z", "yesterday", "ISO-8601"),
            ("=host", "=%ff", "UTF-8"),
            ("&X-Amz-Expires", "&X-Amz-Expires=1&X-Amz-Expires", "only once"),
            ("&X-Amz-Expires", "&X-Amz-Signature=1&X-Amz-Expires", "only once"),
        ] {
            let refused =
                verify(method, &target.replacen(part, other, 1), body, 0).expect_err(other);
            assert_eq!(refused.0, "IncompleteSignatureException", "{other}: {refused:?}");
            assert!(refused.1.contains(message), "{other}: {refused:?}");
        }
        let unbound =
            verify(method, &target.replacen("=host", "=x", 1), body, 0).expect_err("no host");
        assert!(unbound.1.contains("'Host'"), "{unbound:?}");
        let unsigned = verify(method, &target.replacen("X-Amz-Signature", "Signature", 1), body, 0);
        assert_eq!(unsigned.expect_err("unsigned").0, "MissingAuthenticationTokenException");
    }

    #[test]
    fn no_message_shows_a_session_token() {
        let (method, target, body) = PRESIGNED[1];
        let (_, message) =
            verify(method, &target.replacen("beta", "prod", 1), body, 0).expect_err("refused");
        assert!(
            message.contains("X-Amz-Security-Token=MASKED") && !message.contains("FwoGZX"),
            "{message}"
        );
        assert!(!message.contains("X-Amz-Signature="), "{message}");
    }

    #[test]
    fn a_header_comes_before_the_query() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Basic YTpi"));
        let (_, query) = PRESIGNED[0].1.split_once('?').expect("a query");
        let request = SignedRequest {
            method: &Method::GET,
            path: "/",
            query: Some(query),
            headers: &headers,
            body: b"",
        };
        let error = Verifier::new(Vec::new(), Duration::ZERO)
            .verify(&request, after(0))
            .expect_err("refused");
        assert_eq!(error.error_type(), "IncompleteSignatureException");
    }
}
