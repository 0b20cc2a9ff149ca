//! WebSocket as RFC 6455 has it: frames and close codes. No I/O.

pub mod close;
pub mod codec;
