//! The progress of a run: a bar on a terminal, plain lines elsewhere.
//!
//! Rule: nothing goes to standard output, which is for the table.
#![expect(clippy::print_stderr, reason = "progress goes to standard error by design")]

use std::fmt;
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};
use parking_lot::Mutex;

/// Often enough for a clock that shows seconds, too rare to disturb the measurement.
const TICK: Duration = Duration::from_secs(1);
const TEMPLATE: &str = "{bar:30} {pos}/{len} {elapsed}{left}: {wide_msg}";

/// The bar that is on the screen: lines must be printed above it.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// The steps of a command that knows their number. Dropping it removes the bar.
#[derive(Debug)]
pub(crate) struct Steps {
    bar: ProgressBar,
    begun: usize,
    total: usize,
}

/// Prints one line of progress.
pub(crate) fn say(line: impl AsRef<str>) {
    let line = format!("loadtest: {}", line.as_ref());
    match &*SHOWN.lock() {
        Some(bar) => bar.println(line),
        None => eprintln!("{line}"),
    }
}

impl Steps {
    pub(crate) fn new(total: usize) -> Self {
        let bar = ProgressBar::new(total as u64);
        // Hidden where standard error is not a terminal.
        if !bar.is_hidden() {
            bar.set_style(style());
            bar.enable_steady_tick(TICK);
            *SHOWN.lock() = Some(bar.clone());
        }
        Self { bar, begun: 0, total }
    }

    /// Shows the step that begins; the one before is done.
    pub(crate) fn begin(&mut self, what: &str) {
        self.bar.set_position(self.begun as u64);
        self.begun += 1;
        if self.bar.is_hidden() {
            say(format!("{}/{}: {what}", self.begun, self.total));
        } else {
            self.bar.set_message(what.to_owned());
        }
    }
}

fn style() -> ProgressStyle {
    let style =
        ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
    // The time left is unknown until a step is done.
    style.with_key("left", |state: &ProgressState, line: &mut dyn fmt::Write| {
        if state.pos() > 0 {
            // Writing to a string cannot fail.
            write!(line, ", {:#} left", HumanDuration(state.eta())).unwrap_or_default();
        }
    })
}

impl Drop for Steps {
    fn drop(&mut self) {
        SHOWN.lock().take();
        self.bar.finish_and_clear();
    }
}
