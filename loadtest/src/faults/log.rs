//! What clients note during a round, which is all that the judge knows.
//!
//! Rule: facts only. Times count from the start of the round, so that a test can write a log by
//! hand.

use std::time::{Duration, Instant};

/// Channel 0 is the broadcast; channel `n` is group `g{n}`.
pub(crate) type Channel = usize;

/// Identifies a publication; the text of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id {
    pub(crate) channel: Channel,
    pub(crate) publisher: usize,
    pub(crate) number: u32,
}

/// What a publisher was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// With the offset, if the publisher is told one.
    Accepted(Option<u64>),
    /// It will not be delivered.
    Refused,
    /// No answer, or one that leaves it open.
    InDoubt,
}

/// One attempt to publish.
#[derive(Clone, Debug)]
pub(crate) struct Publication {
    pub(crate) id: Id,
    pub(crate) posted: Duration,
    pub(crate) answered: Duration,
    pub(crate) answer: Answer,
    /// It was sent more than once with the same `Idempotency-Key`.
    pub(crate) keyed: bool,
    /// Perhaps only members at one node have received it: it has no place in the order of all.
    pub(crate) local: bool,
    /// The node of the client that sent it, if it was sent by a client and that is known.
    pub(crate) node: Option<usize>,
}

/// One attempt to send to a connection by its id.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    pub(crate) number: u32,
    pub(crate) to: String,
    pub(crate) posted: Duration,
    pub(crate) answered: Duration,
    /// None without an answer.
    pub(crate) status: Option<u16>,
}

/// A client's request to join or leave, and the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// The answer if it succeeds.
    pub(crate) reply: String,
    pub(crate) sent: Duration,
    pub(crate) answer: Option<(String, Duration)>,
}

/// One connection of a client, from its 101 to its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connection {
    pub(crate) subscriber: usize,
    /// The id that the server gave it; empty until it is known.
    pub(crate) id: String,
    pub(crate) opened: Duration,
    /// The group that it asked to join, and when first; none once that was refused.
    pub(crate) asked: Option<(Channel, Duration)>,
    /// The group that it joined, and when.
    pub(crate) joined: Option<(Channel, Duration)>,
    /// When it ended, and its close code; none while it is open.
    pub(crate) ended: Option<(Duration, u16)>,
    pub(crate) received: Vec<(Id, Duration)>,
    /// Messages that nobody published, or that were changed.
    pub(crate) foreign: u64,
    /// Its node, if the client has chosen one.
    pub(crate) node: Option<usize>,
    /// The client ended it.
    pub(crate) by_client: bool,
    /// Ends of connections that it was told, by `$disconnect`.
    pub(crate) disconnects: Vec<(String, Duration)>,
    /// Posts to it that it received.
    pub(crate) posts: Vec<u32>,
    /// Joins and leaves, in the order in which they were sent.
    pub(crate) requests: Vec<Request>,
}

/// Everything noted in a round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) publications: Vec<Publication>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) posts: Vec<Post>,
}

/// The time since a round began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Duration {
        self.0.elapsed()
    }
}

impl Id {
    /// Returns the message's text.
    pub(crate) fn text(self) -> String {
        format!("m {} {} {}", self.channel, self.publisher, self.number)
    }

    /// Reads a message's text; nothing if it is not exactly one of ours.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.strip_prefix("m ")?.splitn(3, ' ');
        let channel = words.next()?.parse().ok()?;
        let publisher = words.next()?.parse().ok()?;
        let id = Self { channel, publisher, number: words.next()?.parse().ok()? };
        (id.text() == text).then_some(id)
    }
}

impl Publication {
    /// Notes a publication that begins, in doubt until it is answered.
    pub(crate) fn begin(id: Id, posted: Duration) -> Self {
        let (answered, answer) = (Duration::MAX, Answer::InDoubt);
        Self { id, posted, answered, answer, keyed: false, local: false, node: None }
    }

    pub(crate) fn end(&mut self, answer: Answer, now: Duration) {
        (self.answer, self.answered) = (answer, now);
    }

    pub(crate) fn is_accepted(&self) -> bool {
        matches!(self.answer, Answer::Accepted(_))
    }

    /// Returns whether any part of it lies in a window.
    pub(crate) fn touches(&self, (from, to): (Duration, Duration)) -> bool {
        self.posted <= to && self.answered >= from
    }
}

impl Connection {
    /// Returns since when it has been a member of a channel.
    pub(crate) fn member_since(&self, channel: Channel) -> Option<Duration> {
        match self.joined {
            _ if channel == 0 => Some(self.opened),
            Some((group, since)) if group == channel => Some(since),
            _ => None,
        }
    }

    /// Returns whether it may receive what a channel has: from when it asked to be a member, since
    /// messages may come before the answer.
    pub(crate) fn may_receive(&self, channel: Channel, at: Duration) -> bool {
        let asked = self.asked.is_some_and(|(group, since)| group == channel && since <= at);
        asked || self.member_since(channel).is_some()
    }

    /// Returns whether it must receive a publication: posted and accepted within its membership.
    pub(crate) fn is_owed(&self, publication: &Publication) -> bool {
        publication.is_accepted()
            && self
                .member_since(publication.id.channel)
                .is_some_and(|since| since <= publication.posted)
            && self.ended.is_none_or(|(end, _)| publication.answered <= end)
    }
}

/// Returns the text of a message to one connection.
pub(crate) fn post_text(number: u32) -> String {
    format!("p {number}")
}

/// Reads the text of a message to one connection.
pub(crate) fn parse_post(text: &str) -> Option<u32> {
    text.strip_prefix("p ")?.parse().ok()
}

/// Reads the id of the connection that has ended from the text of the `$disconnect` route.
pub(crate) fn parse_disconnect(text: &str) -> Option<&str> {
    text.strip_suffix(" left").filter(|id| !id.is_empty() && !id.contains([' ', '"']))
}

/// Returns the name of a channel's group.
pub(crate) fn group_name(channel: Channel) -> String {
    format!("g{channel}")
}

/// Returns the path of the management API that publishes on a channel.
pub(crate) fn path(channel: Channel) -> String {
    match channel {
        0 => "/beta/@broadcast".to_owned(),
        group => format!("/beta/@groups/{}", group_name(group)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_give_their_id_back_and_nothing_else_does() {
        let id = Id { channel: 2, publisher: 13, number: 4_711 };
        assert_eq!(Id::parse(&id.text()), Some(id));
        for text in [
            "",
            "m 2 13",
            "m 2 13 4711 ",
            "m 2 13 04711",
            "m 2 13 +1",
            "{\"message\": \"Forbidden\"}",
        ] {
            assert_eq!(Id::parse(text), None, "{text}");
        }
    }
}
