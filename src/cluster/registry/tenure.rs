//! How long a node may speak for its connections: until a lease after its last renewal was sent.
//!
//! Others count a whole lease from when they have seen that renewal, so nobody can have taken the
//! node for dead before. A node whose tenure has lapsed, because it was frozen or cut off, does not
//! know whether others have ended its connections already: it publishes nothing until it has
//! renewed. [`Term`] is pure; [`Tenure`] is what tasks share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::cluster::store::ANSWER_TIMEOUT;
use crate::model::trouble::Trouble;

/// Why a node may not speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Lapsed {
    /// Others have taken it for dead. It never will again.
    #[error("others have taken this node for dead")]
    Fenced,
    #[error("this node's lease has lapsed: {0}")]
    Unrenewed(Trouble),
}

/// When a tenure ends.
#[derive(Debug)]
pub(super) struct Term {
    lease: Duration,
    /// `None` before the first renewal.
    until: Option<Instant>,
}

impl Term {
    pub(super) fn new(lease: Duration) -> Self {
        Self { lease, until: None }
    }

    /// A renewal that was sent then has been accepted.
    pub(super) fn renewed(&mut self, sent: Instant) {
        let until = sent + self.lease;
        self.until = Some(self.until.map_or(until, |before| before.max(until)));
    }

    pub(super) fn is_held(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

/// Attempts to renew, of which one at a time is under way.
#[derive(Clone, Copy, Debug, Default)]
struct Attempts {
    begun: u64,
    ended: u64,
    /// What the last one met.
    trouble: Option<Trouble>,
}

/// Handle on this node's tenure; clones are the same. See the [module documentation](self).
#[derive(Clone, Debug)]
pub(crate) struct Tenure(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    term: Mutex<Term>,
    attempts: watch::Sender<Attempts>,
    wanted: Notify,
    /// Whether the next renewal has to put this node's name among the nodes again.
    is_unnamed: AtomicBool,
    fenced: CancellationToken,
}

impl Tenure {
    /// `fenced` is cancelled when others have taken this node for dead.
    pub(crate) fn new(lease: Duration, fenced: CancellationToken) -> Self {
        Self(Some(Arc::new(Shared {
            term: Mutex::new(Term::new(lease)),
            attempts: watch::Sender::new(Attempts::default()),
            wanted: Notify::new(),
            is_unnamed: AtomicBool::new(true),
            fenced,
        })))
    }

    /// That of a node that is alone, which nobody takes for dead.
    pub(crate) fn unlimited() -> Self {
        Self(None)
    }

    /// Others have taken this node for dead.
    pub(crate) fn fence(&self) {
        if let Some(shared) = self.0.as_ref().filter(|shared| !shared.fenced.is_cancelled()) {
            tracing::error!(
                "others have taken this node for dead; it closes its connections and ends"
            );
            shared.fenced.cancel();
        }
    }

    /// An attempt to renew begins; returns when.
    pub(crate) fn begin(&self) -> Instant {
        if let Some(shared) = &self.0 {
            shared.attempts.send_modify(|attempts| attempts.begun += 1);
        }
        Instant::now()
    }

    /// The attempt that was sent then has been accepted.
    pub(crate) fn renewed(&self, sent: Instant) {
        if let Some(shared) = &self.0 {
            shared.term.lock().renewed(sent);
        }
        self.end(None);
    }

    /// The attempt has failed.
    pub(crate) fn failed(&self, trouble: Trouble) {
        self.end(Some(trouble));
    }

    fn end(&self, trouble: Option<Trouble>) {
        if let Some(shared) = &self.0 {
            shared.attempts.send_modify(|attempts| {
                attempts.ended = attempts.begun;
                attempts.trouble = trouble;
            });
        }
    }

    /// Waits until somebody needs a renewal now. *Cancel safe.*
    pub(crate) async fn wanted(&self) {
        match &self.0 {
            Some(shared) => shared.wanted.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Asks for a renewal that says again that this node is one: the others cannot find it.
    pub(crate) fn name_again(&self) {
        if let Some(shared) = &self.0 {
            shared.is_unnamed.store(true, Ordering::Relaxed);
            shared.wanted.notify_one();
        }
    }

    /// Returns whether the renewal that begins has to say that this node is one.
    pub(crate) fn take_unnamed(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.is_unnamed.swap(false, Ordering::Relaxed))
    }

    /// Returns whether the node may speak, and nobody can have taken it for dead.
    pub(crate) fn is_held(&self, now: Instant) -> bool {
        self.0
            .as_ref()
            .is_none_or(|shared| !shared.fenced.is_cancelled() && shared.term.lock().is_held(now))
    }

    /// Returns at once while the tenure is held; else asks for a renewal, and waits for what
    /// becomes of it. *Cancel safe.*
    ///
    /// # Errors
    /// An attempt that began after this call has failed, or took too long; or the node is fenced.
    pub(crate) async fn held(&self) -> Result<(), Lapsed> {
        let Some(shared) = &self.0 else { return Ok(()) };
        let mut attempts = shared.attempts.subscribe();
        let before = attempts.borrow_and_update().begun;
        let outcome = async {
            loop {
                if shared.fenced.is_cancelled() {
                    return Err(Lapsed::Fenced);
                }
                if self.is_held(Instant::now()) {
                    return Ok(());
                }
                let Attempts { begun, ended, trouble } = *attempts.borrow_and_update();
                if ended > before {
                    // What has been accepted was sent a lease ago.
                    return Err(Lapsed::Unrenewed(trouble.unwrap_or(Trouble::Away)));
                }
                if begun == before {
                    shared.wanted.notify_one();
                }
                tokio::select! {
                    () = shared.fenced.cancelled() => {}
                    // The handle that this one was made from lives.
                    _ = attempts.changed() => {}
                }
            }
        };
        let outcome = tokio::time::timeout(ANSWER_TIMEOUT, outcome).await;
        outcome.unwrap_or(Err(Lapsed::Unrenewed(Trouble::Away)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::trouble::RedisRefusal;

    const LEASE: Duration = Duration::from_secs(10);
    const REFUSED: Trouble = Trouble::Refused(RedisRefusal::Oom);

    fn tenure() -> Tenure {
        Tenure::new(LEASE, CancellationToken::new())
    }

    /// An instant that is a lease ago, or nearly so.
    fn lapsed() -> Instant {
        Instant::now().checked_sub(LEASE).expect("the machine has been up for a lease")
    }

    proptest! {
        /// Renewals that are accepted out of order, as seen from all instants.
        #[test]
        fn a_term_ends_a_lease_after_the_last_renewal_was_sent(
            sent in prop::collection::vec(0_u64..60, 0..8),
            now in 0_u64..90,
        ) {
            let (began, mut term) = (Instant::now(), Term::new(LEASE));
            for second in &sent {
                term.renewed(began + Duration::from_secs(*second));
            }
            let is_held = sent.iter().max().is_some_and(|last| now < last + LEASE.as_secs());
            prop_assert_eq!(term.is_held(began + Duration::from_secs(now)), is_held);
        }
    }

    #[tokio::test]
    async fn a_tenure_that_is_held_asks_for_nothing() {
        let tenure = tenure();
        assert!(!tenure.is_held(Instant::now()), "it was never renewed");
        let sent = tenure.begin();
        tenure.renewed(sent);
        assert!(tenure.is_held(sent) && !tenure.is_held(sent + LEASE));
        assert_eq!(tenure.held().await, Ok(()));
        assert!(tokio::time::timeout(Duration::ZERO, tenure.wanted()).await.is_err());
        assert_eq!(Tenure::unlimited().held().await, Ok(()));
    }

    /// Answers each wish for a renewal.
    async fn renewing(tenure: Tenure, answer: impl Fn(&Tenure, Instant)) {
        loop {
            tenure.wanted().await;
            let sent = tenure.begin();
            tokio::task::yield_now().await;
            answer(&tenure, sent);
        }
    }

    #[tokio::test]
    async fn a_tenure_that_has_lapsed_is_renewed_first() {
        let tenure = tenure();
        tenure.renewed(lapsed());
        tokio::select! {
            outcome = tenure.held() => assert_eq!(outcome, Ok(())),
            () = renewing(tenure.clone(), |tenure, sent| tenure.renewed(sent)) => {}
        }
        assert!(tenure.is_held(Instant::now()));
    }

    #[tokio::test]
    async fn a_failure_is_told_at_once() {
        let tenure = tenure();
        tenure.failed(Trouble::Away);
        let began = Instant::now();
        for _ in 0..3 {
            tokio::select! {
                outcome = tenure.held() => assert_eq!(outcome, Err(Lapsed::Unrenewed(REFUSED))),
                () = renewing(tenure.clone(), |tenure, _| tenure.failed(REFUSED)) => {}
            }
        }
        assert!(began.elapsed() < ANSWER_TIMEOUT);
    }

    #[tokio::test]
    async fn the_failure_of_an_attempt_that_was_under_way_says_nothing() {
        let tenure = tenure();
        tenure.begin();
        let renewal = async {
            tenure.failed(REFUSED);
            tenure.wanted().await;
            let sent = tenure.begin();
            tenure.renewed(sent);
        };
        let (outcome, ()) = tokio::join!(tenure.held(), renewal);
        assert_eq!(outcome, Ok(()));
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        assert_eq!(tenure().held().await, Err(Lapsed::Unrenewed(Trouble::Away)));
    }

    #[tokio::test]
    async fn who_is_fenced_never_speaks_again() {
        let tenure = tenure();
        tenure.renewed(Instant::now());
        tenure.fence();
        assert_eq!(tenure.held().await, Err(Lapsed::Fenced));
        let waiting = Tenure::new(LEASE, CancellationToken::new());
        let (outcome, ()) = tokio::join!(waiting.held(), async { waiting.fence() });
        assert_eq!(outcome, Err(Lapsed::Fenced));
        waiting.renewed(Instant::now());
        assert_eq!(waiting.held().await, Err(Lapsed::Fenced));
    }
}
