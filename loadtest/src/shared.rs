//! What the load generator and the harness of faults and abuse share: clients, servers, figures.

pub(crate) mod args;
pub(crate) mod child;
pub(crate) mod conn;
pub(crate) mod envelope;
pub(crate) mod faketime;
pub(crate) mod frame;
pub(crate) mod gateway;
pub(crate) mod handshake;
pub(crate) mod histogram;
pub(crate) mod http;
pub(crate) mod node;
pub(crate) mod numbers;
pub(crate) mod output;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod progress;
pub(crate) mod random;
pub(crate) mod redis;
pub(crate) mod socket;
pub(crate) mod target;
pub(crate) mod wait;
pub(crate) mod workspace;
