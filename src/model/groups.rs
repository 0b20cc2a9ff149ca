//! What differs between groups: rules for those whose names match a pattern.

use std::sync::Arc;

/// The rules of `[[groups]]`; of those that match a name the first counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Groups(pub(crate) Arc<[GroupRule]>);

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupRule {
    pub(crate) pattern: Pattern,
    pub(crate) replay: Replay,
}

/// Whether messages are kept for a while, so that gaps can be repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replay {
    On,
    Off,
}

/// A name in which `*` stands for any text, none included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(pub(crate) Box<str>);

impl Groups {
    /// Returns whether the messages of a group are counted and kept.
    pub(crate) fn keeps(&self, name: &str) -> bool {
        let rule = self.0.iter().find(|rule| rule.pattern.matches(name));
        rule.is_none_or(|rule| rule.replay == Replay::On)
    }

    /// Returns whether it is certain that of the groups whose names a pattern matches none is
    /// counted and kept.
    pub(crate) fn keep_none(&self, names: &str) -> bool {
        let names = Pattern(names.into());
        let decides = |rule: &&GroupRule| match rule.replay {
            Replay::On => rule.pattern.may_meet(&names),
            Replay::Off => rule.pattern.covers(&names),
        };
        self.0.iter().find(decides).is_some_and(|rule| rule.replay == Replay::Off)
    }
}

impl Pattern {
    /// Returns whether every name that `other` matches is matched by this: none holds a control
    /// character, so one stands well for any text.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.matches(&other.0.replace('*', "\0"))
    }

    /// Returns false if no name is matched by both.
    fn may_meet(&self, other: &Self) -> bool {
        match (self.0.split_once('*'), other.0.split_once('*')) {
            (_, None) => self.matches(&other.0),
            (None, _) => other.matches(&self.0),
            (Some((start, rest)), Some((other_start, other_rest))) => {
                let (end, other_end) = (last(rest), last(other_rest));
                (start.starts_with(other_start) || other_start.starts_with(start))
                    && (end.ends_with(other_end) || other_end.ends_with(end))
            }
        }
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        let Some((start, rest)) = self.0.split_once('*') else { return *self.0 == *name };
        let Some(mut name) = name.strip_prefix(start) else { return false };
        let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
        // The earliest place of each part leaves the most room for the next.
        for part in middle.split('*') {
            let Some((_, after)) = name.split_once(part) else { return false };
            name = after;
        }
        name.ends_with(end)
    }
}

/// Returns what is behind the last `*`.
fn last(text: &str) -> &str {
    text.rsplit_once('*').map_or(text, |(_, last)| last)
}
