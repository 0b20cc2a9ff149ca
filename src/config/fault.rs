//! What is wrong with a configuration, and how it is said.

use std::fmt;

/// Most faults that are listed; whoever has more has named the wrong file.
const FAULTS_MAX: usize = 100;

/// Something wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Where: `FILE:LINE`, the variable, or the flag.
    pub(crate) place: String,
    /// Which setting, dotted; empty for a fault of the document as a whole.
    pub(crate) key: String,
    /// What is wrong, and what to do.
    pub(crate) message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.place, self.message),
            key => write!(f, "{}: {key}: {}", self.place, self.message),
        }
    }
}

impl Fault {
    /// Lists faults, a line each.
    pub(crate) fn list(faults: &[Self]) -> String {
        let mut lines: Vec<String> = faults.iter().take(FAULTS_MAX).map(ToString::to_string).collect();
        if faults.len() > FAULTS_MAX {
            lines.push(format!("… and {} more", faults.len() - FAULTS_MAX));
        }
        format!("the configuration has {} fault(s):\n{}", faults.len(), lines.join("\n"))
    }
}
