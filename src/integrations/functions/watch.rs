//! Starts functions anew when their files change, for development.
//!
//! Changes are gathered until nothing has changed for [`QUIET`], or for [`GATHER_MAX`]. What
//! interpreters write beside the code does not count.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use super::function::Function;

/// An editor, or a build, is taken to be done after this time.
const QUIET: Duration = Duration::from_millis(100);

/// Longest time for which changes are gathered.
const GATHER_MAX: Duration = Duration::from_secs(2);

/// Folders that are written by running what is beside them.
const OWN: [&str; 3] = ["__pycache__", ".cache", ".git"];

/// Watches the folder of a function for as long as it is kept.
pub(super) struct Watch {
    _watcher: RecommendedWatcher,
    changed: Arc<Notify>,
}

impl Watch {
    /// # Errors
    /// The kernel watches no more, or the folder is not there.
    pub(super) fn start(folder: &Path) -> notify::Result<Self> {
        let changed = Arc::new(Notify::new());
        let told = Arc::clone(&changed);
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                if event.is_err() || event.is_ok_and(|event| counts(&event)) {
                    told.notify_one();
                }
            })?;
        watcher.watch(folder, RecursiveMode::Recursive)?;
        Ok(Self { _watcher: watcher, changed })
    }

    /// Renews the processes of a function until it is cancelled.
    pub(super) async fn run(self, function: Arc<Function>) {
        loop {
            self.changed.notified().await;
            let until = Instant::now() + GATHER_MAX;
            let gather = async { while timeout(QUIET, self.changed.notified()).await.is_ok() {} };
            _ = timeout_at(until, gather).await;
            tracing::info!(function = &*function.name, "its files have changed: started anew");
            function.with(|pool, _| pool.renew());
        }
    }
}

fn counts(event: &notify::Event) -> bool {
    let is_own =
        |path: &std::path::PathBuf| path.iter().any(|part| OWN.iter().any(|own| part == *own));
    !matches!(event.kind, EventKind::Access(_)) && !event.paths.iter().all(is_own)
}
