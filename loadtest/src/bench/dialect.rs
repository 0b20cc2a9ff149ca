//! The texts that a client sends to a server and receives from it.

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::shared::envelope::Envelope;
use crate::shared::gateway;

/// A protocol by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// Gatecast's built-in routes: JSON out, bare data in
    Gatecast,
    /// Socket.IO 4 over WebSocket: events `sendMessage`, `sendToGroup`, `joinGroup`; any event in
    Socketio,
}

/// The texts of a protocol, with `{payload}` and `{group}` in them.
#[derive(Clone, Debug)]
pub(crate) struct Dialect {
    pub(crate) message: String,
    pub(crate) group_message: String,
    pub(crate) join: String,
    /// The payload that confirms a join.
    pub(crate) join_reply: String,
    envelope: Envelope,
}

impl Name {
    /// Returns the name as the command line has it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Gatecast => "gatecast",
            Self::Socketio => "socketio",
        }
    }

    pub(crate) fn dialect(self) -> Dialect {
        let (message, group_message, join, envelope) = match self {
            Self::Gatecast => (
                gateway::send_to_all("{payload}"),
                gateway::send_to_group("{group}", "{payload}"),
                gateway::join("{group}"),
                Envelope::Plain,
            ),
            Self::Socketio => (
                r#"42["sendMessage","{payload}"]"#.to_owned(),
                r#"42["sendToGroup","{group}","{payload}"]"#.to_owned(),
                r#"42["joinGroup","{group}"]"#.to_owned(),
                Envelope::SocketIo,
            ),
        };
        Dialect { message, group_message, join, join_reply: "joined {group}".to_owned(), envelope }
    }
}

impl Dialect {
    /// Checks that messages have a place for the payload.
    pub(crate) fn check(self) -> Result<Self> {
        for template in [&self.message, &self.group_message] {
            ensure!(template.contains("{payload}"), "template `{template}` has no {{payload}}");
        }
        Ok(self)
    }

    pub(crate) fn envelope(&self) -> Envelope {
        self.envelope
    }

    /// Returns a message to everybody.
    pub(crate) fn message(&self, payload: &str) -> String {
        self.message.replace("{payload}", payload)
    }

    /// Returns a message to a group.
    pub(crate) fn group_message(&self, group: usize, payload: &str) -> String {
        with_group(&self.group_message, group).replace("{payload}", payload)
    }

    /// Returns the request to join a group.
    pub(crate) fn join(&self, group: usize) -> String {
        with_group(&self.join, group)
    }

    /// Returns the payload that confirms it.
    pub(crate) fn join_reply(&self, group: usize) -> String {
        with_group(&self.join_reply, group)
    }
}

fn with_group(text: &str, group: usize) -> String {
    text.replace("{group}", &format!("g{group}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_and_must_have_a_place() {
        let dialect = Name::Gatecast.dialect();
        let message = r#"{"action":"sendToGroup","group":"g3","data":"abc"}"#;
        assert_eq!(dialect.group_message(3, "abc"), message);
        assert_eq!(
            (dialect.join_reply(7), dialect.envelope().has_welcome()),
            ("joined g7".to_owned(), false)
        );
        assert!(Dialect { message: "nothing".to_owned(), ..dialect }.check().is_err());
    }
}
