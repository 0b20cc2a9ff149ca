//! Back ends: code that is not ours, and what calls it.

mod breaker;
pub(crate) mod client;
pub(crate) mod credentials;
pub(crate) mod dispatcher;
pub(crate) mod event;
pub(crate) mod functions;
pub(crate) mod http;
pub(crate) mod invoke;
pub(crate) mod lambda;
mod lane;
pub(crate) mod queue;
mod result;
pub(crate) mod stream;
pub(crate) mod target;
