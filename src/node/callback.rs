//! The ports of the way back: the management API over TLS, and hosts that are mapped.

use std::sync::Arc;

use super::error::{StartError, bind};
use crate::config::{AccessKey, Config};
use crate::edge::callback::{Callback, Environment, Hosts, Wishes};
use crate::edge::http::manage::{self, Manage};
use crate::edge::http::{self, First, Listener, Port, Routes, Secure};
use crate::limits::budget::Kind;
use crate::ops::lifecycle::Lifecycle;
use crate::ops::metrics::tls::TlsMetrics;
use crate::ops::vitals::Pulse;

/// Names of the ports, in metrics.
const MANAGEMENT: &str = "callback";
const MAPPED: &str = "hosts";

/// A free port for functions of this host.
const LOOPBACK: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

/// Ports that are bound, and what is needed to serve them.
pub(super) struct Opened {
    callback: Callback,
    management: Listener,
    /// For hosts that are mapped, if there are any.
    mapped: Option<Listener>,
}

impl Opened {
    /// Binds the ports if there are functions, or somebody has set where.
    ///
    /// # Errors
    /// A port is taken, or a certificate is not what it should be.
    pub(super) fn new(config: &Config, functions: &[Wishes]) -> Result<Option<Self>, StartError> {
        let settings = &config.callback;
        if functions.is_empty() && settings.listen.is_none() {
            return Ok(None);
        }
        let management = bind(settings.listen.unwrap_or(LOOPBACK.into()))?;
        let has_hosts = functions.iter().any(|wishes| !wishes.hosts.is_empty());
        let mapped = has_hosts.then(|| bind(LOOPBACK.into())).transpose()?;
        let mapped_at = mapped.as_ref().map(Listener::local_addr).transpose()?;
        let (stage, managed_at) = (&config.stage, management.local_addr()?);
        let callback = Callback::make(settings, stage, managed_at, mapped_at, functions)?;
        Ok(Some(Self { callback, management, mapped }))
    }

    pub(super) fn environment(&self) -> Arc<Environment> {
        Arc::clone(&self.callback.environment)
    }

    /// What functions may sign with, at any port.
    pub(super) fn keys(environment: Option<&Arc<Environment>>) -> Arc<[AccessKey]> {
        environment.map(|environment| environment.key().clone()).into_iter().collect()
    }

    /// Returns the port of the management API, and starts that of mapped hosts. Functions run for
    /// as long as the node does, and so does their way back.
    ///
    /// # Errors
    /// A metric is declared wrongly, or the kernel's.
    pub(super) fn port(
        self,
        manage: &Manage,
        lifecycle: &Lifecycle,
        config: &Config,
    ) -> Result<(Port, Routes), StartError> {
        let Self { callback, management, mapped } = self;
        let (metrics, budget) = (&manage.telemetry.metrics, manage.hub.budget());
        let (counted, memory) = (TlsMetrics::register(metrics)?, budget.gauge(Kind::Http, 0));
        let routes =
            http::counted_routes(manage::routes(Arc::new(manage.for_signed())), memory.clone());
        let secure = Secure { acceptor: callback.acceptor, handshakes: counted.port(MANAGEMENT) };
        management.bound_kernel(budget.limit())?;
        tracing::info!(address = %management.local_addr()?, "listening for functions");
        let port = Port {
            listener: management,
            accepted: metrics.accepted.with_label_values(&[MANAGEMENT]),
            first: First::Tls(secure),
            stop: lifecycle.ending(),
            pulse: Pulse::default(),
        };
        if let (Some((acceptor, addresses)), Some(mapped)) = (callback.hosts, mapped) {
            mapped.bound_kernel(budget.limit())?;
            let hosts = Hosts {
                acceptor,
                addresses,
                handshake_timeout: config.limits.handshake_timeout,
                lifecycle: lifecycle.clone(),
                memory,
                handshakes: counted.port(MAPPED),
                metrics: counted,
            };
            lifecycle.spawn_until_end("mapped hosts", hosts.serve(mapped));
        }
        Ok((port, routes))
    }
}

#[cfg(test)]
mod tests;
