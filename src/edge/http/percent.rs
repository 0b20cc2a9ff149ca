//! Percent-encoding (RFC 3986 §2.1) in paths and queries: read as it was meant, or not at all.

use percent_encoding::percent_decode_str;

/// Decodes a part of a URL; `None` where a sign is encoded by halves, or what comes out is no
/// UTF-8.
pub(super) fn decode(text: &str) -> Option<String> {
    let is_whole =
        |code: &str| code.len() >= 2 && code.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    if !text.split('%').skip(1).all(is_whole) {
        return None;
    }
    percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_by_halves_or_is_no_text_is_not_guessed() {
        for (text, decoded) in
            [("Jos%C3%A9", "José"), ("a%2Fb", "a/b"), ("%25", "%"), ("", ""), ("+", "+")]
        {
            assert_eq!(decode(text).as_deref(), Some(decoded), "{text}");
        }
        for text in ["%", "a%", "%4", "%zz", "%2", "%%41", "%FF", "Jos%E9", "%C3", "%é"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
