//! What a process is told to do with its connections, and what it replies.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bench::fleet::{Losses, Opened, Pace};
use crate::bench::outcome::Outcome;
use crate::bench::relay::Plan;
use crate::shared::process::Processes;

/// What a process is to do with its share of the connections.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    Open { n: usize, pace: Pace },
    Join { first: usize, n: usize, groups: usize },
    Send(Box<Sending>),
    Losses,
    Close,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Sending {
    pub(super) plan: Plan,
    pub(super) server: Processes,
    pub(super) first: usize,
    pub(super) n: usize,
    /// Of the payloads.
    pub(super) tag: String,
    /// When the first message is due, by the clock that all processes share.
    pub(super) start: Duration,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Done,
    Opened(Opened),
    Sent(Box<Outcome>),
    Losses(Losses),
    Failed(String),
}
