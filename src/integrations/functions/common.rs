//! What all functions of a node have in common.

use std::collections::BTreeMap;

/// See the [module documentation](self).
#[derive(Clone, Debug)]
pub(crate) struct Common {
    /// Region that functions take themselves to be in, `us-east-1` for instance.
    pub(crate) region: String,
    /// Folders in which programs are looked for, separated by colons; `None` for those of the
    /// system.
    pub(crate) path: Option<String>,
    /// Whether functions are started anew when their files change.
    pub(crate) watches: bool,
    /// More variables of one function, by its name; its own settings are stronger.
    pub(crate) environment_of: BTreeMap<String, Vec<(String, String)>>,
}
