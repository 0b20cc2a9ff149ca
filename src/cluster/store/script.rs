//! Scripts of Lua.

use redis::{Cmd, Script as Hash, cmd};

/// A script of Lua.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(super) load: Cmd,
    pub(super) hash: String,
}

impl Script {
    pub(crate) fn new(body: &str) -> Self {
        let load = cmd("SCRIPT").arg("LOAD").arg(body).to_owned();
        Self { load, hash: Hash::new(body).get_hash().to_owned() }
    }

    /// Returns a command that runs the script; its arguments follow.
    pub(crate) fn command(&self, keys: &[&str]) -> Cmd {
        cmd("EVALSHA").arg(&self.hash).arg(keys.len()).arg(keys).to_owned()
    }
}
