//! Lists of the management API: connections, groups with members, counts, of all nodes.
//!
//! Nobody keeps lists: the nodes are asked. A page is answered within a deadline; a node that did not answer in time is
//! named in it, so that a caller knows what it does not see.

use std::collections::VecDeque;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use http::{Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{bad_request, json_reply, unavailable};
use crate::broker::Channel;
use crate::hub::Hub;
use crate::id::NodeTag;
use crate::listing::{Groups, Listed, PAGE_MAX, Query, Row, Seat};
use crate::peers::{DEADLINE, PeerError, Peers};

/// What the management API takes and answers.
pub(crate) const DOCUMENT: &str = include_str!("openapi.json");

/// Entries of a page if the caller does not say.
const PAGE_DEFAULT: usize = 100;

/// Lists under way at a time. More wait: what they carry (up to 0.4 MB a page) must stay far from the 8 MB at which Redis
/// gives a subscriber up.
const LISTS: usize = 8;

/// Longest time for a page; what it has by then is handed out.
const PAGE_DEADLINE: Duration = DEADLINE;

/// See the head of this file.
#[derive(Clone, Debug)]
pub(crate) struct Lister {
    tag: NodeTag,
    hub: Arc<Hub>,
    peers: Option<Arc<Peers>>,
    lists: Arc<Semaphore>,
}

/// What a query string asks for; `C` is where the page begins.
#[derive(Debug, PartialEq, Eq)]
struct Page<C> {
    limit: usize,
    cursor: Option<C>,
}

/// Where a page of connections begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    node: NodeTag,
    seat: Seat,
}

/// The name behind which a page of groups begins.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Behind(Arc<str>);

impl Lister {
    pub(crate) fn new(tag: NodeTag, hub: Arc<Hub>, peers: Option<Arc<Peers>>) -> Self {
        Self { tag, hub, peers, lists: Arc::new(Semaphore::new(LISTS)) }
    }

    /// Lists the members of a channel, node after node.
    pub(crate) async fn connections(&self, channel: Channel, query: Option<&str>) -> Response<Vec<u8>> {
        let Page { limit, cursor } = match Page::<Place>::parse(query) {
            Ok(page) => page,
            Err(message) => return bad_request(&message),
        };
        let Ok(_permit) = self.lists.acquire().await else { return unavailable("shutting down") };
        let nodes = match self.nodes().await {
            Ok(nodes) => nodes,
            Err(error) => return unavailable(&error.to_string()),
        };
        let until = Instant::now() + PAGE_DEADLINE;
        let (mut rows, mut incomplete, mut next) = (Vec::new(), Vec::new(), None);
        let is_ahead = |node: &NodeTag| cursor.is_none_or(|place| place.node <= *node);
        let mut ahead: VecDeque<NodeTag> = nodes.into_iter().filter(is_ahead).collect();
        while let Some(node) = ahead.pop_front() {
            let from =
                cursor.filter(|place| place.node == node).map_or_else(Seat::default, |place| place.seat);
            let query = Query::Connections { channel: channel.clone(), from, limit: limit - rows.len() };
            let more = match self.ask(node, query, until).await {
                Ok(Some(Listed::Connections(part))) => {
                    rows.extend(part.rows);
                    part.next
                }
                Ok(_) => None,
                Err(error) => {
                    tracing::debug!(%error, %node, "listing connections");
                    incomplete.push(node.to_string());
                    None
                }
            };
            next = more.map(|seat| Place { node, seat }).or_else(|| {
                let node = *ahead.front()?;
                (rows.len() >= limit || until <= Instant::now())
                    .then(|| Place { node, seat: Seat::default() })
            });
            if next.is_some() {
                break;
            }
        }
        let rows: Vec<Value> = rows.iter().map(describe).collect();
        let cursor = next.map(|place| encode(&place.to_string()));
        answer(&json!({ "connections": rows, "cursor": cursor, "incomplete": incomplete }))
    }

    /// Lists the groups that have members, by name.
    pub(crate) async fn groups(&self, query: Option<&str>) -> Response<Vec<u8>> {
        let Page { limit, cursor } = match Page::<Behind>::parse(query) {
            Ok(page) => page,
            Err(message) => return bad_request(&message),
        };
        let Behind(after) = cursor.unwrap_or_else(|| Behind("".into()));
        let (parts, incomplete) = match self.ask_all(&Query::Groups { after, limit }).await {
            Ok(answers) => answers,
            Err(error) => return unavailable(&error.to_string()),
        };
        let mut page = Groups::default();
        for (_, part) in parts {
            if let Listed::Groups(part) = part {
                page.merge(part, limit);
            }
        }
        let last = page.rows.last_key_value().filter(|_| page.more);
        let cursor = last.map(|(name, _)| encode(&format!("g:{name}")));
        let rows: Vec<Value> = page
            .rows
            .iter()
            .map(|(name, members)| json!({ "group": name, "connections": members }))
            .collect();
        answer(&json!({ "groups": rows, "cursor": cursor, "incomplete": incomplete }))
    }

    /// Counts what each node holds.
    pub(crate) async fn counts(&self) -> Response<Vec<u8>> {
        let (parts, incomplete) = match self.ask_all(&Query::Counts).await {
            Ok(answers) => answers,
            Err(error) => return unavailable(&error.to_string()),
        };
        let mut total = 0;
        let mut nodes = Vec::new();
        for (node, part) in parts {
            if let Listed::Counts(counts) = part {
                total += counts.connections;
                let node = node.to_string();
                nodes.push(
                    json!({ "node": node, "connections": counts.connections, "groups": counts.groups }),
                );
            }
        }
        answer(&json!({ "connections": total, "nodes": nodes, "incomplete": incomplete }))
    }

    /// Asks all nodes at once; returns what they said, and who did not.
    async fn ask_all(&self, query: &Query) -> Result<(Vec<(NodeTag, Listed)>, Vec<String>), PeerError> {
        let _permit = self.lists.acquire().await;
        let nodes = self.nodes().await?;
        let until = Instant::now() + PAGE_DEADLINE;
        let answers = join_all(nodes.iter().copied().map(|node| self.ask(node, query.clone(), until))).await;
        let (mut parts, mut incomplete) = (Vec::new(), Vec::new());
        for (node, answer) in nodes.into_iter().zip(answers) {
            match answer {
                Ok(Some(part)) => parts.push((node, part)),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, %node, "listing");
                    incomplete.push(node.to_string());
                }
            }
        }
        Ok((parts, incomplete))
    }

    async fn nodes(&self) -> Result<Vec<NodeTag>, PeerError> {
        match &self.peers {
            Some(peers) => Ok(peers.nodes().await?),
            None => Ok(vec![self.tag]),
        }
    }

    async fn ask(&self, node: NodeTag, query: Query, until: Instant) -> Result<Option<Listed>, PeerError> {
        match &self.peers {
            Some(peers) => peers.list(node, query, until.saturating_duration_since(Instant::now())).await,
            None => Ok(Some(self.hub.list(query).await)),
        }
    }
}

impl<C: FromStr> Page<C> {
    /// Reads a query string; returns what is wrong with it.
    fn parse(query: Option<&str>) -> Result<Self, String> {
        let mut page = Self { limit: PAGE_DEFAULT, cursor: None };
        for pair in query.unwrap_or("").split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8_lossy();
            match name {
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=PAGE_MAX).contains(limit));
                    page.limit = limit.ok_or_else(|| format!("limit must be from 1 to {PAGE_MAX}"))?;
                }
                "cursor" => {
                    let cursor = decode(&value).and_then(|text| text.parse().ok());
                    page.cursor = Some(cursor.ok_or("cursor is not one that this list has given out")?);
                }
                // Some signers put their token there.
                name if name.to_ascii_lowercase().starts_with("x-amz-") => {}
                _ => return Err("only limit and cursor are known as parameters".to_owned()),
            }
        }
        Ok(page)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { node, seat: Seat { shard, key } } = self;
        write!(f, "c:{node}:{shard}:{key}")
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.strip_prefix("c:").ok_or(())?.splitn(3, ':');
        let node = parts.next().and_then(NodeTag::parse).ok_or(())?;
        let mut number = || parts.next().and_then(|part| part.parse().ok()).ok_or(());
        Ok(Self { node, seat: Seat { shard: number()?, key: number()? } })
    }
}

impl FromStr for Behind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.strip_prefix("g:").map(|name| Self(name.into())).ok_or(())
    }
}

/// Makes a cursor: letters that need no escaping in a URL.
fn encode(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

fn decode(cursor: &str) -> Option<String> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()
}

fn describe(row: &Row) -> Value {
    let Row { id, user, source_ip, connected_at } = row;
    json!({
        "connectionId": id.as_str(),
        "node": id.node().map(|node| node.to_string()),
        "user": user,
        "sourceIp": source_ip,
        "connectedAt": format!("{connected_at:.3}"),
    })
}

fn answer(body: &Value) -> Response<Vec<u8>> {
    json_reply(StatusCode::OK, body.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_a_round_trip_and_name_their_list() {
        let place = Place { node: NodeTag::random(), seat: Seat { shard: 3, key: 70_000 } };
        let cursor = encode(&place.to_string());
        assert!(cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')));
        let query = format!("limit=7&cursor={cursor}");
        assert_eq!(Page::parse(Some(&query)), Ok(Page { limit: 7, cursor: Some(place) }));
        assert!(Page::<Behind>::parse(Some(&query)).is_err(), "of another list");
        let query = format!("cursor={}", encode("g:a:ü/ &"));
        assert_eq!(Page::parse(Some(&query)).map(|page| page.cursor), Ok(Some(Behind("a:ü/ &".into()))));
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
            "cursor=",
            "cursor=%00",
            "limt=7",
        ] {
            assert!(Page::<Place>::parse(Some(bad)).is_err(), "{bad}");
        }
        for good in ["", "&", "limit=1", "limit=1000", "X-Amz-Security-Token=token"] {
            assert!(Page::<Place>::parse(Some(good)).is_ok(), "{good}");
        }
        assert_eq!(Page::<Place>::parse(None), Ok(Page { limit: 100, cursor: None }));
    }
}
