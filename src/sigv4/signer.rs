//! Signs requests as the SDKs do: every header that is there, and the whole body.

use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{AUTHORIZATION, InvalidHeaderValue};
use http::{HeaderMap, HeaderValue, Method};
use sha2::{Digest, Sha256};

use super::canonical::{self, AMZ_DATE, SECURITY_TOKEN, Tokens};
use super::request::SignedRequest;
use super::scope::{ALGORITHM, TERMINATOR, signature, string_to_sign};

/// Who signs, and for which service. Without `Debug` on purpose: it holds secrets.
#[derive(Clone, Copy)]
pub(crate) struct Signer<'a> {
    pub(crate) key_id: &'a str,
    pub(crate) secret: &'a str,
    /// Of credentials for a while.
    pub(crate) session_token: Option<&'a str>,
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
}

/// A request that is to be signed; its headers have to have `Host`.
#[derive(Clone, Copy)]
pub(crate) struct Unsigned<'a> {
    pub(crate) method: &'a Method,
    /// The path, percent-encoded as it is sent.
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) body: &'a [u8],
}

impl Signer<'_> {
    /// Adds the date, the session token and the signature to the headers.
    ///
    /// # Errors
    /// The key's id or the token has bytes that no header can have.
    pub(crate) fn sign(
        &self,
        request: Unsigned<'_>,
        headers: &mut HeaderMap,
        now: SystemTime,
    ) -> Result<(), InvalidHeaderValue> {
        let signed_at = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let signed_at = i64::try_from(signed_at).unwrap_or(i64::MAX);
        let time = canonical::iso_time(signed_at);
        headers.insert(AMZ_DATE, HeaderValue::from_str(&time)?);
        if let Some(token) = self.session_token {
            headers.insert(SECURITY_TOKEN, secret(token)?);
        }
        let mut names: Vec<_> = headers.keys().map(|name| name.as_str().to_owned()).collect();
        names.sort_unstable();
        let day = time.split('T').next().unwrap_or_default();
        let scope = [day, self.region, self.service, TERMINATOR];
        let Unsigned { method, path, query, body } = request;
        let body_hash = hex::encode(Sha256::digest(body));
        let request = SignedRequest { method, path, query, headers, body };
        let canonical = canonical::request(&request, &names, &body_hash).bytes(Tokens::Kept);
        let signature =
            signature(self.secret, scope, &string_to_sign(signed_at, scope, &canonical));
        let (key_id, scope, names) = (self.key_id, scope.join("/"), names.join(";"));
        let value = format!(
            "{ALGORITHM} Credential={key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
        );
        headers.insert(AUTHORIZATION, secret(&value)?);
        Ok(())
    }
}

/// Makes a value that no log shows.
fn secret(text: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(text)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderName;

    use super::*;

    type Given = &'static [(&'static str, &'static str)];
    type Token = Option<&'static str>;

    /// Requests of the AWS Signature Version 4 test suite (aws-c-auth): method, target, headers
    /// besides the date, body, session token, and the signature.
    const PUBLISHED: [(&str, &str, Given, &str, Token, &str); 4] = [
        (
            "POST",
            "/",
            &[
                ("content-type", "application/x-www-form-urlencoded"),
                ("content-length", "13"),
                (
                    "x-amz-content-sha256",
                    "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e",
                ),
            ],
            "Param1=value1",
            None,
            "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b",
        ),
        (
            "POST",
            "/",
            &[],
            "",
            Some(
                "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==",
            ),
            "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
        ),
        (
            "GET",
            "/",
            &[("my-header1", " value1"), ("my-header2", " \"a   b   c\"")],
            "",
            None,
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        ),
        (
            "GET",
            "/?Param2=value2&Param1=value1",
            &[],
            "",
            None,
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
    ];

    /// Calls of functions that botocore 1.44.5 has signed: host, path, token, region, body, and
    /// what it has put into `Authorization`.
    const BOTOCORE: [(&str, &str, Token, &str, &str, &str); 3] = [
        (
            "lambda.eu-west-1.amazonaws.com",
            "/2015-03-31/functions/chat/invocations",
            None,
            "eu-west-1",
            "{}",
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-west-1/lambda/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-invocation-type, Signature=da4d76448fdee462ec2375fd089cb48b56a8fec7eba15a994220fa3325709f50",
        ),
        (
            "lambda.eu-west-1.amazonaws.com",
            "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aeu-west-1%3A123456789012%3Afunction%3Achat%3Aprod/invocations",
            Some(TOKEN),
            "eu-west-1",
            "{\"a\":\"€\"}",
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-west-1/lambda/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-invocation-type;x-amz-security-token, Signature=3efa24204639b62f5312f6bee6cca657702e6ead597f913d4860b35bc8d4fb35",
        ),
        (
            "127.0.0.1:9001",
            "/base/2015-03-31/functions/chat%3A%24LATEST/invocations",
            Some(TOKEN),
            "us-east-1",
            "",
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/us-east-1/lambda/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-invocation-type;x-amz-security-token, Signature=0d2571d2a5b19b720226dd6a96d0fc24de2b7952ebc1c860cba148e0b4d5a661",
        ),
    ];

    const TOKEN: &str = "FwoGZXIvYXdz//token+part=";

    fn at(time: &str) -> SystemTime {
        let seconds = canonical::parse_iso_time(time).expect("a time");
        UNIX_EPOCH + Duration::from_secs(seconds.try_into().expect("after 1970"))
    }

    fn headers(given: &[(&'static str, &str)]) -> HeaderMap {
        let header = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), value.parse().expect("a value"))
        };
        given.iter().map(header).collect()
    }

    fn authorization(headers: &HeaderMap) -> &str {
        headers[AUTHORIZATION].to_str().expect("ASCII")
    }

    #[test]
    fn published_requests_have_their_published_signatures() {
        for (method, target, given, body, session_token, signature) in PUBLISHED {
            let (path, query) =
                target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
            let signer = Signer {
                key_id: "AKIDEXAMPLE",
                secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
                session_token,
                region: "us-east-1",
                service: "service",
            };
            let method = method.parse().expect("a method");
            let mut headers = headers(given);
            headers.insert("host", "example.amazonaws.com".parse().expect("a value"));
            let request = Unsigned { method: &method, path, query, body: body.as_bytes() };
            signer.sign(request, &mut headers, at("20150830T123600Z")).expect("a signature");
            let signed = authorization(&headers);
            assert!(signed.ends_with(&format!("Signature={signature}")), "{target}: {signed}");
        }
    }

    #[test]
    fn calls_of_functions_are_signed_as_botocore_does() {
        for (host, path, session_token, region, body, expected) in BOTOCORE {
            let signer = Signer {
                key_id: "AKIDEXAMPLE",
                secret: "fake/secret+for0Tests9only",
                session_token,
                region,
                service: "lambda",
            };
            let mut headers = headers(&[
                ("host", host),
                ("content-type", "application/json"),
                ("x-amz-invocation-type", "RequestResponse"),
            ]);
            let (method, body) = (&Method::POST, body.as_bytes());
            let request = Unsigned { method, path, query: None, body };
            signer.sign(request, &mut headers, at("20261122T200422Z")).expect("a signature");
            assert_eq!(authorization(&headers), expected, "{path}");
            let shown = format!("{headers:?}");
            assert!(!shown.contains("Signature=") && !shown.contains(TOKEN), "{shown}");
        }
    }

    #[test]
    fn what_no_header_can_have_is_refused() {
        let signer = Signer {
            key_id: "A\nB",
            secret: "s",
            session_token: None,
            region: "r",
            service: "lambda",
        };
        let (method, mut headers) = (&Method::POST, headers(&[("host", "a")]));
        let request = Unsigned { method, path: "/", query: None, body: b"" };
        assert!(signer.sign(request, &mut headers, SystemTime::now()).is_err());
    }
}
