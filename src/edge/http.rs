//! HTTP on both ports: the accept loop, and answers in the form of API Gateway.
//!
//! Only `http` knows warp. The accept loop is ours, so that time-outs, the number of connections
//! and TCP options are too.

pub(crate) use self::listener::Listener;
pub(crate) use self::routes::{Routes, beside, counted_routes, routes};
pub(crate) use self::server::{First, Guard, Port, Secure, Server};
pub(crate) use self::slots::{Bounds, BoundsSource};

pub(crate) mod admin;
mod answer;
mod caller;
pub(crate) mod connect;
mod conversation;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod doors;
mod elsewhere;
mod handshake;
mod listener;
pub(crate) mod listing;
mod local;
pub(crate) mod manage;
mod percent;
pub(crate) mod proxies;
mod proxy_header;
mod request;
pub(crate) mod routes;
mod server;
mod slots;
mod stream;
mod takeover;
mod upgrade;
mod watched;
