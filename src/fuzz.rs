//! Routing for `tests/fuzz`; in no build that is shipped (the feature `fuzz`).

use anyhow::anyhow;
use bytes::Bytes;
use jiff::Timestamp;

use crate::config::{Config, Sources};
use crate::model::broker::Channel;
use crate::model::id::{ConnectionId, NodeTag};
use crate::model::registry::Record;
use crate::ops::metrics::Metrics;
use crate::protocol::codec::payload_of;
use crate::routing::gateway::{Action, Gateway, Outcome, Payload};

/// A gateway, and a client that sends.
#[derive(Debug)]
pub struct Routing {
    gateway: Gateway,
    record: Record,
}

/// What a message led to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Led {
    /// The sender's answer.
    pub reply: Option<String>,
    /// What is published, and to whom: a group's name, or nothing for all.
    pub published: Option<(String, String)>,
    /// The name of a group, or of a message.
    pub name: Option<String>,
}

impl Routing {
    /// Reads a configuration.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(config: &str) -> anyhow::Result<Self> {
        let file = Some(("fuzz.toml".to_owned(), config.to_owned()));
        let config =
            Config::load(&Sources { file, ..Sources::default() }).map_err(|faults| anyhow!("{faults:?}"))?;
        let tag = NodeTag::random();
        let gateway = Gateway::new(config.routes, &config.stage, tag, &Metrics::new()?);
        let record = Record {
            id: ConnectionId::mint(tag),
            source_ip: [192, 0, 2, 1].into(),
            user_agent: None,
            user: None,
            connected_at: Timestamp::now(),
        };
        Ok(Self { gateway, record })
    }

    /// Routes a text message.
    #[must_use]
    pub fn text(&self, text: &str) -> Led {
        Led::from(self.gateway.on_message(Payload::Text(text), &self.record))
    }

    /// Routes a binary message.
    #[must_use]
    pub fn binary(&self, bytes: &[u8]) -> Led {
        Led::from(self.gateway.on_message(Payload::Binary(bytes), &self.record))
    }
}

impl From<Outcome> for Led {
    fn from(Outcome { action, reply, .. }: Outcome) -> Self {
        let mut led = Self { reply: reply.as_ref().map(payload), ..Self::default() };
        match action {
            Some(Action::Publish { channel, frame, key }) => {
                let group =
                    if let Channel::Group(group) = channel { group.to_string() } else { String::new() };
                led.published = Some((group, payload(&frame)));
                led.name = key.map(|key| key.to_string());
            }
            Some(Action::Join(group) | Action::Leave(group)) => led.name = Some(group.to_string()),
            Some(Action::Close) | None => {}
        }
        led
    }
}

fn payload(frame: &Bytes) -> String {
    payload_of(frame).map(|(_, payload)| String::from_utf8_lossy(payload).into_owned()).unwrap_or_default()
}
