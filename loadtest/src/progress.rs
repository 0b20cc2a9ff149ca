//! Lines for the person who waits; standard output stays free for the table.
#![expect(clippy::print_stderr, reason = "progress goes to standard error by design")]

/// Prints one line of progress.
pub(crate) fn say(line: impl AsRef<str>) {
    eprintln!("loadtest: {}", line.as_ref());
}
