//! Lines on their way to whoever reads them: written by a thread of their own, so that nobody who
//! adds one waits for the reader.
//!
//! Rule: adding a line never blocks, fails or panics. What finds no room, or cannot be written, is
//! lost and counted.

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::ops::metrics::process::{self, Journal, LineLoss};

/// Bytes of the lines that may wait, and how many of them.
pub(super) const QUEUE_BYTES: usize = 512 << 10;
pub(super) const QUEUE_LINES: usize = 4_096;

/// Longest wait, at the end of the process, for lines that still wait.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// The way in; clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    journal: Journal,
    lines: SyncSender<Vec<u8>>,
    waiting: Arc<Waiting>,
}

/// Bytes that are not written yet.
#[derive(Debug, Default)]
struct Waiting {
    bytes: Mutex<usize>,
    none: Condvar,
}

impl Lines {
    /// Begins; [`Lines::write_to`] takes what is added.
    pub(super) fn new(journal: Journal) -> (Self, Receiver<Vec<u8>>) {
        let (lines, to_write) = mpsc::sync_channel(QUEUE_LINES);
        (Self { journal, lines, waiting: Arc::default() }, to_write)
    }

    /// Adds a whole line.
    pub(super) fn push(&self, line: Vec<u8>) {
        let length = line.len();
        let mut waiting = self.waiting.bytes.lock();
        if *waiting + length > QUEUE_BYTES || self.lines.try_send(line).is_err() {
            process::count_lost_line(self.journal, LineLoss::QueueFull);
        } else {
            *waiting += length;
        }
    }

    /// Writes lines for as long as more can come. `written` is told after each that was written how
    /// many bytes still wait.
    pub(super) fn write_to(
        &self,
        mut output: impl Write,
        lines: &Receiver<Vec<u8>>,
        mut written: impl FnMut(usize),
    ) {
        for line in lines {
            let result = output.write_all(&line);
            let waiting = self.on_written(line.len());
            match result {
                Ok(()) => written(waiting),
                Err(_) => process::count_lost_line(self.journal, LineLoss::WriteFailed),
            }
        }
    }

    /// Returns the bytes that still wait.
    fn on_written(&self, bytes: usize) -> usize {
        let mut waiting = self.waiting.bytes.lock();
        *waiting -= bytes;
        if *waiting == 0 {
            self.waiting.none.notify_all();
        }
        *waiting
    }

    /// Waits until everything is written, but not for long: whoever reads it may have stopped.
    pub(super) fn finish(&self) {
        let mut waiting = self.waiting.bytes.lock();
        self.waiting.none.wait_while_for(&mut waiting, |bytes| *bytes > 0, FINISH_TIMEOUT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a disk does that is full for a while.
    struct Disk {
        taken: Arc<Mutex<Vec<u8>>>,
        fails: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.fails > 0 {
                self.fails -= 1;
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            self.taken.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stops_costs_lines_and_no_more_than_the_bound() {
        let (lines, to_write) = Lines::new(Journal::Log);
        let before = process::lost_lines(Journal::Log);
        (0..2_000).for_each(|_| lines.push(vec![b'x'; 1_000]));
        let kept = to_write.try_iter().count();
        assert!(kept > 500 && kept * 1_000 <= QUEUE_BYTES, "{kept}");
        assert!(process::lost_lines(Journal::Log) - before >= 2_000 - kept as u64);
    }

    #[test]
    fn short_lines_are_bounded_too() {
        let (lines, to_write) = Lines::new(Journal::Log);
        (0..2 * QUEUE_LINES).for_each(|_| lines.push(b"x\n".to_vec()));
        assert_eq!(to_write.try_iter().count(), QUEUE_LINES);
    }

    #[test]
    fn after_a_write_that_failed_the_next_line_is_written() {
        let (lines, to_write) = Lines::new(Journal::Log);
        let (taken, before) = (Arc::default(), process::lost_lines(Journal::Log));
        lines.push(b"one\n".to_vec());
        lines.push(b"two\n".to_vec());
        let Lines { journal, lines: sender, waiting } = lines;
        drop(sender);
        let (sender, _unread) = mpsc::sync_channel(1);
        let lines = Lines { journal, lines: sender, waiting };
        lines.write_to(Disk { taken: Arc::clone(&taken), fails: 1 }, &to_write, |_| {});
        assert_eq!(*taken.lock(), b"two\n");
        assert!(process::lost_lines(Journal::Log) > before);
        lines.finish();
        assert_eq!(*lines.waiting.bytes.lock(), 0);
    }
}
