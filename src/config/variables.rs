//! The variables of the environment that are settings, and their names.

use std::collections::BTreeSet;

/// Prefix of every variable.
pub(super) const PREFIX: &str = "GATECAST_";

/// Returns the variable of a dotted key.
pub(super) fn variable(path: &str) -> String {
    let name = path.replace(|char: char| !char.is_ascii_alphanumeric(), "_").to_uppercase();
    format!("{PREFIX}{name}")
}

/// Tells of each variable that nothing asked for. They are no faults: Kubernetes sets some of its
/// own for a service that is called `gatecast`, which are left out.
pub(super) fn unknown<'n>(
    names: impl Iterator<Item = &'n str>,
    known: &BTreeSet<String>,
) -> impl Iterator<Item = String> {
    names.filter(|name| !known.contains(*name)).filter_map(|name| {
        // What all begin with makes none of them alike.
        let own = name.strip_prefix(PREFIX)?;
        if own.starts_with("PORT") || own.starts_with("SERVICE_") {
            return None;
        }
        let near = nearest(own, known.iter().filter_map(|name| name.strip_prefix(PREFIX)));
        let hint = near.map(|near| format!("; did you mean {PREFIX}{near}?")).unwrap_or_default();
        Some(format!("the variable {name} is not a setting{hint}"))
    })
}

/// Returns what a name that is not known may have been meant to be.
pub(super) fn nearest<K: AsRef<str>>(name: &str, known: impl IntoIterator<Item = K>) -> Option<K> {
    let likeness =
        known.into_iter().map(|known| (strsim::jaro_winkler(known.as_ref(), name), known));
    let near =
        likeness.filter(|(likeness, _)| *likeness > 0.8).max_by(|(a, _), (b, _)| a.total_cmp(b));
    near.map(|(_, known)| known)
}
