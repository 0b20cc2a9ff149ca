//! The load generator, and the comparison of servers.
//!
//! Reading order: `fanout`, `latency`, `idle`, `storm`, `post`, `floor`, `cluster`, `compare` (the
//! commands) → `clients` (connections of one process or several) → `relay` (one measured run) →
//! `fleet` (all sockets of a process) → `sequence` (checks deliveries) → `report` (keeps the
//! figures), `goals` (judges them by the names of `works`).

pub(crate) mod args;
pub(crate) mod clients;
pub(crate) mod cluster;
pub(crate) mod compare;
pub(crate) mod dialect;
pub(crate) mod fanout;
pub(crate) mod fleet;
pub(crate) mod floor;
pub(crate) mod goals;
pub(crate) mod idle;
pub(crate) mod join;
pub(crate) mod latency;
pub(crate) mod markdown;
pub(crate) mod outcome;
pub(crate) mod output;
pub(crate) mod payload;
pub(crate) mod plot;
pub(crate) mod post;
pub(crate) mod relay;
pub(crate) mod report;
pub(crate) mod sequence;
pub(crate) mod servers;
pub(crate) mod sigv4;
pub(crate) mod storm;
pub(crate) mod works;
