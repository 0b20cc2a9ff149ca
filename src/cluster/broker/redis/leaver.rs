//! Lets a channel go with its stream once its last listener has left.
//!
//! What a channel counts is kept for long while anybody listens. This makes it short again, so that
//! names which clients choose leave nothing behind for longer than their messages; where it fails,
//! the count ends by itself, later.

use tokio::sync::mpsc;

use crate::cluster::store::{Call, Script, Store};

/// Channels in one pipeline.
const BATCH: usize = 512;

/// See the [module documentation](self).
pub(super) struct Leaver {
    pub(super) store: Store,
    /// Milliseconds for which the count is kept then.
    pub(super) age: i64,
}

impl Leaver {
    /// Runs until nobody can leave any more.
    pub(super) async fn run(self, mut left: mpsc::Receiver<String>) {
        let script = Script::new(include_str!("leave.lua"));
        let mut names = Vec::new();
        while left.recv_many(&mut names, BATCH).await > 0 {
            let call = |name: String| {
                let mut command = script.command(&[&Store::meta(&name)]);
                command.arg(&name).arg(self.store.listeners_command()).arg(self.age);
                Call::new(name, command)
            };
            let calls: Vec<Call> = names.drain(..).map(call).collect();
            for outcome in self.store.run_all(Some(&script), &calls).await {
                if let Err(error) = outcome.result {
                    tracing::debug!(%error, "letting a channel go");
                }
            }
        }
    }
}
