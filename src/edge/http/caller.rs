//! Whose request it is.

use std::net::SocketAddr;

use http::Version;

use super::slots::Visit;
use super::takeover::Takeover;

/// The connection of a request, as its extension.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The other end, be it the client or a proxy.
    pub(super) peer: SocketAddr,
    /// Of the request.
    pub(super) version: Version,
    pub(super) takeover: Takeover,
    pub(super) visit: Visit,
}
