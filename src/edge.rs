//! The ports: connections are accepted, requests read and answered, clients let in.

pub(crate) mod admission;
pub(crate) mod callback;
pub(crate) mod http;
pub(crate) mod sigv4;
pub(crate) mod tls;
