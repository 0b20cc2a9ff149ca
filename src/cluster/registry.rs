//! The registries, and what ends connections once: leases, the watch over others, the reaper.

pub(crate) mod end;
pub(crate) mod ends;
pub(crate) mod memory;
mod notices;
pub(crate) mod reaper;
pub(crate) mod redis;
pub(crate) mod tenure;
#[cfg(test)]
mod tests;
pub(crate) mod watch;
