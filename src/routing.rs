//! What a message asks for: expressions, routes, and the actions they lead to. No I/O.

pub mod expression;
pub(crate) mod gateway;
pub mod route;
