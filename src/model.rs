//! What the rest speaks of, and the contracts between its parts. No I/O.

pub(crate) mod broker;
pub(crate) mod call;
pub(crate) mod groups;
pub(crate) mod handshake;
pub(crate) mod id;
pub(crate) mod listing;
pub(crate) mod origin;
pub(crate) mod phase;
pub(crate) mod registry;
pub(crate) mod trace_context;
pub(crate) mod trail;
pub(crate) mod trouble;
