//! The two halves of a key of the management API.

use serde_json::{Value, json};

use super::Setting;
use crate::config::row::Kind;
use crate::config::secret::Secret;

/// Shortest secret, in bytes: what is shorter is found by trying (NIST SP 800-63B §5.1.1.1 asks for
/// 8 as well).
const SECRET_MIN: usize = 8;
const SECRET_MAX: usize = 1_024;

/// The public half of a key: it stands in a header, between signs of its own.
#[derive(Clone, PartialEq)]
pub(in crate::config) struct KeyId(pub(in crate::config) String);

/// The other half.
#[derive(Clone, PartialEq)]
pub(in crate::config) struct KeySecret(pub(in crate::config) Secret);

impl Kind for KeyId {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        json!({ "type": "string", "pattern": "^[!-+.0-~-]{1,128}$" })
    }
}

impl Kind for KeySecret {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        // Characters are counted there: what is not ASCII has bytes enough.
        const PATTERN: &str =
            r"^(?=.{8}|.*[^\u0000-\u007f])(?!\s|.*\s$)[^\u0000-\u001f\u007f-\u009f]+$";
        json!({ "type": "string", "pattern": PATTERN, "maxLength": SECRET_MAX })
    }
}

impl Setting for KeyId {
    const EXPECTED: &'static str = "an id of 1 to 128 visible ASCII characters, without / and ,";

    fn read(text: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b',');
        ((1..=128).contains(&text.len()) && text.bytes().all(is_plain))
            .then(|| Self(text.to_owned()))
    }
}

impl Setting for KeySecret {
    const EXPECTED: &'static str = "a secret of 8 to 1024 bytes, without control characters and blanks at its ends; \
                                    draw one by `openssl rand -base64 30`";
    const SECRET: bool = true;

    fn read(text: &str) -> Option<Self> {
        let is_clean = text.trim() == text && !text.chars().any(char::is_control);
        ((SECRET_MIN..=SECRET_MAX).contains(&text.len()) && is_clean)
            .then(|| Self(Secret::new(text)))
    }
}
