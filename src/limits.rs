//! What one client may cost, and what all may cost together.

pub(crate) mod addresses;
pub(crate) mod budget;
pub(crate) mod names;
pub(crate) mod places;
pub(crate) mod rate;
pub(crate) mod ticket;
