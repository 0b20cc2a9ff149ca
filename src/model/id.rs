//! Identifiers as a client and a back end see them.
//!
//! All are 16 characters, 15 of base64url and `=`, hence 11 bytes: 8 random ones and the 3 of the
//! node's tag (API Gateway does alike: the last characters of `connectionId` and `messageId`
//! agree). Request ids are random throughout.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use rand::RngExt as _;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

const TEXT_LEN: usize = 16;
const RANDOM_LEN: usize = 8;
const TAG_LEN: usize = 3;
const RAW_LEN: usize = RANDOM_LEN + TAG_LEN;

/// Marks which node minted an id; drawn at random when a node starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeTag([u8; TAG_LEN]);

impl NodeTag {
    /// Draws a tag.
    #[must_use]
    pub(crate) fn random() -> Self {
        Self(rand::rng().random())
    }
}

impl NodeTag {
    /// Reads the text form.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut tag = [0; TAG_LEN];
        hex::decode_to_slice(text, &mut tag).ok()?;
        Some(Self(tag))
    }
}

impl fmt::Display for NodeTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Names one client socket, for as long as it is open; unique in the cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnectionId([u8; TEXT_LEN]);

/// Names one request (a route's run) or one message. Most are never written, so the text is made
/// when it is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId([u8; RAW_LEN]);

impl ConnectionId {
    /// Draws an id of the node with `tag`.
    #[must_use]
    pub(crate) fn mint(tag: NodeTag) -> Self {
        Self(text(raw_with_tag(tag)))
    }

    /// Reads an id that a caller sent; `None` if it is not of the form of an id (16 characters: 15
    /// of base64url and `=`).
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; TEXT_LEN] = text.as_bytes().try_into().ok()?;
        let (last, body) = bytes.split_last()?;
        let well_formed = *last == b'='
            && body.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        well_formed.then_some(Self(bytes))
    }

    /// Returns the text form.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        ascii(&self.0)
    }

    /// Returns the tag of the node that holds this connection; `None` if no node has minted it.
    #[must_use]
    pub(crate) fn node(&self) -> Option<NodeTag> {
        let mut raw = [0; RAW_LEN + 1];
        let len = URL_SAFE.decode_slice(self.0, &mut raw).ok()?;
        raw.get(RANDOM_LEN..len)?.try_into().ok().map(NodeTag)
    }

    /// Returns which of `count` shards holds this connection. `count` must not be 0.
    #[must_use]
    pub(crate) fn shard(&self, count: usize) -> usize {
        let random = self.0.first_chunk::<8>().map_or(0, |chunk| u64::from_le_bytes(*chunk));
        let mixed = random.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        usize::try_from(mixed).unwrap_or(0) % count.max(1)
    }
}

impl RequestId {
    /// Draws the id of a request.
    #[must_use]
    pub(crate) fn mint() -> Self {
        let mut raw = [0; RAW_LEN];
        rand::rng().fill(&mut raw);
        Self(raw)
    }

    /// Returns the id of the request that tells of a connection's end: the same whoever makes it,
    /// and how often.
    #[must_use]
    pub(crate) fn of_end(connection: &ConnectionId) -> Self {
        let digest = Sha256::digest(connection.0);
        let mut raw = [0; RAW_LEN];
        raw.copy_from_slice(digest.first_chunk::<RAW_LEN>().unwrap_or(&[0; RAW_LEN]));
        Self(raw)
    }

    /// Draws the id of a message received by the node with `tag`.
    #[must_use]
    pub(crate) fn mint_message(tag: NodeTag) -> Self {
        Self(raw_with_tag(tag))
    }
}

impl Serialize for ConnectionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ConnectionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("not a connection id"))
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ascii(&text(self.0)))
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn raw_with_tag(tag: NodeTag) -> [u8; RAW_LEN] {
    let mut raw = [0; RAW_LEN];
    rand::rng().fill(&mut raw[..RANDOM_LEN]);
    raw[RANDOM_LEN..].copy_from_slice(&tag.0);
    raw
}

fn text(raw: [u8; RAW_LEN]) -> [u8; TEXT_LEN] {
    let mut text = [b'='; TEXT_LEN];
    #[expect(clippy::expect_used, reason = "11 bytes are 16 characters of base64, always")]
    URL_SAFE.encode_slice(raw, &mut text).expect("16 characters");
    text
}

fn ascii(bytes: &[u8; TEXT_LEN]) -> &str {
    str::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_form_of_the_contract() {
        let tag = NodeTag::random();
        let id = ConnectionId::mint(tag);
        assert_eq!(id.as_str().len(), 16);
        assert!(id.as_str().ends_with('='));
        assert_eq!(ConnectionId::parse(id.as_str()), Some(id));
        assert_ne!(id, ConnectionId::mint(tag));
        assert_eq!(id.node(), Some(tag));
        assert_eq!(NodeTag::parse(&tag.to_string()), Some(tag));
        let message = RequestId::mint_message(tag);
        assert_eq!(id.0[11..], message.to_string().as_bytes()[11..], "ids of one node end alike");
    }

    #[test]
    fn captured_ids_are_well_formed_and_others_are_not() {
        for good in ["L0SM9cOFvHcCIhw=", "eHrdFcnvvHcCE-w=", "PxWP8cfSDoECFYw=", "WDGT8fY4joECJrQ="]
        {
            assert!(ConnectionId::parse(good).is_some(), "{good}");
        }
        let uuid = "0f0a3cb6-9d1c-4d43-bb6b-b3a4a5f4dd47";
        for bad in [
            "",
            "=",
            uuid,
            "WDGT8fY4joECJrQ=test",
            "L0SM9cOFvHcCIhwx",
            "L0SM9cOFvHc/Ihw=",
            "L0SM9cOFvHcCéw=",
        ] {
            assert!(ConnectionId::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn shards_are_filled_evenly() {
        let tag = NodeTag::random();
        let mut filled = [0_u32; 4];
        for _ in 0..4_000 {
            filled[ConnectionId::mint(tag).shard(4)] += 1;
        }
        assert!(filled.iter().all(|count| (800..1_200).contains(count)), "{filled:?}");
    }
}
