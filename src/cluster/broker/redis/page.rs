//! A page of a channel, as Redis keeps it: asked for, read and checked here alone, since others may
//! write to Redis too.

use bytes::Bytes;
use redis::{Cmd, FromRedisValue as _, Value};

use super::track::{Epoch, Position, Reading};
use crate::cluster::store::{Script, Store, StoreError, is_epoch};
use crate::protocol::codec;

/// How much is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// The offset after which to read; `None` if only the channel's place is wanted.
    pub(super) after: Option<u64>,
    pub(super) messages: usize,
    /// The last message may pass it.
    pub(super) bytes: usize,
}

/// Asks for pages.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    pub(super) script: Script,
    /// Longest message that is one.
    message_bytes: usize,
}

impl Pages {
    pub(super) fn new(message_bytes: usize) -> Self {
        Self { script: Script::new(include_str!("read.lua")), message_bytes }
    }

    /// Returns the command that reads a page of a channel.
    pub(super) fn command(&self, name: &str, Wanted { after, messages, bytes }: Wanted) -> Cmd {
        let mut command = self.script.command(&[&Store::meta(name), &Store::stream(name)]);
        command.arg(after.unwrap_or(0)).arg(if after.is_some() { messages } else { 0 });
        command.arg(bytes).arg(self.message_bytes + codec::SENT_HEADER_MAX);
        command
    }

    /// Reads its answer. What is no frame of a message is there without one.
    pub(super) fn read(&self, answer: Value) -> Result<Reading<Bytes>, StoreError> {
        type Meta = (Option<String>, Option<u64>, Option<String>);
        let ((epoch, offset, epochs), found, is_cut) =
            <(Meta, Vec<(String, Vec<u8>)>, bool)>::from_redis_value(answer)?;
        let messages = found.into_iter().filter_map(|(id, frame)| {
            let offset = id.split('-').next()?.parse().ok()?;
            let is_ours = codec::is_message(&frame, self.message_bytes);
            Some((offset, is_ours.then(|| Bytes::from(frame))))
        });
        let now = Position {
            offset: epoch.as_ref().and(offset).unwrap_or(0),
            epoch: epoch.unwrap_or_default(),
        };
        let epochs = epochs.as_deref().unwrap_or_default();
        Ok(Reading {
            now,
            epochs: epochs.split(' ').filter_map(read_epoch).collect(),
            messages: messages.collect(),
            is_cut,
        })
    }
}

/// Reads `EPOCH@OFFSET@TIME`, or without a time, as it was once written; `None` for what is cut
/// off.
fn read_epoch(text: &str) -> Option<Epoch> {
    let mut parts = text.split('@');
    let name = parts.next().filter(|name| is_epoch(name))?.to_owned();
    let mut number = || parts.next()?.parse().ok();
    Some(Epoch { name, after: number()?, since: number().unwrap_or(0) })
}
