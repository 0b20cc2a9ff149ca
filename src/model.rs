//! What the rest speaks of, and the contracts between its parts. No I/O.

pub(crate) mod broker;
pub(crate) mod groups;
pub mod id;
pub(crate) mod listing;
pub mod origin;
pub(crate) mod phase;
pub(crate) mod registry;
pub(crate) mod trace_context;
pub(crate) mod trouble;
