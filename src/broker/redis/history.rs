//! Reads what a channel's stream still holds, for callers of the management API.

use super::reader::reading;
use crate::broker::{Channel, History, Offset};
use crate::store::{Script, Store, StoreError};

/// Messages read at a time: 2 MB of the longest.
const BATCH: usize = 16;
/// A page ends with the message that makes it so long.
const BYTES: usize = 1 << 20;

/// Reads at most `limit` messages after an offset.
pub(super) async fn read(
    store: &Store,
    channel: &Channel,
    after: Offset,
    limit: usize,
) -> Result<History, StoreError> {
    let name = store.channel(channel);
    let script = Script::new(include_str!("read.lua"));
    let mut history = History { epoch: String::new(), last: Offset(0), messages: Vec::new() };
    let (mut after, mut bytes) = (after.0, 0);
    loop {
        let count = BATCH.min(limit - history.messages.len());
        let mut command = script.command(&[&Store::meta(&name), &Store::stream(&name)]);
        command.arg(format!("{after}-0")).arg(count);
        let reading = reading(store.ask_script(&script, &name, command).await?)?;
        if !history.messages.is_empty() && reading.now.epoch != history.epoch {
            // What follows may begin before the end of what was read.
            return Ok(history);
        }
        (history.epoch, history.last) = (reading.now.epoch, Offset(reading.now.offset));
        let is_end = reading.messages.len() < count;
        for (offset, frame) in reading.messages {
            after = offset;
            bytes += frame.len();
            history.messages.push((Offset(offset), frame));
            if bytes >= BYTES {
                return Ok(history);
            }
        }
        if is_end || history.messages.len() >= limit {
            return Ok(history);
        }
    }
}
