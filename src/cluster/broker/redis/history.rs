//! Reads what a channel's stream still holds, for callers of the management API.

use super::page::{Pages, Wanted};
use crate::cluster::store::{Store, StoreError};
use crate::model::broker::{Channel, History, Offset};

/// Messages read at a time.
const BATCH: usize = 64;
/// A page ends with the message that makes it this long.
const BYTES: usize = 1 << 20;

/// Reads at most `limit` messages after an offset.
pub(super) async fn read(
    store: &Store,
    pages: &Pages,
    channel: &Channel,
    after: Offset,
    limit: usize,
) -> Result<History, StoreError> {
    let name = store.channel(channel);
    let mut history = History { epoch: String::new(), last: Offset(0), messages: Vec::new() };
    let (mut after, mut bytes) = (after.0, 0);
    loop {
        let messages = BATCH.min(limit - history.messages.len());
        let wanted = Wanted { after: Some(after), messages, bytes: BYTES - bytes };
        let answer = store.ask_script(&pages.script, &name, pages.command(&name, wanted)).await?;
        let reading = pages.read(answer)?;
        if !history.messages.is_empty() && reading.now.epoch != history.epoch {
            // What follows may begin before the end of what was read.
            return Ok(history);
        }
        (history.epoch, history.last) = (reading.now.epoch, Offset(reading.now.offset));
        let is_end = !reading.is_cut || reading.messages.is_empty();
        for (offset, frame) in
            reading.messages.into_iter().filter(|(offset, _)| *offset <= reading.now.offset)
        {
            after = offset;
            let Some(frame) = frame else { continue };
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
