//! Lists of the management API: connections, groups with members, counts, of all nodes.
//!
//! Nobody keeps lists: the nodes are asked. A page is answered within a deadline; a node that did
//! not answer in time is named in it, so that a caller knows what it does not see.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use self::page::{After, Behind, Page, Place};
use super::answer::{bad_request, error_reply, json_reply, unavailable};
use crate::cluster::nodes::Nodes;
use crate::cluster::peers::{DEADLINE, PeerError};
use crate::model::broker::{Broker, Channel, History, Offset};
use crate::model::id::NodeTag;
use crate::model::listing::{Function, Groups, Listed, Query, Row, Seat};
use crate::protocol::codec::{Opcode, payload_of};

mod page;

/// What the management API takes and answers.
pub(crate) const DOCUMENT: &str = include_str!("openapi.json");

/// Lists under way at a time. More wait: what they carry (up to 0.4 MB a page) must stay far from
/// the 8 MB at which Redis gives a subscriber up.
const LISTS: usize = 8;

/// Longest time for a page; what it has by then is handed out.
const PAGE_DEADLINE: Duration = DEADLINE;

/// See the [module documentation](self).
#[derive(Clone, Debug)]
pub(crate) struct Lister {
    nodes: Nodes,
    broker: Arc<dyn Broker>,
    lists: Arc<Semaphore>,
}

impl Lister {
    pub(crate) fn new(nodes: Nodes, broker: Arc<dyn Broker>) -> Self {
        Self { nodes, broker, lists: Arc::new(Semaphore::new(LISTS)) }
    }

    /// Lists the members of a channel, node after node.
    pub(crate) async fn connections(
        &self,
        channel: Channel,
        query: Option<&str>,
    ) -> Response<Vec<u8>> {
        let Page { limit, start } = match Page::<Place>::parse(query) {
            Ok(page) => page,
            Err(message) => return bad_request(&message),
        };
        let Ok(_permit) = self.lists.acquire().await else { return unavailable("shutting down") };
        let nodes = match self.nodes.tags().await {
            Ok(nodes) => nodes,
            Err(error) => return unavailable(&error.to_string()),
        };
        let until = Instant::now() + PAGE_DEADLINE;
        let (mut rows, mut incomplete, mut next) = (Vec::new(), Vec::new(), None);
        let is_ahead = |node: &NodeTag| start.is_none_or(|place| place.node <= *node);
        let mut ahead: VecDeque<NodeTag> = nodes.into_iter().filter(is_ahead).collect();
        while let Some(node) = ahead.pop_front() {
            let from = start
                .filter(|place| place.node == node)
                .map_or_else(Seat::default, |place| place.seat);
            let query =
                Query::Connections { channel: channel.clone(), from, limit: limit - rows.len() };
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
        let cursor = next.map(Place::to_cursor);
        answer(&json!({ "connections": rows, "cursor": cursor, "incomplete": incomplete }))
    }

    /// Lists the groups that have members, by name.
    pub(crate) async fn groups(&self, query: Option<&str>) -> Response<Vec<u8>> {
        let Page { limit, start } = match Page::<Behind>::parse(query) {
            Ok(page) => page,
            Err(message) => return bad_request(&message),
        };
        let Behind(after) = start.unwrap_or_else(|| Behind("".into()));
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
        let cursor = last.map(|(name, _)| Behind(Arc::clone(name)).to_cursor());
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

    /// Lists the functions of all nodes.
    pub(crate) async fn functions(&self) -> Response<Vec<u8>> {
        let (parts, incomplete) = match self.ask_all(&Query::Functions).await {
            Ok(answers) => answers,
            Err(error) => return unavailable(&error.to_string()),
        };
        let mut rows = Vec::new();
        for (node, part) in parts {
            if let Listed::Functions(part) = part {
                rows.extend(part.iter().map(|function| describe_function(node, function)));
            }
        }
        answer(&json!({ "functions": rows, "incomplete": incomplete }))
    }

    /// Lists what was sent to a channel, as far as the broker keeps it.
    pub(crate) async fn history(
        &self,
        channel: &Channel,
        query: Option<&str>,
    ) -> Response<Vec<u8>> {
        let Page { limit, start } = match Page::<After>::parse(query) {
            Ok(page) => page,
            Err(message) => return bad_request(&message),
        };
        let After(after) = start.unwrap_or(After(0));
        let _permit = self.lists.acquire().await;
        let history = match self.broker.history(channel, Offset(after), limit).await {
            Ok(Some(history)) => history,
            Ok(None) => {
                let message = "A gateway without Redis keeps no messages";
                return error_reply(StatusCode::NOT_FOUND, "NotFoundException", message);
            }
            Err(error) => return unavailable(&error.to_string()),
        };
        let History { epoch, last, messages } = history;
        let end = messages.last().map_or(last, |(offset, _)| *offset);
        let missed = end.0.saturating_sub(after).saturating_sub(messages.len() as u64);
        let next = (end < last).then_some(end.0);
        let messages: Vec<Value> = messages
            .iter()
            .filter_map(|(offset, frame)| describe_message(*offset, frame))
            .collect();
        answer(
            &json!({ "epoch": epoch, "last": last.0, "missed": missed, "next": next, "messages": messages }),
        )
    }

    /// Asks all nodes at once; returns what they said, and who did not.
    async fn ask_all(
        &self,
        query: &Query,
    ) -> Result<(Vec<(NodeTag, Listed)>, Vec<String>), PeerError> {
        let _permit = self.lists.acquire().await;
        let nodes = self.nodes.tags().await?;
        let until = Instant::now() + PAGE_DEADLINE;
        let answers =
            join_all(nodes.iter().copied().map(|node| self.ask(node, query.clone(), until))).await;
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

    async fn ask(
        &self,
        node: NodeTag,
        query: Query,
        until: Instant,
    ) -> Result<Option<Listed>, PeerError> {
        self.nodes.list(node, query, until.saturating_duration_since(Instant::now())).await
    }
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

fn describe_function(node: NodeTag, function: &Function) -> Value {
    let Function { name, runtime, processes, in_flight, waiting, init_error } = function;
    json!({
        "node": node.to_string(),
        "name": name,
        "runtime": runtime,
        "processes": processes,
        "inFlight": in_flight,
        "waiting": waiting,
        "initError": init_error,
    })
}

fn describe_message(offset: Offset, frame: &[u8]) -> Option<Value> {
    let (opcode, payload) = payload_of(frame)?;
    let is_binary = opcode == Opcode::Binary;
    let data = if is_binary {
        STANDARD.encode(payload)
    } else {
        String::from_utf8_lossy(payload).into_owned()
    };
    Some(json!({ "offset": offset.0, "data": data, "isBase64Encoded": is_binary }))
}

fn answer(body: &Value) -> Response<Vec<u8>> {
    json_reply(StatusCode::OK, body.to_string().into_bytes())
}
