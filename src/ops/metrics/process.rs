//! What is counted for the whole process, since it happens outside any node: panics, and lines that
//! the log has lost.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Metrics;

static PANICS: AtomicU64 = AtomicU64::new(0);
static QUEUE_FULL: AtomicU64 = AtomicU64::new(0);
static WRITE_FAILED: AtomicU64 = AtomicU64::new(0);

/// Why a line is not in the log.
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

    fn count(self) -> &'static AtomicU64 {
        match self {
            Self::QueueFull => &QUEUE_FULL,
            Self::WriteFailed => &WRITE_FAILED,
        }
    }
}

pub(crate) fn count_panic() {
    PANICS.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn count_lost_line(loss: LineLoss) {
    loss.count().fetch_add(1, Ordering::Relaxed);
}

/// Returns how many lines have been lost, for whatever reason.
pub(crate) fn lost_lines() -> u64 {
    LineLoss::ALL.iter().map(|loss| loss.count().load(Ordering::Relaxed)).sum()
}

impl Metrics {
    /// Takes over what has been counted. One caller at a time.
    pub(super) fn read_process(&self) {
        self.panics.inc_by(PANICS.load(Ordering::Relaxed) - self.panics.get());
        for loss in LineLoss::ALL {
            let counted = self.log_lost.with_label_values(&[loss.label()]);
            counted.inc_by(loss.count().load(Ordering::Relaxed) - counted.get());
        }
    }
}
