//! The stream of bytes between a node and a server of Redis, whatever is below: it watches what the
//! server says, and breaks off when that cannot be Redis ([`Breach`]).
//!
//! Rule: the driver is handed nothing that this has not passed, so that what it holds has a bound:
//! of a pipeline, which it keeps until the last reply is there, one longest message for each
//! command and [`SPARE`] more; of a push message, one and [`SPARE`].

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::resp::{Breach, Passed, Scanner};

/// Bytes that the replies to one pipeline may have besides messages: pages of records, the nodes,
/// the slots of a Cluster.
const SPARE: usize = 16 << 20;

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    commands: Scanner,
    replies: Scanner,
    ledger: Ledger,
    fault: FirstBreach,
}

/// Why a stream was broken off, if it was; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct FirstBreach(Arc<OnceLock<Breach>>);

impl FirstBreach {
    pub(super) fn get(&self) -> Option<Breach> {
        self.0.get().cloned()
    }
}

/// What was asked and what came.
#[derive(Debug, Default)]
struct Ledger {
    /// Longest message, with all that is around it.
    message: usize,
    /// Whether messages may be pushed.
    is_pushed_to: bool,
    asked: u64,
    answered: u64,
    /// How much had been asked when each pipeline ended.
    ends: VecDeque<u64>,
    /// What the replies to the present pipeline have used of what they may have besides messages.
    used: usize,
    /// Pushes that may or may not have been replies.
    doubtful: u64,
}

impl<S> Wire<S> {
    pub(super) fn new(stream: S, message: usize, is_pushed_to: bool) -> (Self, FirstBreach) {
        let (ledger, fault) =
            (Ledger { message, is_pushed_to, ..Ledger::default() }, FirstBreach::default());
        let (commands, replies) = (Scanner::default(), Scanner::default());
        (Self { stream, commands, replies, ledger, fault: fault.clone() }, fault)
    }

    fn check(&mut self, mut bytes: &[u8]) -> Result<(), Breach> {
        while !bytes.is_empty() {
            let (taken, passed) = self.replies.pass(bytes, self.ledger.allowance())?;
            bytes = bytes.split_at_checked(taken).unwrap_or_default().1;
            passed.map_or(Ok(()), |passed| self.ledger.came(&passed))?;
        }
        Ok(())
    }

    /// Counts what was written. It is ours.
    fn wrote(&mut self, mut bytes: &[u8]) {
        while let Ok((taken, passed)) = self.commands.pass(bytes, usize::MAX)
            && !bytes.is_empty()
        {
            bytes = bytes.split_at_checked(taken).unwrap_or_default().1;
            self.ledger.asked += u64::from(passed.is_some());
        }
    }
}

impl Ledger {
    /// Returns what the next reply may weigh.
    fn allowance(&self) -> usize {
        self.message + SPARE - self.used
    }

    fn came(&mut self, Passed { weight, push }: &Passed) -> Result<(), Breach> {
        let is_reply = match push.as_deref() {
            None => true,
            Some(_) if !self.is_pushed_to => return Err(Breach::Unasked),
            // It comes by itself, too, when a slot is given away.
            Some(b"sunsubscribe") => {
                self.doubtful += 1;
                self.asked > self.answered
            }
            Some(kind) => kind.ends_with(b"subscribe"),
        };
        if !is_reply {
            return Ok(());
        }
        if self.answered == self.asked {
            self.doubtful = self.doubtful.checked_sub(1).ok_or(Breach::Unasked)?;
            return Ok(());
        }
        self.answered += 1;
        self.used += weight.saturating_sub(self.message);
        while self.ends.front().is_some_and(|end| *end <= self.answered) {
            self.ends.pop_front();
            self.used = 0;
        }
        Ok(())
    }

    /// All that was asked so far is on its way.
    fn flushed(&mut self) {
        if self.answered < self.asked && self.ends.back().is_none_or(|end| *end < self.asked) {
            self.ends.push_back(self.asked);
        } else if self.answered == self.asked {
            self.used = 0;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let come = buffer.filled().get(before..).unwrap_or_default();
        if come.is_empty() && buffer.remaining() > 0 && self.replies.is_within() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        if let Err(breach) = self.check(come) {
            let breach = self.fault.0.get_or_init(|| breach).clone();
            buffer.set_filled(before);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, breach)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.wrote(bytes.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.ledger.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: usize = 100;

    fn reply(weight: usize) -> Passed {
        Passed { weight, push: None }
    }

    fn push(kind: &str) -> Passed {
        Passed { weight: 1, push: Some(kind.into()) }
    }

    fn ledger(is_pushed_to: bool, pipelines: &[u64]) -> Ledger {
        let mut ledger = Ledger { message: MESSAGE, is_pushed_to, ..Ledger::default() };
        for count in pipelines {
            ledger.asked += count;
            ledger.flushed();
        }
        ledger
    }

    #[test]
    fn what_the_replies_to_one_pipeline_may_weigh_is_bounded_together() {
        let mut ledger = ledger(false, &[3, 1]);
        assert_eq!(ledger.allowance(), MESSAGE + SPARE);
        assert_eq!(ledger.came(&reply(MESSAGE + 7)), Ok(()));
        assert_eq!(ledger.came(&reply(MESSAGE)), Ok(()), "as long as a message costs nothing");
        assert_eq!(ledger.allowance(), MESSAGE + SPARE - 7);
        assert_eq!(ledger.came(&reply(ledger.allowance())), Ok(()));
        assert_eq!(ledger.allowance(), MESSAGE + SPARE, "the next pipeline has its own");
        assert_eq!(ledger.came(&reply(1)), Ok(()));
        assert_eq!(ledger.came(&reply(1)), Err(Breach::Unasked));
    }

    #[test]
    fn only_who_listens_is_pushed_to_and_only_what_was_asked_is_confirmed() {
        assert_eq!(ledger(false, &[1]).came(&push("message")), Err(Breach::Unasked));
        let mut ledger = ledger(true, &[1]);
        assert_eq!(ledger.came(&push("message")), Ok(()));
        assert_eq!(ledger.came(&push("subscribe")), Ok(()));
        assert_eq!(ledger.came(&push("smessage")), Ok(()));
        assert_eq!(ledger.came(&push("ssubscribe")), Err(Breach::Unasked));
    }

    #[test]
    fn a_slot_that_is_given_away_while_something_is_asked_breaks_nothing() {
        let mut ledger = ledger(true, &[1]);
        assert_eq!(ledger.came(&push("sunsubscribe")), Ok(()), "or it was the answer");
        assert_eq!(ledger.came(&push("ssubscribe")), Ok(()), "then this is");
        assert_eq!(ledger.came(&push("sunsubscribe")), Ok(()));
        assert_eq!(ledger.came(&reply(1)), Ok(()));
        assert_eq!(ledger.came(&reply(1)), Err(Breach::Unasked));
    }
}
