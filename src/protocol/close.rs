//! Why a connection ends: the one table of close codes, reasons and labels.
//!
//! Only this file spells a code. A code that may not be sent (1005, 1006) only ever reaches
//! `$disconnect` and the metrics.

use crate::protocol::codec::Violation;

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Initiator {
    /// The client, or the network on its side.
    Client,
    /// This node.
    Server,
}

impl Initiator {
    /// Returns the value of the metric label `initiator`.
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Close {
    /// The client sent a close frame with this code and reason.
    Client {
        /// As received; RFC 6455 §7.4 has been checked.
        code: u16,
        /// As received, at most 123 bytes.
        reason: Box<str>,
    },
    /// The client sent a close frame without a code.
    ClientNoStatus,
    /// The TCP stream ended without a close frame.
    Lost,
    /// A route with the integration `close`.
    Route,
    /// `DELETE @connections`.
    Deleted,
    /// No message in either direction for the idle time-out.
    Idle,
    /// Open for the longest time allowed.
    MaxLifetime,
    /// The node is shutting down.
    Drain,
    /// The client did not answer a ping.
    PingTimeout,
    /// The client's outbox passed its bound in bytes or age.
    SlowConsumer,
    /// The node's memory runs out, and the connection holds some of it.
    Memory,
    /// The client broke the protocol or a limit.
    Violation(Violation),
}

impl Close {
    /// Returns one of each kind; of those with a client's code, the two that ordinary clients send.
    pub(crate) fn kinds() -> [Self; 16] {
        let client = |code| Self::Client { code, reason: "".into() };
        [
            client(1000),
            client(1001),
            Self::ClientNoStatus,
            Self::Lost,
            Self::Route,
            Self::Deleted,
            Self::Idle,
            Self::MaxLifetime,
            Self::Drain,
            Self::PingTimeout,
            Self::SlowConsumer,
            Self::Memory,
            Self::Violation(Violation::Protocol("")),
            Self::Violation(Violation::BinaryRefused),
            Self::Violation(Violation::InvalidUtf8),
            Self::Violation(Violation::TooBig),
        ]
    }

    /// Returns the close code (RFC 6455 §7.4), as `$disconnect` is told.
    #[must_use]
    pub(crate) fn code(&self) -> u16 {
        match self {
            Self::Client { code, .. } => *code,
            Self::Route | Self::Deleted => 1000,
            Self::Idle | Self::MaxLifetime | Self::Drain => 1001,
            Self::ClientNoStatus => 1005,
            Self::Lost => 1006,
            Self::SlowConsumer => 1008,
            Self::PingTimeout => 1011,
            Self::Memory => 1013,
            Self::Violation(Violation::Protocol(_)) => 1002,
            Self::Violation(Violation::BinaryRefused) => 1003,
            Self::Violation(Violation::InvalidUtf8) => 1007,
            Self::Violation(Violation::TooBig) => 1009,
        }
    }

    /// Returns the reason that goes with the code, at most 123 bytes.
    #[must_use]
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Client { reason, .. } => reason,
            Self::ClientNoStatus => "Client-side close frame status not set",
            Self::Lost | Self::Route | Self::Deleted => "",
            Self::Idle | Self::MaxLifetime | Self::Drain => "Going away",
            Self::SlowConsumer => "slow consumer",
            Self::PingTimeout => "ping timeout",
            Self::Memory => "out of memory, try again later",
            Self::Violation(Violation::Protocol(what)) => what,
            Self::Violation(Violation::BinaryRefused) => "binary frames are not supported",
            Self::Violation(Violation::InvalidUtf8) => "invalid UTF-8",
            Self::Violation(Violation::TooBig) => "Message too big",
        }
    }

    /// Returns the value of the metric label `reason`.
    #[must_use]
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Client { .. } | Self::ClientNoStatus => "client",
            Self::Lost => "lost",
            Self::Route => "route",
            Self::Deleted => "deleted",
            Self::Idle => "idle",
            Self::MaxLifetime => "max_lifetime",
            Self::Drain => "drain",
            Self::PingTimeout => "ping_timeout",
            Self::SlowConsumer => "slow_consumer",
            Self::Memory => "memory",
            Self::Violation(Violation::Protocol(_)) => "protocol_error",
            Self::Violation(Violation::BinaryRefused) => "binary_refused",
            Self::Violation(Violation::InvalidUtf8) => "invalid_utf8",
            Self::Violation(Violation::TooBig) => "too_big",
        }
    }

    /// Returns the value of the metric label `code`: codes that clients invent share one value, so
    /// that labels are a closed set.
    #[must_use]
    pub(crate) fn code_label(&self) -> &'static str {
        match self.code() {
            1000 => "1000",
            1001 => "1001",
            1002 => "1002",
            1003 => "1003",
            1005 => "1005",
            1006 => "1006",
            1007 => "1007",
            1008 => "1008",
            1009 => "1009",
            1011 => "1011",
            1013 => "1013",
            _ => "other",
        }
    }

    /// Returns who ended the connection.
    #[must_use]
    pub(crate) fn initiator(&self) -> Initiator {
        match self {
            Self::Client { .. } | Self::ClientNoStatus | Self::Lost => Initiator::Client,
            _ => Initiator::Server,
        }
    }
}
