//! Names of Lambda functions and of regions.

use serde_json::{Value, json};

use super::Setting;
use crate::config::row::Kind;

/// Longest name, in bytes, as in the API's model.
const NAME_MAX: usize = 256;

/// The same as [`FunctionName::read`] takes.
const NAME: &str = r"^(arn:aws[a-zA-Z-]*:lambda:)?([a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}:)?([0-9]{12}:)?(function:)?[a-zA-Z0-9_-]+(:([$]LATEST|[a-zA-Z0-9_-]+))?$";

/// What a schema says of a region.
const REGION: &str = "^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$";

/// A name, or a whole ARN or part of one; with `:` and an alias or a version, if one is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct FunctionName {
    pub(in crate::config) text: String,
    /// Where an ARN says that it is.
    pub(in crate::config) region: Option<String>,
}

/// The name of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Region(pub(in crate::config) String);

impl Kind for FunctionName {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        json!({ "type": "string", "maxLength": NAME_MAX, "pattern": NAME })
    }
}

impl Setting for FunctionName {
    const EXPECTED: &'static str = "a function's name or ARN, with :ALIAS or :VERSION if one is meant, such as \"chat\", \"chat:prod\" or \
         \"arn:aws:lambda:eu-west-1:123456789012:function:chat\"";

    fn read(text: &str) -> Option<Self> {
        let mut parts: Vec<&str> = text.split(':').collect();
        let is_arn =
            matches!(parts.as_slice(), ["arn", partition, "lambda", ..] if is_partition(partition));
        parts.drain(..if is_arn { 3 } else { 0 });
        let region = parts.first().filter(|part| parts.len() > 1 && is_region(part)).copied();
        parts.drain(..usize::from(region.is_some()));
        let has_account = parts.len() > 1 && parts.first().is_some_and(|part| is_account(part));
        parts.drain(..usize::from(has_account));
        let has_kind = parts.len() > 1 && parts.first() == Some(&"function");
        parts.drain(..usize::from(has_kind));
        let is_name = match parts.as_slice() {
            [name] => is_word(name),
            [name, qualifier] => is_word(name) && (*qualifier == "$LATEST" || is_word(qualifier)),
            _ => false,
        };
        let is_whole = !is_arn || (region.is_some() && has_account && has_kind);
        let is_it = is_name && is_whole && text.len() <= NAME_MAX;
        is_it.then(|| Self { text: text.to_owned(), region: region.map(str::to_owned) })
    }
}

impl Kind for Region {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        json!({ "type": "string", "pattern": REGION })
    }
}

impl Setting for Region {
    const EXPECTED: &'static str = "a region's name, such as \"eu-central-1\"";

    fn read(text: &str) -> Option<Self> {
        is_region(text).then(|| Self(text.to_owned()))
    }
}

fn is_word(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !text.is_empty() && text.bytes().all(is_plain)
}

fn is_partition(text: &str) -> bool {
    let rest = text.strip_prefix("aws");
    rest.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-'))
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// As [`REGION`].
fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [first, middle @ .., last] = parts.as_slice() else { return false };
    let are_letters =
        |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_lowercase());
    (2..=4).contains(&first.len())
        && are_letters(first)
        && !middle.is_empty()
        && middle.iter().all(|part| are_letters(part))
        && (1..=2).contains(&last.len())
        && last.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_named_as_in_the_api() {
        for (good, region) in [
            ("chat", None),
            ("chat-1_x:prod", None),
            ("chat:$LATEST", None),
            ("chat:7", None),
            ("123456789012:function:chat", None),
            ("123456789012:chat:prod", None),
            ("function:chat", None),
            ("eu-west-1:123456789012:function:chat", Some("eu-west-1")),
            ("arn:aws:lambda:eu-west-1:123456789012:function:chat", Some("eu-west-1")),
            ("arn:aws-cn:lambda:cn-north-1:123456789012:function:chat:prod", Some("cn-north-1")),
            (
                "arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:a:1",
                Some("us-gov-west-1"),
            ),
        ] {
            let expected =
                Some(FunctionName { text: good.to_owned(), region: region.map(str::to_owned) });
            assert_eq!(FunctionName::read(good), expected);
        }
        for bad in [
            "",
            ":",
            "chat:",
            ":prod",
            "chat prod",
            "chat:a:b",
            "chat/../other",
            "chat%2F",
            "chat:$NEXT",
            "arn:aws:lambda:eu-west-1:123456789012:chat",
            "arn:aws:lambda:eu-west-1:function:chat",
            "arn:aws:sns:eu-west-1:123456789012:function:chat",
            "arn:aws:lambda:eu:123456789012:function:chat",
            "arn:aws:lambda:eu-west-1:123456789012:layer:chat",
            &"x".repeat(257),
        ] {
            assert_eq!(FunctionName::read(bad), None, "{bad}");
        }
    }
}
