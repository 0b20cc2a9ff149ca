//! What a client calls itself.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::USER_AGENT;

/// Longest `User-Agent` that is kept, in bytes.
const MAX: usize = 512;

/// Stands at the end of one that was longer.
const CUT: char = '…';

/// Returns the `User-Agent` of a request. It is UTF-8 or, as HTTP once had it (RFC 9110 §5.5), ISO
/// 8859-1; what is longer than [`MAX`] bytes is cut and ends with `…`.
pub(in crate::edge) fn user_agent(headers: &HeaderMap) -> Option<Box<str>> {
    let bytes = headers.get(USER_AGENT)?.as_bytes();
    let text = match str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => bytes.iter().copied().map(char::from).collect(),
    };
    if text.len() <= MAX {
        return Some(text.into());
    }
    let end = text.floor_char_boundary(MAX - CUT.len_utf8());
    let kept = text.get(..end).unwrap_or_default();
    Some(format!("{kept}{CUT}").into())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(value: &[u8]) -> Option<Box<str>> {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_bytes(value).expect("a value"));
        user_agent(&headers)
    }

    #[test]
    fn a_name_is_kept_in_either_encoding() {
        for (value, kept) in [
            (&b"major-tom/1.0"[..], "major-tom/1.0"),
            ("Zürich/1.0 🚀".as_bytes(), "Zürich/1.0 🚀"),
            (b"Z\xFCrich/1.0", "Zürich/1.0"),
            (b"", ""),
        ] {
            assert_eq!(of(value).as_deref(), Some(kept));
        }
        assert_eq!(user_agent(&HeaderMap::new()), None);
    }

    #[test]
    fn a_long_one_is_seen_to_be_cut() {
        assert_eq!(of(&[b'x'; MAX]).as_deref(), Some(&*"x".repeat(MAX)));
        assert_eq!(of(&[b'x'; MAX + 1]).as_deref(), Some(&*format!("{}…", "x".repeat(MAX - 3))));
        let wide = of("ü".repeat(MAX).as_bytes()).expect("kept");
        assert_eq!(&*wide, &*format!("{}…", "ü".repeat(MAX / 2 - 2)));
        let latin = of(&[0xFC; 2 * MAX]).expect("kept");
        assert_eq!(latin, wide);
    }
}
