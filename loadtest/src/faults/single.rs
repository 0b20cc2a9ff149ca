//! One fault at a time.

pub(crate) mod acts;
pub(crate) mod report;
pub(crate) mod round;
pub(crate) mod table;
