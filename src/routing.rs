//! What a message asks for: expressions, routes, and the actions they lead to. No I/O.

pub(crate) mod expression;
pub(crate) mod gateway;
pub(crate) mod route;
