//! Judges a round by its log: what is lost, doubled, out of order, or was received although it was
//! refused.
//!
//! Rule: pure. A connection is owed what was accepted within its membership. It may miss the end of
//! that only if it was closed: "handed it once, or closed"; a gap before something it received is
//! always a loss.

pub(crate) mod order;

use std::cell::LazyCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use serde::Serialize;

use super::log::{Answer, Channel, Connection, Id, Log, Publication};
use crate::faults::judge::order::Order;

/// A connection that is closed must have received what was accepted this long before its end: a
/// node that is told to end at once hands out nothing in its last second.
const CLOSING: Duration = Duration::from_millis(1400);

/// From one moment to another.
pub(crate) type Window = (Duration, Duration);

/// What a fault allows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allowances {
    /// Redis may forget what it has accepted in these windows.
    pub(crate) forgetful: Vec<Window>,
    /// For each node: Redis may let go of what it has accepted in these windows before the node has
    /// read it.
    pub(crate) unkept: Vec<Vec<Window>>,
    /// Offsets may restart in this window, so that those within cannot be compared with others.
    pub(crate) recount: Option<Window>,
    /// For each node: it may be without Redis, or stand still. Its connections may miss everything
    /// from then until they are closed.
    pub(crate) away: Vec<Vec<Window>>,
    /// The same of nodes and times that are not known.
    pub(crate) frozen: bool,
    /// For this long nodes send again what is in doubt, which a Redis that has forgotten the first
    /// time accepts twice.
    pub(crate) resent: Option<Duration>,
    /// For each node: clients that join then may be told before Redis is, and miss what other nodes
    /// accept meanwhile.
    pub(crate) alone: Vec<Vec<Window>>,
}

impl Allowances {
    /// Returns whether Redis may have forgotten a message that was sent again, by its publisher or
    /// by a node that still held it.
    fn allow_again(&self, publication: &Publication) -> bool {
        let is_settled = publication.is_accepted() && !publication.keyed;
        let held = self.resent.filter(|_| !is_settled).unwrap_or_default();
        let touches = self
            .forgetful
            .iter()
            .any(|(from, to)| publication.touches((from.saturating_sub(held), *to)));
        touches && (publication.keyed || self.resent.is_some())
    }

    /// Returns whether Redis may no longer have a publication when the node of a connection reads
    /// it.
    fn allow_loss(&self, connection: &Connection, publication: &Publication) -> bool {
        let unkept = windows_of(&self.unkept, connection);
        self.forgetful.iter().chain(unkept).any(|window| publication.touches(*window))
    }
}

/// The result of a round.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Findings {
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) in_doubt: u64,
    /// Deliveries that connections were owed.
    pub(crate) owed: u64,
    pub(crate) lost: u64,
    /// Lost, but Redis may have forgotten them.
    pub(crate) forgotten: u64,
    /// Not received before a close.
    pub(crate) cut: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    /// Received although refused, never published, changed, or for others.
    pub(crate) phantom: u64,
    /// Connections that ended, by code.
    pub(crate) closed: BTreeMap<u16, u64>,
    /// The first few faults, in words.
    pub(crate) examples: Vec<String>,
}

/// Examples that are kept of a round.
const EXAMPLES: usize = 8;

/// Judges a round.
pub(crate) fn judge(log: &Log, allowances: &Allowances) -> Findings {
    let mut findings = Findings::default();
    for publication in &log.publications {
        match publication.answer {
            Answer::Accepted(_) => findings.accepted += 1,
            Answer::Refused => findings.refused += 1,
            Answer::InDoubt => findings.in_doubt += 1,
        }
    }
    for (_, code) in log.connections.iter().filter_map(|connection| connection.ended) {
        *findings.closed.entry(code).or_default() += 1;
    }
    let by_channel = by_channel(&log.publications);
    for (channel, publications) in &by_channel {
        ChannelJudge::new(*channel, publications, log, allowances).judge(&mut findings);
    }
    findings.phantom += log.connections.iter().map(|connection| connection.foreign).sum::<u64>();
    findings
}

fn by_channel(publications: &[Publication]) -> BTreeMap<Channel, Vec<&Publication>> {
    let mut channels: BTreeMap<Channel, Vec<&Publication>> = BTreeMap::new();
    for publication in publications {
        channels.entry(publication.id.channel).or_default().push(publication);
    }
    channels
}

/// One channel of a log.
struct ChannelJudge<'a> {
    channel: Channel,
    publications: &'a [&'a Publication],
    by_id: HashMap<Id, &'a Publication>,
    /// Each connection with what it received on this channel, without repetitions.
    seen: Vec<(&'a Connection, Vec<Id>)>,
    /// Accepted publications in the order of their offsets, before and after these may have
    /// restarted.
    ranks: Vec<Vec<Id>>,
    order: Order,
    /// The sequences that the order is made of: the place of each message in each.
    places: Vec<HashMap<Id, usize>>,
    allowances: &'a Allowances,
}

impl<'a> ChannelJudge<'a> {
    fn new(
        channel: Channel,
        publications: &'a [&'a Publication],
        log: &'a Log,
        allowances: &'a Allowances,
    ) -> Self {
        let seen: Vec<(&Connection, Vec<Id>)> = log
            .connections
            .iter()
            .map(|connection| (connection, first_of_each(connection, channel)))
            .collect();
        let ranks = ranks(publications, allowances);
        let by_id: HashMap<Id, &Publication> =
            publications.iter().map(|publication| (publication.id, *publication)).collect();
        // What is for one node, or may come again, has no place that is the same for all.
        let has_place = |id: &&Id| {
            by_id.get(*id).is_none_or(|publication| {
                !publication.local && !allowances.allow_again(publication)
            })
        };
        let placed = |seen: &[Id]| seen.iter().filter(has_place).copied().collect();
        let sequences: Vec<Vec<Id>> = ranks
            .iter()
            .map(|rank| placed(rank))
            .chain(seen.iter().map(|(_, seen)| placed(seen)))
            .collect();
        let order = Order::of(&sequences);
        let places =
            sequences.into_iter().map(|sequence| sequence.into_iter().zip(0..).collect()).collect();
        Self { channel, publications, by_id, seen, ranks, order, places, allowances }
    }

    fn judge(&self, findings: &mut Findings) {
        let ranks: Vec<Order> =
            self.ranks.iter().map(|rank| Order::of(std::slice::from_ref(rank))).collect();
        for (connection, seen) in &self.seen {
            self.judge_received(connection, findings);
            let by_offset: u64 = ranks.iter().map(|rank| rank.steps_back(seen)).sum();
            let back = by_offset.max(self.order.steps_back(seen));
            if back > 0 {
                findings.reordered += back;
                findings.example(format!(
                    "subscriber {} was taken backwards {back} times",
                    connection.subscriber
                ));
            }
            self.judge_owed(connection, seen, findings);
        }
    }

    /// Judges what a connection received: nothing twice, nothing that was refused, nothing for
    /// others.
    fn judge_received(&self, connection: &Connection, findings: &mut Findings) {
        let mut once = HashSet::new();
        for (id, at) in connection.received.iter().filter(|(id, _)| id.channel == self.channel) {
            let answer = self.by_id.get(id).map(|publication| publication.answer);
            let is_ours = answer.is_some_and(|answer| answer != Answer::Refused);
            if !is_ours || !connection.may_receive(self.channel, *at) {
                findings.phantom += 1;
                findings.example(format!(
                    "subscriber {} got `{}` at {:.3} s, which it must not: {answer:?}; a member of {:?}, at node {:?}",
                    connection.subscriber,
                    id.text(),
                    at.as_secs_f64(),
                    connection.joined,
                    connection.node,
                ));
            }
            if !once.insert(*id) && !self.may_come_again(*id) {
                findings.duplicated += 1;
                findings.example(format!(
                    "subscriber {} got `{}` again at {:.3} s",
                    connection.subscriber,
                    id.text(),
                    at.as_secs_f64()
                ));
            }
        }
    }

    fn may_come_again(&self, id: Id) -> bool {
        self.by_id.get(&id).is_some_and(|publication| self.allowances.allow_again(publication))
    }

    /// Returns whether a connection joined so late that it may have missed a publication.
    fn is_unheard(&self, connection: &Connection, publication: &Publication) -> bool {
        let Some(joined) = connection.member_since(self.channel) else { return false };
        let mut alone = windows_of(&self.allowances.alone, connection).iter();
        alone.any(|(from, to)| (*from..=*to).contains(&joined) && publication.posted <= *to)
    }

    /// Judges what a connection did not receive.
    fn judge_owed(&self, connection: &Connection, seen: &[Id], findings: &mut Findings) {
        let lasts = LazyCell::new(|| self.lasts(seen));
        let seen: HashSet<Id> = seen.iter().copied().collect();
        let is_owed = |publication: &&&Publication| {
            connection.is_owed(publication) && !self.is_unheard(connection, publication)
        };
        for publication in self.publications.iter().filter(is_owed) {
            findings.owed += 1;
            if seen.contains(&publication.id) {
                continue;
            }
            if self.is_cut(connection, publication, &lasts) {
                findings.cut += 1;
            } else if self.allowances.allow_loss(connection, publication) {
                findings.forgotten += 1;
            } else {
                findings.lost += 1;
                findings.example(format!(
                    "subscriber {} has not got `{}`, {:?} at {:.3} s; {}",
                    connection.subscriber,
                    publication.id.text(),
                    publication.answer,
                    publication.answered.as_secs_f64(),
                    self.circumstances(connection, publication.id)
                ));
            }
        }
    }

    /// Returns the last place of these messages in each sequence.
    fn lasts(&self, seen: &[Id]) -> Vec<Option<usize>> {
        let last = |places: &HashMap<Id, usize>| {
            seen.iter().filter_map(|id| places.get(id)).max().copied()
        };
        self.places.iter().map(last).collect()
    }

    /// Returns whether a close explains that a publication is missing: nothing was received that is
    /// after it in any sequence, and it was accepted shortly before, or the node was away from then
    /// on.
    fn is_cut(
        &self,
        connection: &Connection,
        publication: &Publication,
        lasts: &[Option<usize>],
    ) -> bool {
        let Some((end, _)) = connection.ended else { return false };
        let mut places = self.places.iter().map(|places| places.get(&publication.id)).zip(lasts);
        let is_tail = places.all(|(place, last)| place.is_none() || *last < place.copied());
        let mut away = windows_of(&self.allowances.away, connection).iter();
        let is_away = |(from, to): &Window| *from <= publication.answered && end <= *to + CLOSING;
        is_tail
            && (self.allowances.frozen
                || publication.answered + CLOSING >= end
                || away.any(is_away))
    }

    /// Says when a connection was a member, and what it received next after a missing message.
    fn circumstances(&self, connection: &Connection, missing: Id) -> String {
        let is_after = |places: &HashMap<Id, usize>, id| {
            places
                .get(&missing)
                .is_some_and(|place| places.get(id).is_some_and(|other| other > place))
        };
        let next = connection
            .received
            .iter()
            .find(|(id, _)| self.places.iter().any(|each| is_after(each, id)));
        let ended =
            connection.ended.map(|(at, code)| format!("{:.3} s with {code}", at.as_secs_f64()));
        format!(
            "a member since {:.3} s, at node {:?}, until {}; next it got {}",
            connection.member_since(self.channel).unwrap_or_default().as_secs_f64(),
            connection.node,
            ended.unwrap_or_else(|| "now".to_owned()),
            next.map_or("nothing".to_owned(), |(id, at)| format!(
                "`{}` at {:.3} s",
                id.text(),
                at.as_secs_f64()
            )),
        )
    }
}

impl Findings {
    fn example(&mut self, text: String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(text);
        }
    }
}

/// Returns the windows of a connection's node, if that is known.
fn windows_of<'a>(all: &'a [Vec<Window>], connection: &Connection) -> &'a [Window] {
    connection.node.and_then(|node| all.get(node)).map_or(&[], Vec::as_slice)
}

fn first_of_each(connection: &Connection, channel: Channel) -> Vec<Id> {
    let mut once = HashSet::new();
    let own = connection.received.iter().map(|(id, _)| *id).filter(|id| id.channel == channel);
    own.filter(|id| once.insert(*id)).collect()
}

/// Orders accepted publications by their offsets. Where these may have restarted, what was accepted
/// meanwhile may have an old offset or a new one, and is left out.
fn ranks(publications: &[&Publication], allowances: &Allowances) -> Vec<Vec<Id>> {
    let rank = |is_in: &dyn Fn(&Publication) -> bool| {
        let mut offsets: Vec<(u64, Id)> = publications
            .iter()
            .filter(|publication| is_in(publication) && !publication.local)
            .filter_map(|publication| match publication.answer {
                Answer::Accepted(offset) => offset.map(|offset| (offset, publication.id)),
                Answer::Refused | Answer::InDoubt => None,
            })
            .collect();
        offsets.sort_unstable();
        offsets.into_iter().map(|(_, id)| id).collect()
    };
    match allowances.recount {
        None => vec![rank(&|_| true)],
        Some((from, to)) => {
            vec![
                rank(&|publication| publication.answered < from),
                rank(&|publication| publication.posted > to),
            ]
        }
    }
}

#[cfg(test)]
mod tests;
