//! The size of the works: as the goals define them, or just large enough to show that everything
//! works.

use crate::bench::works::Work;

/// The size of the works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    Full,
    /// A fiftieth of the connections, under names that no goal has.
    Quick,
}

impl Scale {
    /// Names a work in the report.
    pub(super) fn name(self, work: &Work) -> String {
        match self {
            Self::Full => work.name.to_owned(),
            Self::Quick => format!("{}, quick", work.name),
        }
    }

    /// Returns the number of groups, and of connections in each.
    pub(super) fn size(self, work: &Work) -> (usize, usize) {
        match self {
            Self::Full => (work.groups, work.group_size),
            Self::Quick if work.groups == 1 => (1, work.group_size / 50),
            Self::Quick => (work.groups / 50, work.group_size),
        }
    }

    pub(super) fn messages(self, messages: u32) -> u32 {
        match self {
            Self::Full => messages,
            Self::Quick => (messages / 50).max(10),
        }
    }
}
