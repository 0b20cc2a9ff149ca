//! Falsifies a run on purpose, to prove that the harness notices: each must make a run fail.

use clap::ValueEnum;

use super::log::{Connection, Log};

/// What to falsify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sabotage {
    /// Forget one message that was received
    Forget,
    /// Note one received message twice
    Repeat,
    /// Note two received messages in the other order
    Swap,
    /// Let nodes keep only one message of a channel to repair gaps from
    Trim,
}

impl Sabotage {
    /// Falsifies the notes of the connection that received most.
    pub(crate) fn falsify(self, log: &mut Log) {
        let longest = log.connections.iter_mut().max_by_key(|connection| connection.received.len());
        let Some(Connection { received, .. }) = longest else { return };
        let middle = received.len() / 2;
        let first = received.get(middle).map(|(id, _)| id.channel);
        let next = (middle + 1..received.len())
            .find(|at| received.get(*at).map(|(id, _)| id.channel) == first);
        match (self, received.get(middle).copied(), next) {
            (Self::Forget, Some(_), _) => drop(received.remove(middle)),
            (Self::Repeat, Some(one), _) => received.push(one),
            (Self::Swap, Some(_), Some(next)) => received.swap(middle, next),
            _ => {}
        }
    }
}
