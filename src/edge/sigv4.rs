//! AWS Signature Version 4, seen from the server: does the caller of `@connections` hold one of our
//! keys?
//!
//! Rule: the signature is computed from the request as it came over the wire, before anybody
//! decodes or rewrites it; whatever is compared with something secret is compared in constant time;
//! no text made here holds a secret or a session token; and no request, however odd, makes this
//! module panic.
//!
//! Source: "Create a signed AWS API request" in the IAM user guide, checked against what botocore,
//! the JavaScript SDK, awscurl and aws4 send (`edge/sigv4/tests.rs` holds the captures).

mod authorization;
mod error;
mod presigned;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use self::authorization::Authorization;
pub(crate) use self::error::SignatureError;
use self::error::{incomplete, malformed_date};
use self::presigned::{Presigned, UNSIGNED_PAYLOAD};
use crate::config::AccessKey;
use crate::sigv4::canonical::{self, Tokens};
use crate::sigv4::{ALGORITHM, SignedRequest, TERMINATOR, signature, string_to_sign};

/// The service every SDK scopes `@connections` calls to.
const SERVICE: &str = "execute-api";
/// Bytes of path, query, header names and values looked at. API Gateway allows 10,240; a session
/// token of some kilobytes and a proxy's additions still fit.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Signed with when the key id is unknown, so that the answer takes as long. It opens nothing:
/// without a key the result is a refusal, whatever the comparison said.
const UNKNOWN_KEY_SECRET: &str = "no key has this id, so this is no secret";

/// Checks signatures against a fixed set of keys.
#[derive(Clone, Debug)]
pub(crate) struct Verifier {
    keys: Arc<[AccessKey]>,
    /// Keys with [`Scope::Connections`].
    limited: Arc<[AccessKey]>,
    max_skew: Duration,
}

/// What a key opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Everything.
    All,
    /// What functions have on Amazon: to post to connections, to look at them, and to end them.
    Connections,
}

/// The `Credential` parameter, taken apart.
struct Credential<'a> {
    key_id: &'a str,
    /// Day, region, service and terminator, as sent.
    scope: [&'a str; 4],
}

impl Verifier {
    /// Returns a verifier that accepts `keys`, and clocks that differ by at most `max_skew` from
    /// ours in either direction (AWS: 5 minutes). Of two keys with one id the first counts.
    pub(crate) fn new(keys: impl Into<Arc<[AccessKey]>>, max_skew: Duration) -> Self {
        Self { keys: keys.into(), limited: Arc::default(), max_skew }
    }

    /// Accepts these keys too, for connections alone.
    pub(crate) fn with_limited(self, limited: Arc<[AccessKey]>) -> Self {
        Self { limited, ..self }
    }

    /// Returns the id of the key that signed `request`, and what it opens. Any region passes, and
    /// so does any session token: it is only covered by the signature. A request overheard can be
    /// sent again until the window closes, as with AWS.
    ///
    /// # Errors
    /// Every [`SignatureError`] means HTTP 403 with that error's `x-amzn-ErrorType`; in AWS's
    /// order: form, time, signed headers, scope, body hash, key id, signature.
    pub(crate) fn verify(
        &self,
        request: &SignedRequest<'_>,
        now: SystemTime,
    ) -> Result<(&str, Scope), SignatureError> {
        request.check_size()?;
        let query = request.query.filter(|_| !request.headers.contains_key(AUTHORIZATION));
        let presigned = query.map(Presigned::from_query).transpose()?.flatten();
        let is_presigned = presigned.is_some();
        let (authorization, signed_at) = match presigned {
            Some(Presigned { authorization, signed_at, expires }) => {
                self.check_time(signed_at, expires, now)?;
                (authorization, signed_at)
            }
            None => {
                let authorization = Authorization::from_headers(request.headers)?;
                let signed_at =
                    canonical::signing_time(request.headers).ok_or_else(malformed_date)?;
                self.check_time(signed_at, self.max_skew, now)?;
                (authorization, signed_at)
            }
        };
        authorization.check_signed_headers(request.headers, is_presigned)?;
        let credential = Credential::parse(&authorization.credential)?;
        credential.check_scope(signed_at)?;
        let body_hash = hex::encode(Sha256::digest(request.body));
        request.check_body_hash(&body_hash, is_presigned)?;

        let key = self.key(credential.key_id);
        let secret = key.map_or(UNKNOWN_KEY_SECRET, |(key, _)| key.secret.expose());
        let sign = |body_hash: &str| {
            let signed = canonical::request(request, &authorization.signed_headers, body_hash);
            let to_sign = string_to_sign(signed_at, credential.scope, &signed.bytes(Tokens::Kept));
            let expected = signature(secret, credential.scope, &to_sign);
            (to_sign, bool::from(expected.as_bytes().ct_eq(authorization.signature.as_bytes())))
        };
        let (to_sign, matches) = sign(&body_hash);
        let matches = matches | (is_presigned && sign(UNSIGNED_PAYLOAD).1);
        match key {
            None => Err(SignatureError::UnrecognizedClient),
            Some((key, scope)) if matches => Ok((&key.id, scope)),
            Some(_) => {
                let signed = canonical::request(request, &authorization.signed_headers, &body_hash);
                let canonical = signed.bytes(Tokens::Masked);
                let canonical = String::from_utf8_lossy(&canonical).into_owned();
                Err(SignatureError::InvalidSignature { canonical, to_sign })
            }
        }
    }

    /// Looks at every key, so that the time taken does not tell which of them fits.
    fn key(&self, id: &str) -> Option<(&AccessKey, Scope)> {
        let all = self.keys.iter().map(|key| (key, Scope::All));
        let limited = self.limited.iter().map(|key| (key, Scope::Connections));
        all.chain(limited).fold(None, |found, (key, scope)| {
            let same = bool::from(key.id.as_bytes().ct_eq(id.as_bytes()));
            if same { found.or(Some((key, scope))) } else { found }
        })
    }

    /// Both ends of the window are inside. Fractions of `now` are dropped: signatures have none.
    /// What was signed is good for `life`, and may be ahead of our clock by what clocks may differ.
    fn check_time(
        &self,
        signed_at: i64,
        life: Duration,
        now: SystemTime,
    ) -> Result<(), SignatureError> {
        let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let (now, life, ahead) = (seconds(since_epoch), seconds(life), seconds(self.max_skew));
        let (earliest, latest) = (now.saturating_sub(life), now.saturating_add(ahead));
        let (fault, relation, edge, sign, width) = if signed_at < earliest {
            ("expired", "is now earlier than", earliest, '-', life)
        } else if signed_at > latest {
            ("not yet current", "is still later than", latest, '+', ahead)
        } else {
            return Ok(());
        };
        let [signed, edge, now] = [signed_at, edge, now].map(canonical::iso_time);
        let (width, unit) = if width % 60 == 0 { (width / 60, "min.") } else { (width, "sec.") };
        let message =
            format!("Signature {fault}: {signed} {relation} {edge} ({now} {sign} {width} {unit})");
        Err(SignatureError::Skewed(message))
    }
}

impl SignedRequest<'_> {
    fn check_size(&self) -> Result<(), SignatureError> {
        let headers = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        let line = self.path.len() + self.query.map_or(0, str::len);
        if headers.sum::<usize>() + line > MAX_HEAD_BYTES {
            return Err(incomplete("Request line and headers are too large to be verified."));
        }
        Ok(())
    }

    /// Bodies are always hashed, so keywords such as `UNSIGNED-PAYLOAD` are refused, but for
    /// presigned URLs.
    fn check_body_hash(&self, body_hash: &str, is_presigned: bool) -> Result<(), SignatureError> {
        const NAME: &str = "x-amz-content-sha256";
        let value = canonical::header_value(self.headers, NAME);
        let matches =
            value == body_hash.as_bytes() || (is_presigned && value == UNSIGNED_PAYLOAD.as_bytes());
        if self.headers.contains_key(NAME) && !matches {
            let message =
                "The provided 'x-amz-content-sha256' header does not match what was computed.";
            return Err(SignatureError::Unbound(message.into()));
        }
        Ok(())
    }
}

impl<'a> Authorization<'a> {
    fn from_headers(headers: &'a HeaderMap) -> Result<Self, SignatureError> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let value = values.next().ok_or(SignatureError::MissingAuthenticationToken)?;
        if values.next().is_some() {
            return Err(incomplete("Authorization header must be given only once."));
        }
        let text = value.to_str().map_err(|_| not_a_pair())?;
        Self::parse(text, headers.contains_key(canonical::date_header(headers)))
    }

    /// Accepts commas, blanks or both between parameters, as AWS does, and ignores unknown ones.
    fn parse(text: &'a str, dated: bool) -> Result<Self, SignatureError> {
        let mut words = text.split([',', ' ', '\t']).filter(|word| !word.is_empty());
        let algorithm = words.next().ok_or(SignatureError::MissingAuthenticationToken)?;
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for word in words {
            let (name, value) = word.split_once('=').ok_or_else(not_a_pair)?;
            let parameter = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => continue,
            };
            if parameter.replace(value).is_some() {
                return Err(incomplete("Authorization header must have each parameter only once."));
            }
        }
        let (Some(credential), Some(signed_headers), Some(signature), true) =
            (credential, signed_headers, signature, dated)
        else {
            return Err(missing([credential, signature, signed_headers], dated));
        };
        if algorithm != ALGORITHM {
            return Err(incomplete("Unsupported AWS 'algorithm' (only AWS4-HMAC-SHA256 for now)."));
        }
        let signed_headers = canonical::names(signed_headers);
        Ok(Self { credential: credential.into(), signed_headers, signature: signature.into() })
    }

    /// A presigned URL has its date in the query, all of which is signed.
    fn check_signed_headers(
        &self,
        headers: &HeaderMap,
        is_presigned: bool,
    ) -> Result<(), SignatureError> {
        let signs = |name: &str| self.signed_headers.iter().any(|signed| signed == name);
        let message = if !signs("host") {
            "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."
        } else if !is_presigned && !signs(canonical::date_header(headers)) {
            "'X-Amz-Date' or 'Date' must be a 'SignedHeader' in the AWS Authorization."
        } else {
            return Ok(());
        };
        Err(SignatureError::Unbound(message.into()))
    }
}

impl<'a> Credential<'a> {
    fn parse(text: &'a str) -> Result<Self, SignatureError> {
        let parts: Vec<&str> = text.split('/').collect();
        let &[key_id, date, region, service, terminator] = parts.as_slice() else {
            return Err(incomplete(
                "Credential must have exactly 5 slash-delimited elements, \
                 e.g. keyid/date/region/service/term",
            ));
        };
        Ok(Self { key_id, scope: [date, region, service, terminator] })
    }

    fn check_scope(&self, signed_at: i64) -> Result<(), SignatureError> {
        let [date, _, service, terminator] = self.scope;
        let time = canonical::iso_time(signed_at);
        let day = time.split('T').next().unwrap_or_default();
        let mut faults = Vec::new();
        if service != SERVICE {
            faults.push(format!("Credential should be scoped to correct service: '{SERVICE}'."));
        }
        if terminator != TERMINATOR {
            faults.push(format!(
                "Credential should be scoped with a valid terminator: '{TERMINATOR}'."
            ));
        }
        if date != day {
            faults.push(format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date \
                 from HTTP: it should be '{day}', from '{time}'."
            ));
        }
        if faults.is_empty() {
            return Ok(());
        }
        Err(SignatureError::Unbound(faults.join(" ").into()))
    }
}

fn not_a_pair() -> SignatureError {
    incomplete("Invalid key=value pair (missing equal-sign) in Authorization header.")
}

/// Names everything that is missing at once, in AWS's order.
fn missing(parameters: [Option<&str>; 3], dated: bool) -> SignatureError {
    let mut faults: Vec<String> = ["Credential", "Signature", "SignedHeaders"]
        .iter()
        .zip(parameters)
        .filter(|(_, value)| value.is_none())
        .map(|(name, _)| format!("Authorization header requires '{name}' parameter."))
        .collect();
    if !dated {
        faults.push(
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."
                .to_owned(),
        );
    }
    SignatureError::IncompleteSignature(faults.join(" ").into())
}

#[cfg(test)]
mod tests;
