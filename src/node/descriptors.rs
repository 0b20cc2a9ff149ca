//! Open files: a node promises no more connections than the kernel lets it have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Ports with HTTP connections.
const PORTS: usize = 2;
/// Descriptors that are not for connections.
const OWN: usize = 64;

/// Raises the soft limit to the hard one.
pub(crate) fn raise() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "raising the limit of open files");
    }
}

/// Promises no more connections than the limit allows.
pub(crate) fn fit(config: &mut Config) {
    if let Some(limit) = getrlimit(Resource::Nofile).current
        && let Some(room) = fit_to(config, limit)
    {
        tracing::warn!(
            open_files = limit,
            max_connections = room,
            "fewer connections than configured: raise the limit of open files (ulimit -n, LimitNOFILE)"
        );
    }
}

/// The same for the hard limit; returns how many connections it allows if they are fewer.
pub(crate) fn fit_to_most(config: &mut Config) -> Option<usize> {
    fit_to(config, getrlimit(Resource::Nofile).maximum?)
}

fn fit_to(config: &mut Config, open_files: u64) -> Option<usize> {
    let open_files = usize::try_from(open_files).unwrap_or(usize::MAX);
    let limits = &mut config.limits;
    limits.max_http_connections = limits.max_http_connections.min((open_files / 8).max(1));
    let room = open_files.saturating_sub(PORTS * limits.max_http_connections + OWN).max(1);
    let is_short = limits.max_connections > room;
    limits.max_connections = limits.max_connections.min(room);
    is_short.then_some(room)
}
