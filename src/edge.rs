//! The ports: connections are accepted, requests read and answered, clients let in.

pub(crate) mod admission;
pub(crate) mod http;
pub(crate) mod sigv4;
