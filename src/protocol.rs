//! WebSocket as RFC 6455 has it: frames and close codes. No I/O.

pub(crate) mod close;
pub(crate) mod codec;
