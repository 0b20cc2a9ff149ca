//! The canonical form of a request: the one text that both ends of a signature must arrive at.
//!
//! Rule: it is made of the bytes on the wire. The path is encoded once more and never decoded, so
//! that two spellings of one path do not share a signature; what is folded (empty and dot segments,
//! blanks, order) is what botocore and the JavaScript SDK fold.
//! *Invariant:* of the paths that fold into one, a router answers all alike or refuses all but one;
//! otherwise an overheard signature would open a second address.

use http::HeaderMap;
use http::header::{AUTHORIZATION, DATE};
use jiff::fmt::rfc2822;
use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use super::request::SignedRequest;

/// The parameter that makes a request a presigned URL; what it covers is everything else.
pub(crate) const SIGNATURE: &str = "X-Amz-Signature";

/// What stands where a secret was.
const MASKED: &str = "MASKED";

/// The time format of `X-Amz-Date` and of the string to sign.
const ISO_BASIC: &str = "%Y%m%dT%H%M%SZ";
/// The header that dates a request; where it is missing, `Date` does.
pub(crate) const AMZ_DATE: &str = "x-amz-date";
/// The session token: a header, or for some clients a query parameter.
pub(crate) const SECURITY_TOKEN: &str = "x-amz-security-token";
/// Headers whose values must not show up in an error message, and so not in a log.
const SECRET_HEADERS: [&str; 5] =
    [SECURITY_TOKEN, "authorization", "cookie", "proxy-authorization", "x-api-key"];

/// Bytes that are percent-encoded: all but the unreserved ones of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What becomes of session tokens and the like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tokens {
    /// For signing.
    Kept,
    /// For showing to people.
    Masked,
}

/// A request together with what its signature covers.
pub(crate) struct Canonical<'a> {
    request: &'a SignedRequest<'a>,
    /// As [`names`] returns them.
    signed_headers: &'a [String],
    /// SHA-256 of the body, in lower-case hexadecimal.
    body_hash: &'a str,
}

impl Canonical<'_> {
    /// Returns the canonical string. Bytes, because header values need not be UTF-8.
    pub(crate) fn bytes(&self, tokens: Tokens) -> Vec<u8> {
        let SignedRequest { method, path, query, headers, .. } = *self.request;
        let except = if headers.contains_key(AUTHORIZATION) { None } else { Some(SIGNATURE) };
        let (path, query) =
            (canonical_path(path), canonical_query(query.unwrap_or(""), except, tokens));
        let mut out = format!("{method}\n{path}\n{query}\n").into_bytes();
        for name in self.signed_headers {
            out.extend_from_slice(name.as_bytes());
            out.push(b':');
            if tokens == Tokens::Masked && SECRET_HEADERS.contains(&name.as_str()) {
                out.extend_from_slice(MASKED.as_bytes());
            } else {
                out.extend_from_slice(&header_value(headers, name));
            }
            out.push(b'\n');
        }
        let end = format!("\n{}\n{}", self.signed_headers.join(";"), self.body_hash);
        out.extend_from_slice(end.as_bytes());
        out
    }
}

/// Returns `request` in canonical form, covering `signed_headers` and a body of `body_hash`.
pub(crate) fn request<'a>(
    request: &'a SignedRequest<'a>,
    signed_headers: &'a [String],
    body_hash: &'a str,
) -> Canonical<'a> {
    Canonical { request, signed_headers, body_hash }
}

/// Returns the names in `SignedHeaders`: lower case, sorted, each once, whatever order they came
/// in.
pub(crate) fn names(signed_headers: &str) -> Vec<String> {
    let present = signed_headers.split(';').filter(|name| !name.is_empty());
    let mut names: Vec<String> = present.map(str::to_ascii_lowercase).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Returns the values of `name` joined by commas, blanks around them cut and within them made one;
/// empty if there are none, so that the message shows which signed header got lost on the way.
pub(crate) fn header_value(headers: &HeaderMap, name: &str) -> Vec<u8> {
    let values = headers.get_all(name).iter().map(|value| {
        let words = value.as_bytes().split(|byte| matches!(byte, b' ' | b'\t'));
        words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(&b' ')
    });
    values.collect::<Vec<_>>().join(&b',')
}

/// Returns the name of the header that dates the request; `X-Amz-Date` wins, as in the SDKs.
pub(crate) fn date_header(headers: &HeaderMap) -> &'static str {
    if headers.contains_key(AMZ_DATE) { AMZ_DATE } else { DATE.as_str() }
}

/// Returns when the request says it was signed, in seconds since 1970, if that can be read:
/// ISO 8601 basic in either header, or an HTTP date in `Date`, as botocore keeps one it was given.
pub(crate) fn signing_time(headers: &HeaderMap) -> Option<i64> {
    let name = date_header(headers);
    let value = header_value(headers, name);
    let text = str::from_utf8(&value).ok()?;
    let http_date = || {
        let date = rfc2822::parse(text).ok().filter(|_| name == DATE.as_str())?;
        Some(date.timestamp().as_second())
    };
    parse_iso_time(text).or_else(http_date)
}

/// Returns `secs` since 1970 the way AWS writes times: `20150830T123600Z`.
pub(crate) fn iso_time(secs: i64) -> String {
    match Timestamp::from_second(secs) {
        Ok(time) => time.strftime(ISO_BASIC).to_string(),
        // Only the edge of an absurdly wide window is out of range.
        Err(_) => format!("second {secs}"),
    }
}

/// Written back it must be the same text: the parser alone would let signs and blanks pass.
pub(crate) fn parse_iso_time(text: &str) -> Option<i64> {
    let time = civil::DateTime::strptime(ISO_BASIC, text).ok()?;
    let secs = time.to_zoned_datetime(TimeZone::UTC).ok()?.timestamp().as_second();
    (iso_time(secs) == text).then_some(secs)
}

/// Encodes what is encoded already: `%3D` becomes `%253D`. A dot segment is folded only when its
/// dots are bare, and without the slash that RFC 3986 would leave behind `/.`: both SDKs do so.
fn canonical_path(path: &str) -> String {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(encode(segment.as_bytes())),
        }
    }
    let end = if path.ends_with('/') && !segments.is_empty() { "/" } else { "" };
    format!("/{}{end}", segments.join("/"))
}

/// Decodes and encodes every name and value, so that one spelling remains, and sorts the pairs by
/// name, then value. `except` is left out: the signature of a presigned URL does not cover itself.
/// `+` is a plus: in a URL, unlike in a form, it does not stand for a blank.
fn canonical_query(query: &str, except: Option<&str>, tokens: Tokens) -> String {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<(String, String)> = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(name, _)| Some(*name) != except)
        .map(|(name, value)| (encode(&decode(name)), encode(&decode(value))))
        .collect();
    pairs.sort_unstable();
    let shown = pairs.into_iter().map(|(name, value)| {
        let masked = tokens == Tokens::Masked && name.eq_ignore_ascii_case(SECURITY_TOKEN);
        format!("{name}={}", if masked { MASKED } else { &value })
    });
    shown.collect::<Vec<_>>().join("&")
}

fn encode(bytes: &[u8]) -> String {
    percent_encode(bytes, RESERVED).to_string()
}

/// Percent-decodes; a `%` without two hexadecimal digits behind it stands for itself.
fn decode(text: &str) -> Vec<u8> {
    percent_decode_str(text).collect()
}
