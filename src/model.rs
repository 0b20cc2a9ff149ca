//! What the rest speaks of, and the contracts between its parts. No I/O.

pub(crate) mod broker;
pub mod id;
pub(crate) mod listing;
pub mod origin;
pub(crate) mod registry;
