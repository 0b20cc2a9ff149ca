//! What is counted for the whole process, since it happens outside any node: panics, and lines that
//! were lost.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Metrics;

static PANICS: AtomicU64 = AtomicU64::new(0);
static LOG: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
static ACCESS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Where a line was to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Journal {
    Log,
    Access,
}

/// Why it is not there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LineLoss {
    /// Whoever reads the log is slower than what is written.
    QueueFull,
    /// The disk is full, or the reader is gone.
    WriteFailed,
}

impl LineLoss {
    const ALL: [Self; 2] = [Self::QueueFull, Self::WriteFailed];

    fn label(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::WriteFailed => "write_failed",
        }
    }

    fn count(self, journal: Journal) -> &'static AtomicU64 {
        let [queue_full, write_failed] = match journal {
            Journal::Log => &LOG,
            Journal::Access => &ACCESS,
        };
        match self {
            Self::QueueFull => queue_full,
            Self::WriteFailed => write_failed,
        }
    }
}

pub(crate) fn count_panic() {
    PANICS.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn count_lost_line(journal: Journal, loss: LineLoss) {
    loss.count(journal).fetch_add(1, Ordering::Relaxed);
}

/// Returns how many lines have been lost, for whatever reason.
pub(crate) fn lost_lines(journal: Journal) -> u64 {
    LineLoss::ALL.iter().map(|loss| loss.count(journal).load(Ordering::Relaxed)).sum()
}

impl Metrics {
    /// Takes over what has been counted. One caller at a time.
    pub(super) fn read_process(&self) {
        self.panics.inc_by(PANICS.load(Ordering::Relaxed) - self.panics.get());
        for (journal, lost) in
            [(Journal::Log, &self.log_lost), (Journal::Access, &self.access_lost)]
        {
            for loss in LineLoss::ALL {
                let counted = lost.with_label_values(&[loss.label()]);
                counted.inc_by(loss.count(journal).load(Ordering::Relaxed) - counted.get());
            }
        }
    }
}
