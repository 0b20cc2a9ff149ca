//! The brokers: within one process, and over Redis.

#[cfg(test)]
mod conformance;
pub(crate) mod memory;
pub(crate) mod redis;
