//! What a node shares with others: messages, records and calls, through Redis or within itself.

pub(crate) mod backend;
pub(crate) mod broker;
pub(crate) mod nodes;
pub(crate) mod peers;
pub(crate) mod registry;
pub(crate) mod store;
