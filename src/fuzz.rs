//! What `tests/fuzz` feeds; in no build that is shipped (the feature `fuzz`).

use std::sync::Arc;

use anyhow::anyhow;
use bytes::Bytes;
use jiff::Timestamp;

use crate::config::{Config, Sources};
use crate::model::broker::Channel;
use crate::model::id::{ConnectionId, NodeTag};
use crate::model::registry::Record;
use crate::ops::metrics::Metrics;
use crate::protocol::codec::{Decoder, FrameLimits, Message, payload_of};
use crate::routing::gateway::{Action, Gateway, Outcome, Payload};

/// Longest frame and message that are decoded, in bytes.
pub const FRAME_BYTES: usize = 4_096;
/// See [`FRAME_BYTES`].
pub const MESSAGE_BYTES: usize = 8_192;

/// A gateway, and a client that sends.
#[derive(Debug)]
pub struct Routing {
    gateway: Gateway,
    record: Arc<Record>,
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
        let config = Config::load(&Sources { file, ..Sources::default() })
            .map_err(|faults| anyhow!("{faults:?}"))?;
        let tag = NodeTag::random();
        let gateway = Gateway::new(config.routes, &config.stage, tag, &Metrics::new()?);
        let record = Arc::new(Record {
            id: ConnectionId::mint(tag),
            source_ip: [192, 0, 2, 1].into(),
            user_agent: None,
            user: None,
            connected_at: Timestamp::now(),
        });
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
                let group = if let Channel::Group(group) = channel {
                    group.to_string()
                } else {
                    String::new()
                };
                led.published = Some((group, payload(&frame)));
                led.name = key.map(|key| key.to_string());
            }
            Some(Action::Join(group) | Action::Leave(group)) => led.name = Some(group.to_string()),
            // A configuration to be fuzzed names no back end.
            Some(Action::Call(_) | Action::Close) | None => {}
        }
        led
    }
}

fn payload(frame: &Bytes) -> String {
    payload_of(frame)
        .map(|(_, payload)| String::from_utf8_lossy(payload).into_owned())
        .unwrap_or_default()
}

/// A message that was decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// `text`, `binary`, `ping`, `pong` or `close`.
    pub kind: &'static str,
    /// Its payload; of a close frame the reason.
    pub payload: Vec<u8>,
}

/// Decodes frames that come in pieces of `piece` bytes; returns the messages before the first
/// violation, and the violation.
#[must_use]
pub fn decode(bytes: &[u8], piece: usize, binary: bool) -> (Vec<Decoded>, Option<String>) {
    let limits = FrameLimits { frame_bytes: FRAME_BYTES, message_bytes: MESSAGE_BYTES, binary };
    let (mut decoder, mut messages) = (Decoder::default(), Vec::new());
    for chunk in bytes.chunks(piece.max(1)) {
        let mut chunk = chunk.to_vec();
        let mut input = chunk.as_mut_slice();
        loop {
            match decoder.next(&mut input, &limits) {
                Ok(Some(message)) => messages.push(message.into()),
                Ok(None) => break,
                Err(violation) => return (messages, Some(format!("{violation:?}"))),
            }
        }
        assert!(input.is_empty(), "all input is taken");
    }
    (messages, None)
}

impl From<Message<'_>> for Decoded {
    fn from(message: Message<'_>) -> Self {
        let (kind, payload) = match message {
            Message::Text(text) => ("text", text.into_owned().into_bytes()),
            Message::Binary(bytes) => ("binary", bytes.into_owned()),
            Message::Ping(bytes) => ("ping", bytes.into_owned()),
            Message::Pong(bytes) => ("pong", bytes.into_owned()),
            Message::Close(close) => (
                "close",
                close.map_or_else(Vec::new, |(_, reason)| reason.into_owned().into_bytes()),
            ),
        };
        Self { kind, payload }
    }
}
