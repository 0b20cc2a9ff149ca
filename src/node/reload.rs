//! Reads the configuration again at SIGHUP, and puts a new snapshot in the place of the old.
//!
//! One reading at a time: signals that come meanwhile lead to one more. A file that cannot be read
//! in time is refused like one with faults; the node serves on in either case.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::descriptors;
use crate::config::{Config, Fault, Reloaded, Snapshot, Sources};
use crate::model::id::NodeTag;
use crate::model::phase::Phase;
use crate::ops::lifecycle::Lifecycle;
use crate::ops::metrics::{Metrics, ReloadOutcome, as_i64};
use crate::shard::hub::Hub;

/// Longest time to read and check the configuration.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A copy begins so, and a full disk ends so: it must not set all defaults.
const EMPTY: &str = "the file is empty; put a comment into it if all defaults are meant";

/// See the [module documentation](self).
pub(super) struct Reloader {
    pub(super) hang_ups: Signal,
    pub(super) sources: Sources,
    /// In force now.
    pub(super) config: Arc<Config>,
    pub(super) snapshots: watch::Sender<Arc<Snapshot>>,
    pub(super) tag: NodeTag,
    pub(super) hub: Arc<Hub>,
    pub(super) lifecycle: Lifecycle,
    pub(super) metrics: Arc<Metrics>,
    /// A reading that took too long, and may go on for ever.
    pub(super) stuck: Option<JoinHandle<Reading>>,
}

/// What was read, or a line for each fault.
type Reading = Result<Reloaded, Vec<String>>;

impl Reloader {
    /// Runs until no signal can come any more; never, as a rule.
    pub(super) async fn run(mut self) {
        while self.hang_ups.recv().await.is_some() {
            if self.lifecycle.phase() == Phase::Draining {
                tracing::info!(signal = "SIGHUP", "ignored: the node is shutting down");
                continue;
            }
            let outcome = match self.read().await {
                Ok(reloaded) => self.apply(reloaded),
                Err(faults) => {
                    faults.iter().for_each(|fault| tracing::error!("{fault}"));
                    tracing::error!(
                        "the configuration is refused, and all settings stay as they were"
                    );
                    ReloadOutcome::Refused
                }
            };
            self.metrics.reloads.count(outcome);
        }
        std::future::pending::<()>().await;
    }

    async fn read(&mut self) -> Reading {
        if self.stuck.as_ref().is_some_and(|stuck| !stuck.is_finished()) {
            return Err(vec!["the file is still being read, since an earlier signal".to_owned()]);
        }
        let (mut sources, config) = (self.sources.clone(), Arc::clone(&self.config));
        let mut reading = tokio::task::spawn_blocking(move || {
            sources.read_file().map_err(|problem| vec![problem])?;
            if let Some((name, text)) = &sources.file
                && text.is_empty()
            {
                return Err(vec![format!("{name}: {EMPTY}")]);
            }
            config.reload(&sources).map_err(|faults| Fault::lines(&faults))
        });
        match tokio::time::timeout(TIMEOUT, &mut reading).await {
            Ok(read) => read.unwrap_or_else(|error| Err(vec![error.to_string()])),
            Err(_) => {
                self.stuck = Some(reading);
                Err(vec![format!("the file could not be read within {TIMEOUT:?}")])
            }
        }
    }

    fn apply(
        &mut self,
        Reloaded { mut config, applied, needs_restart }: Reloaded,
    ) -> ReloadOutcome {
        for setting in needs_restart {
            tracing::warn!(
                setting,
                "has changed, but needs a restart; it stays as it was until then"
            );
        }
        if applied.is_empty() {
            tracing::info!(
                "the configuration was read again; nothing that a reload applies has changed"
            );
            return ReloadOutcome::Unchanged;
        }
        descriptors::fit(&mut config);
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        warn_of_no_address_limits(&config);
        let snapshot = Arc::new(Snapshot::new(&config, self.tag, &self.metrics));
        self.metrics.connections_limit.set(as_i64(config.limits.max_connections));
        self.snapshots.send_replace(Arc::clone(&snapshot));
        self.hub.adopt(&snapshot);
        self.config = Arc::new(config);
        tracing::info!(settings = ?applied, "the configuration was read again and applied");
        ReloadOutcome::Applied
    }
}

/// Says that one client may take everybody's share, where that is so and nobody has decided it.
pub(super) fn warn_of_no_address_limits(config: &Config) {
    if config.limits.per_address.is_unset && !config.listen.ip().is_loopback() {
        tracing::warn!(
            listen = %config.listen,
            "no bounds on what one address may have: set trusted_proxies if there is a load balancer in front, \
             otherwise limits.handshake_rate_per_address and limits.connections_per_address (a number, or \"off\")"
        );
    }
}
