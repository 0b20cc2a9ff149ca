//! What is wrong with a configuration, and how it is said.

use std::fmt;

/// Most faults that are listed; whoever has more has named the wrong file.
const FAULTS_MAX: usize = 100;
/// Most that is shown of a key and of a message, in bytes: either may have a whole file in it.
const KEY_MAX: usize = 256;
const MESSAGE_MAX: usize = 1_024;

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
        let message = line(&self.message, MESSAGE_MAX);
        match line(&self.key, KEY_MAX).as_str() {
            "" => write!(f, "{}: {message}", self.place),
            key => write!(f, "{}: {key}: {message}", self.place),
        }
    }
}

/// Returns a text as one line of the log, cut where it is too long.
fn line(text: &str, most: usize) -> String {
    let shown = text.get(..text.floor_char_boundary(most)).unwrap_or_default();
    let mut line = String::new();
    for character in shown.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    if shown.len() < text.len() {
        line.push('…');
    }
    line
}

impl Fault {
    /// Lists faults.
    pub(crate) fn list(faults: &[Self]) -> String {
        format!(
            "the configuration has {} fault(s):\n{}",
            faults.len(),
            Self::lines(faults).join("\n")
        )
    }

    /// Returns a line for each of the first faults, and one for those that are left out.
    pub(crate) fn lines(faults: &[Self]) -> Vec<String> {
        let mut lines: Vec<String> =
            faults.iter().take(FAULTS_MAX).map(ToString::to_string).collect();
        if faults.len() > FAULTS_MAX {
            lines.push(format!("… and {} more", faults.len() - FAULTS_MAX));
        }
        lines
    }
}
