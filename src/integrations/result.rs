//! What a Lambda function returns to API Gateway, read as strictly as it is there.
//!
//! Source: Amazon API Gateway Developer Guide, "Lambda proxy integration": an object of
//! `statusCode`, `headers`, `multiValueHeaders`, `body` and `isBase64Encoded`, and nothing else.
//! Where nobody looks at the result (one-way routes and `$disconnect`), a missing one is taken:
//! many handlers return nothing there.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::model::call::{Answer, AnswerBody};

/// How much of a result there has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A whole one, with a status.
    Result,
    /// Nothing.
    Nothing,
}

/// What is wrong with a result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResultError {
    /// The function threw.
    #[error("the function has thrown {0}")]
    Thrown(String),
    #[error(
        "the result is not an object of statusCode, headers, multiValueHeaders, body, isBase64Encoded: {0}"
    )]
    Malformed(String),
    #[error("the result has no statusCode")]
    NoStatus,
    #[error("isBase64Encoded is true, and body is not base64")]
    NotBase64,
    #[error("body has {0} bytes, and a message at most {1}")]
    TooLong(usize, usize),
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ProxyResult {
    status_code: Option<Status>,
    headers: Option<BTreeMap<String, Value>>,
    multi_value_headers: Option<BTreeMap<String, Vec<Value>>>,
    body: Option<String>,
    is_base64_encoded: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Status {
    Number(u16),
    Text(String),
}

/// Longest part of what a function says that is repeated in an error, in characters.
const QUOTED: usize = 200;

/// Reads a result; a body may have `most` bytes.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse(result: &[u8], need: Need, most: usize) -> Result<Answer, ResultError> {
    let value: Value = match serde_json::from_slice(result) {
        Ok(value) => value,
        Err(_) if need == Need::Nothing && result.is_empty() => Value::Null,
        Err(error) => return Err(ResultError::Malformed(error.to_string())),
    };
    if value.is_null() && need == Need::Nothing {
        return Ok(Answer { status: 200, ..Answer::default() });
    }
    if let Some(thrown) = thrown(&value) {
        return Err(ResultError::Thrown(thrown));
    }
    let result: ProxyResult = serde_json::from_value(value)
        .map_err(|error| ResultError::Malformed(quoted(&error.to_string())))?;
    let status = match &result.status_code {
        Some(Status::Number(status)) => Some(*status),
        Some(Status::Text(text)) => text.parse().ok(),
        None if need == Need::Nothing => Some(200),
        None => None,
    };
    let status =
        status.filter(|status| (100..600).contains(status)).ok_or(ResultError::NoStatus)?;
    let subprotocol = result.subprotocol().map(Into::into);
    let body = result.body.map(|text| match result.is_base64_encoded {
        Some(true) => decoded(&text),
        _ => Ok(AnswerBody::Text(text.into())),
    });
    let body = body.transpose()?;
    if let Some(AnswerBody::Text(body) | AnswerBody::Binary(body)) = &body
        && body.len() > most
    {
        return Err(ResultError::TooLong(body.len(), most));
    }
    Ok(Answer { status, body, subprotocol })
}

/// Returns what a function that failed says of it: Lambda answers so, with or without a header that
/// marks it.
fn thrown(value: &Value) -> Option<String> {
    let fields = value.as_object().filter(|fields| !fields.contains_key("statusCode"))?;
    let message = fields.get("errorMessage")?;
    let kind = fields.get("errorType").and_then(Value::as_str).unwrap_or("Error");
    Some(quoted(&format!("{kind}: {}", message.as_str().unwrap_or_default())))
}

fn quoted(text: &str) -> String {
    text.chars().take(QUOTED).collect()
}

fn decoded(text: &str) -> Result<AnswerBody, ResultError> {
    let bytes = STANDARD.decode(text).map_err(|_| ResultError::NotBase64)?;
    Ok(match String::from_utf8(bytes) {
        Ok(text) => AnswerBody::Text(text.into()),
        Err(error) => AnswerBody::Binary(Bytes::from(error.into_bytes())),
    })
}

impl ProxyResult {
    fn subprotocol(&self) -> Option<&str> {
        let is_it = |name: &str| name.eq_ignore_ascii_case("sec-websocket-protocol");
        let many = self.multi_value_headers.iter().flatten().filter(|(name, _)| is_it(name));
        let single = self.headers.iter().flatten().filter(|(name, _)| is_it(name));
        many.filter_map(|(_, values)| values.first())
            .chain(single.map(|(_, value)| value))
            .find_map(Value::as_str)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(text: &str, need: Need) -> Result<Answer, ResultError> {
        parse(text.as_bytes(), need, 1_000)
    }

    #[test]
    fn a_result_is_read() {
        for (text, status, body) in [
            (r#"{"statusCode":200}"#, 200, None),
            (r#"{"statusCode":"201","body":"hi"}"#, 201, Some(AnswerBody::Text("hi".into()))),
            (
                r#"{"statusCode":400,"body":"","headers":{"X":1}}"#,
                400,
                Some(AnswerBody::Text("".into())),
            ),
            (r#"{"statusCode":200,"body":null}"#, 200, None),
            (
                r#"{"statusCode":200,"body":"aGk=","isBase64Encoded":true}"#,
                200,
                Some(AnswerBody::Text("hi".into())),
            ),
            (
                r#"{"statusCode":200,"body":"AP8=","isBase64Encoded":true}"#,
                200,
                Some(AnswerBody::Binary(Bytes::from_static(&[0, 255]))),
            ),
        ] {
            for need in [Need::Result, Need::Nothing] {
                let expected = Answer { status, body: body.clone(), subprotocol: None };
                assert_eq!(answer(text, need), Ok(expected), "{text}");
            }
        }
    }

    #[test]
    fn a_subprotocol_is_found_in_either_map() {
        for text in [
            r#"{"statusCode":200,"headers":{"sec-websocket-PROTOCOL":"chat"}}"#,
            r#"{"statusCode":200,"multiValueHeaders":{"Sec-WebSocket-Protocol":["chat","x"]}}"#,
        ] {
            assert_eq!(
                answer(text, Need::Result).expect("a result").subprotocol.as_deref(),
                Some("chat")
            );
        }
    }

    #[test]
    fn what_is_no_result_is_refused() {
        for text in [
            "",
            "null",
            "3",
            "\"x\"",
            "[]",
            "{}",
            "{",
            r#"{"statusCode":200,"extra":1}"#,
            r#"{"statusCode":200,"body":{}}"#,
            r#"{"statusCode":"x"}"#,
            r#"{"statusCode":99}"#,
            r#"{"statusCode":-1}"#,
            r#"{"body":"x"}"#,
            r#"{"errorMessage":"no","errorType":"Error"}"#,
            r#"{"statusCode":200,"body":"=","isBase64Encoded":true}"#,
            &"[".repeat(10_000),
        ] {
            assert!(answer(text, Need::Result).is_err(), "{text}");
        }
        let long = format!(r#"{{"statusCode":200,"body":"{}"}}"#, "x".repeat(1_001));
        assert_eq!(answer(&long, Need::Result), Err(ResultError::TooLong(1_001, 1_000)));
    }

    #[test]
    fn where_nobody_looks_nothing_is_enough() {
        for text in ["", "null", "{}", r#"{"body":"x"}"#] {
            assert_eq!(answer(text, Need::Nothing).expect("enough").status, 200, "{text}");
        }
        for text in ["3", "[]", r#"{"errorMessage":"no"}"#, r#"{"statusCode":200,"extra":1}"#] {
            assert!(answer(text, Need::Nothing).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_comes_is_too_much(text in ".{0,200}") {
            drop(answer(&text, Need::Result));
        }
    }
}
