//! What a function's processes write, line by line into the log.
//!
//! *Rule:* a process never waits for the log. Its pipes are read as fast as it writes; what is too
//! much is lost and counted.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::Instant;
use uuid::Uuid;

use super::function::Function;
use super::pool::ProcessId;

/// Longest line in the log, in bytes; the rest is cut.
const LINE_MAX: usize = 16 << 10;

/// Most lines a second of one function.
const LINES_MAX: u32 = 1_000;

/// Lines, and bytes of each, that are kept to say why a process has ended.
const KEPT: usize = 16;
const KEPT_BYTES: usize = 512;

/// How many lines a function may write; for all of its processes.
#[derive(Debug)]
pub(super) struct Pace(Mutex<(Instant, u32)>);

/// What a process has written last to its standard error.
#[derive(Debug, Default)]
pub(super) struct LastWords(Mutex<VecDeque<String>>);

/// Cuts bytes into lines of bounded length.
#[derive(Debug, Default)]
struct Lines {
    line: Vec<u8>,
    is_cut: bool,
}

/// One line in the form of Lambda's runtimes: `time⇥request⇥LEVEL⇥message`.
struct Told<'l> {
    run: Option<Uuid>,
    level: &'l str,
    message: &'l str,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self(Mutex::new((Instant::now(), 0)))
    }

    /// Returns whether one more line may be written.
    fn takes(&self, now: Instant) -> bool {
        let mut pace = self.0.lock();
        if now.saturating_duration_since(pace.0) >= Duration::from_secs(1) {
            *pace = (now, 0);
        }
        pace.1 = pace.1.saturating_add(1);
        pace.1 <= LINES_MAX
    }
}

impl LastWords {
    fn keep(&self, line: &str) {
        let mut lines = self.0.lock();
        if lines.len() == KEPT {
            lines.pop_front();
        }
        let end = line.floor_char_boundary(KEPT_BYTES);
        lines.extend(line.get(..end).filter(|line| !line.is_empty()).map(str::to_owned));
    }

    /// Returns the last line.
    pub(super) fn last(&self) -> Option<String> {
        self.0.lock().back().cloned()
    }

    /// Returns whether a text was among them.
    pub(super) fn have(&self, text: &str) -> bool {
        self.0.lock().iter().any(|line| line.contains(text))
    }
}

impl Lines {
    /// Takes what was read; `tell` is handed each line that is complete.
    fn push(&mut self, bytes: &[u8], mut tell: impl FnMut(&str)) {
        let mut parts = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            let room = LINE_MAX - self.line.len();
            self.is_cut |= part.len() > room;
            self.line.extend(part.iter().take(room));
            if parts.peek().is_some() {
                self.end(&mut tell);
            }
        }
    }

    /// Ends the line that there is.
    fn end(&mut self, mut tell: impl FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.line);
        let text = text.trim_end_matches('\r');
        match self.is_cut {
            true => tell(&format!("{}…", text.trim_end_matches(char::REPLACEMENT_CHARACTER))),
            false => tell(text),
        }
        self.line.clear();
        self.is_cut = false;
    }
}

impl<'l> Told<'l> {
    fn read(line: &'l str, otherwise: &'l str) -> Self {
        let mut parts = line.splitn(4, '\t');
        let parts = (parts.next(), parts.next(), parts.next(), parts.next());
        if let (Some(time), Some(run), Some(level), Some(message)) = parts
            && time.ends_with('Z')
            && !level.is_empty()
            && level.bytes().all(|byte| byte.is_ascii_uppercase())
        {
            return Self { run: run.parse().ok(), level, message };
        }
        Self { run: None, level: otherwise, message: line }
    }
}

/// Reads until nobody can write any more. `words` keeps what comes, if this is the standard error.
pub(super) async fn read(
    mut pipe: impl AsyncRead + Unpin,
    function: &Function,
    process: ProcessId,
    pace: &Pace,
    words: Option<&LastWords>,
) {
    let mut buffer = vec![0; LINE_MAX];
    let mut lines = Lines::default();
    let mut tell = |line: &str| {
        if let Some(words) = words {
            words.keep(line);
        }
        if pace.takes(Instant::now()) {
            tell(line, function, process, words.is_some());
        } else {
            function.counters.lines_lost.inc();
        }
    };
    // Whoever closes a pipe by force has written all that there is.
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        lines.push(buffer.get(..count).unwrap_or_default(), &mut tell);
    }
    if !lines.line.is_empty() {
        lines.end(&mut tell);
    }
}

fn tell(line: &str, function: &Function, process: ProcessId, is_error: bool) {
    if line.is_empty() {
        return;
    }
    let Told { run, level, message } = Told::read(line, if is_error { "WARN" } else { "INFO" });
    let request = function.with(|pool, _| pool.request(process, run)).map(tracing::field::display);
    let (function, run) = (&*function.name, run.map(tracing::field::display));
    match level {
        "ERROR" | "FATAL" => {
            tracing::error!(target: "function", function, process, request, run, "{message}");
        }
        "WARN" => tracing::warn!(target: "function", function, process, request, run, "{message}"),
        "DEBUG" | "TRACE" => {
            tracing::debug!(target: "function", function, process, request, run, "{message}");
        }
        _ => tracing::info!(target: "function", function, process, request, run, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        pieces.iter().for_each(|piece| lines.push(piece, |line| found.push(line.to_owned())));
        if !lines.line.is_empty() {
            lines.end(|line| found.push(line.to_owned()));
        }
        found
    }

    #[test]
    fn lines_are_whole_however_they_come_and_long_ones_are_cut() {
        assert_eq!(lines(&[b"a\r\nb", b"c\n", b"\nd"]), ["a", "bc", "", "d"]);
        let long = lines(&[&[b'x'; LINE_MAX], b"yz\nnext\n"]);
        assert_eq!((long[0].len(), &*long[1]), (LINE_MAX + '…'.len_utf8(), "next"));
        assert!(long[0].ends_with("x…"));
        assert_eq!(lines(&[&[b'x'; LINE_MAX], b"\n"])[0].len(), LINE_MAX);
        assert_eq!(lines(&[b"\xff\n"]), ["\u{fffd}"]);
    }

    #[test]
    fn a_runtimes_lines_say_their_level_and_run() {
        let run = Uuid::new_v4();
        let line = format!("2026-01-01T00:00:00.000Z\t{run}\tERROR\tno\ttable");
        let told = Told::read(&line, "INFO");
        assert_eq!((told.run, told.level, told.message), (Some(run), "ERROR", "no\ttable"));
        let told = Told::read("a\tb\tc\td", "WARN");
        assert_eq!((told.run, told.level, told.message), (None, "WARN", "a\tb\tc\td"));
    }

    #[test]
    fn a_flood_is_lost_until_the_next_second() {
        let (pace, now) = (Pace::new(), Instant::now());
        assert_eq!((0..3 * LINES_MAX).filter(|_| pace.takes(now)).count(), LINES_MAX as usize);
        assert!(pace.takes(now + Duration::from_secs(2)));
    }

    proptest! {
        #[test]
        fn where_a_pipe_is_cut_makes_no_difference(text in "[a\n\r]{0,40}", at in 0_usize..40) {
            let (one, other) = text.as_bytes().split_at(at.min(text.len()));
            prop_assert_eq!(lines(&[one, other]), lines(&[text.as_bytes()]));
        }
    }
}
