//! What a query string says of a page: how long it may be and where it begins.

use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::edge::http::percent;
use crate::model::id::NodeTag;
use crate::model::listing::{PAGE_MAX, Seat};

/// Entries of a page if the caller does not say.
const PAGE_DEFAULT: usize = 100;

/// Where a list may go on.
pub(super) trait Start: Sized {
    /// The name of the parameter.
    const PARAMETER: &'static str;
    /// Most entries of a page.
    const LIMIT: usize;

    fn parse(text: &str) -> Option<Self>;
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page<S> {
    pub(super) limit: usize,
    /// `None` for the first page.
    pub(super) start: Option<S>,
}

/// Where a page of connections begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) node: NodeTag,
    pub(super) seat: Seat,
}

/// The name behind which a page of groups begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Behind(pub(super) Arc<str>);

/// The offset after which a page of messages begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct After(pub(super) u64);

impl<S: Start> Page<S> {
    /// Reads a query string; returns what is wrong with it.
    pub(super) fn parse(query: Option<&str>) -> Result<Self, String> {
        let mut page = Self { limit: PAGE_DEFAULT, start: None };
        let mut seen = Vec::new();
        for pair in query.unwrap_or("").split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let is_known = name == "limit" || name == S::PARAMETER;
            if is_known && seen.contains(&name) {
                return Err(format!("there must be one {name}"));
            }
            if is_known {
                seen.push(name);
            }
            let value = percent::decode(value);
            if name == "limit" {
                let limit = value
                    .and_then(|value| integer(&value))
                    .filter(|limit| (1..=S::LIMIT).contains(limit));
                page.limit =
                    limit.ok_or_else(|| format!("limit must be from 1 to {}", S::LIMIT))?;
            } else if name == S::PARAMETER {
                let start = value.and_then(|value| S::parse(&value));
                page.start = Some(
                    start.ok_or_else(|| format!("{name} is not one that this list gives out"))?,
                );
            } else if !name.to_ascii_lowercase().starts_with("x-amz-") {
                // Those are left to signers, some of which put their token there.
                return Err(format!("only limit and {} are known as parameters", S::PARAMETER));
            }
        }
        Ok(page)
    }
}

impl Place {
    pub(super) fn to_cursor(self) -> String {
        let Self { node, seat: Seat { shard, key } } = self;
        URL_SAFE_NO_PAD.encode(format!("c:{node}:{shard}:{key}"))
    }
}

impl Start for Place {
    const PARAMETER: &'static str = "cursor";
    const LIMIT: usize = PAGE_MAX;

    fn parse(text: &str) -> Option<Self> {
        let text = decode(text)?;
        let mut parts = text.strip_prefix("c:")?.splitn(3, ':');
        let node = NodeTag::parse(parts.next()?)?;
        let (shard, key) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Self { node, seat: Seat { shard, key } })
    }
}

impl Behind {
    pub(super) fn to_cursor(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!("g:{}", self.0))
    }
}

impl Start for Behind {
    const PARAMETER: &'static str = "cursor";
    const LIMIT: usize = PAGE_MAX;

    fn parse(text: &str) -> Option<Self> {
        Some(Self(decode(text)?.strip_prefix("g:")?.into()))
    }
}

impl Start for After {
    const PARAMETER: &'static str = "after";
    /// Messages are long.
    const LIMIT: usize = PAGE_DEFAULT;

    fn parse(text: &str) -> Option<Self> {
        integer(text).map(Self)
    }
}

/// Reads digits and nothing else: no sign.
fn integer<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn decode(cursor: &str) -> Option<String> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_a_round_trip_and_name_their_list() {
        let place = Place { node: NodeTag::random(), seat: Seat { shard: 3, key: 70_000 } };
        let group = Behind("a:ü/ &".into());
        for cursor in [place.to_cursor(), group.to_cursor()] {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            assert!(cursor.bytes().all(is_plain), "{cursor}");
        }
        let query = format!("limit=7&cursor={}", place.to_cursor());
        assert_eq!(Page::parse(Some(&query)), Ok(Page { limit: 7, start: Some(place) }));
        assert!(Page::<Behind>::parse(Some(&query)).is_err(), "of another list");
        let query = format!("cursor={}", group.to_cursor());
        assert_eq!(Page::parse(Some(&query)), Ok(Page { limit: 100, start: Some(group) }));
        assert!(Page::<Place>::parse(Some(&query)).is_err(), "of another list");
    }

    #[test]
    fn what_is_no_page_is_refused() {
        for bad in [
            "limit=0",
            "limit=1001",
            "limit=-1",
            "limit=",
            "limit",
            "limit=ten",
            "limt=7",
            "after=1",
        ] {
            assert!(Page::<Place>::parse(Some(bad)).is_err(), "{bad}");
        }
        for bad in ["cursor=", "cursor=%00", "cursor=AAAA", "cursor=Yzp4"] {
            assert!(Page::<Place>::parse(Some(bad)).is_err(), "{bad}");
            assert!(Page::<Behind>::parse(Some(bad)).is_err(), "{bad}");
        }
        for bad in ["after=", "after=-1", "after=18446744073709551616", "limit=101", "cursor=1"] {
            assert!(Page::<After>::parse(Some(bad)).is_err(), "{bad}");
        }
        for good in ["", "&", "limit=1", "limit=1000", "X-Amz-Security-Token=token"] {
            assert!(Page::<Place>::parse(Some(good)).is_ok(), "{good}");
        }
        assert_eq!(Page::<After>::parse(None), Ok(Page { limit: 100, start: None }));
    }
}
