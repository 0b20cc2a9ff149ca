//! Keeps credentials: they are fetched when somebody wants them for the first time, and from then
//! on before they end.
//!
//! One task fetches, so one fetch is under way at a time, and none ends with the call that has
//! asked for it. While it goes on, who has good credentials goes on with them. After a failure
//! nobody is asked for a while, and calls are told at once.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::chain::Chain;
use super::words::{Credentials, CredentialsError};
use crate::ops::metrics::backends::CredentialMetrics;

/// For a whole fetch, which may take several answers.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Credentials are fetched anew this long before they end; those that are good for less than twice
/// that, in the middle of it.
const AHEAD: Duration = Duration::from_secs(300);

/// After the first failure, and between two fetches; doubled by each failure.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What is said of credentials that nobody can work with.
const SHORT: &str = "has given some that have ended";

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Keeper {
    chain: Chain,
    state: watch::Sender<State>,
    wanted: Notify,
    metrics: CredentialMetrics,
}

#[derive(Debug, Default)]
struct State {
    current: Option<Arc<Credentials>>,
    /// Why the last fetch has brought none, and until when that counts.
    failure: Option<(CredentialsError, Instant)>,
    fetches: u64,
}

impl State {
    fn good(&self) -> Option<Arc<Credentials>> {
        self.current.clone().filter(|current| current.are_good(SystemTime::now()))
    }
}

impl Keeper {
    /// [`Keeper::run`] has to run.
    pub(crate) fn new(chain: Chain, metrics: CredentialMetrics) -> Self {
        Self { chain, state: watch::Sender::default(), wanted: Notify::new(), metrics }
    }

    /// Returns good credentials. *Cancel safe.*
    ///
    /// # Errors
    /// There are none, and the sources have failed a moment ago.
    pub(crate) async fn get(&self) -> Result<Arc<Credentials>, CredentialsError> {
        let mut changes = self.state.subscribe();
        let seen = {
            let state = changes.borrow_and_update();
            if let Some(good) = state.good() {
                return Ok(good);
            }
            if let Some((error, until)) = &state.failure
                && Instant::now() < *until
            {
                return Err(error.clone());
            }
            state.fetches
        };
        self.wanted.notify_one();
        let ended = || CredentialsError::new("the node", "is ending");
        loop {
            changes.changed().await.map_err(|_| ended())?;
            let state = changes.borrow_and_update();
            if let Some(good) = state.good() {
                return Ok(good);
            }
            if state.fetches > seen {
                let error = state.failure.as_ref().map(|(error, _)| error.clone());
                return Err(error.unwrap_or_else(|| CredentialsError::new("the source", SHORT)));
            }
        }
    }

    /// Takes back credentials that were refused, so that others are fetched.
    pub(crate) fn discard(&self, key_id: &str) {
        self.state.send_if_modified(|state| {
            let is_it = state.current.as_ref().is_some_and(|current| current.key_id == key_id);
            if is_it {
                state.current = None;
                let error = CredentialsError::new("AWS", "has refused those that it had given");
                state.failure = Some((error, Instant::now() + PAUSE_MIN));
            }
            is_it
        });
    }

    /// Fetches what is wanted, for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut pause = PAUSE_MIN;
        let mut due: Option<Instant> = None;
        loop {
            tokio::select! {
                () = self.wanted.notified() => {}
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
            let is_due = due.is_some_and(|due| due <= Instant::now());
            if self.state.borrow().good().is_some() && !is_due {
                continue;
            }
            due = match self.fetch().await {
                Ok(found) => {
                    pause = PAUSE_MIN;
                    let next = found.left(SystemTime::now()).map(|left| left - AHEAD.min(left / 2));
                    self.state.send_modify(|state| {
                        state.current = Some(Arc::new(found));
                        state.failure = None;
                        state.fetches += 1;
                    });
                    next.map(|next| Instant::now() + next.max(PAUSE_MIN))
                }
                Err(error) => {
                    tracing::warn!(%error, retry_in = ?pause, "credentials of AWS");
                    let until = Instant::now() + pause;
                    pause = (pause * 2).min(PAUSE_MAX);
                    let is_good = self.state.borrow().good().is_some();
                    self.state.send_modify(|state| {
                        state.failure = Some((error, until));
                        state.fetches += 1;
                    });
                    is_good.then_some(until)
                }
            };
        }
    }

    async fn fetch(&self) -> Result<Credentials, CredentialsError> {
        let found = match tokio::time::timeout(FETCH_TIMEOUT, self.chain.fetch()).await {
            Ok(found) => found,
            Err(_) => {
                let message = format!("have not answered within {FETCH_TIMEOUT:?}");
                Err(CredentialsError::new("the sources", message))
            }
        };
        let found = found.and_then(|found| {
            if found.are_good(SystemTime::now() + PAUSE_MIN) {
                return Ok(found);
            }
            let end = found.expires.map(|end| end.to_string()).unwrap_or_default();
            Err(CredentialsError::new("the source", format!("{SHORT}: {end}")))
        });
        self.metrics.fetched(found.is_ok());
        found
    }
}
