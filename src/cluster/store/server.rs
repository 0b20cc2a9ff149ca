//! One server of Redis: the connection for commands, and the way to connections for subscriptions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool::managed::{Manager, Object, Pool, PoolError, RecycleResult};
use deadpool_redis::Metrics;
use parking_lot::Mutex;
use redis::{Cmd, FromRedisValue as _, Pipeline, PushInfo, PushKind, ServerErrorKind, Value, cmd};
use tokio::sync::{Notify, Semaphore};

use super::connection::{Access, Connection};
use super::error::StoreError;
use super::greeting;
use super::script::Script;
use super::steady::Steady;

/// Shortest time between two connections that are given up for new ones because their server says
/// that it is not the right one any more: what stays wrong costs two connections a second.
const RENEW_AFTER: Duration = Duration::from_millis(500);
/// Pause before a connection is made anew after the second in a row that came to nothing, and the
/// longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(250));

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Server {
    /// `host:port`, by which the server is told from others.
    pub(crate) address: String,
    /// The host alone, for what a Cluster says of servers "at the same host".
    pub(super) host: String,
    session: Arc<Mutex<Session>>,
    pool: Pool<Maker>,
    /// Held by who makes a connection.
    making: Semaphore,
    /// Told when a connection is given up because its server is a replica now.
    moved: Notify,
}

/// Makes connections for commands. The manager of `deadpool_redis` opens the stream itself, where
/// nobody could watch what comes.
#[derive(Debug)]
struct Maker {
    host: String,
    port: u16,
    access: Access,
    session: Arc<Mutex<Session>>,
}

/// The connection for commands, and what is known of the server for as long as it lasts: whoever is
/// at the other end of the next may be another, or have forgotten.
struct Session {
    connection: Option<Connection>,
    steady: Steady,
    /// Counts connections.
    number: u64,
    /// What became of the last ones, if it was nothing.
    failure: Option<Failure>,
    /// When a connection was given up for a new one last.
    renewed: Option<Instant>,
    /// What tells a server from itself after a restart, and from the replica that takes over
    /// (`master_replid`); scripts tell it. Empty if it is not known.
    replication_id: String,
    /// Hashes of the scripts that the server has.
    scripts: Vec<String>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("number", &self.number).finish_non_exhaustive()
    }
}

/// Connections in a row that came to nothing.
#[derive(Clone, Debug)]
struct Failure {
    /// Why the last did.
    error: StoreError,
    at: Instant,
    /// Time from then on before another is made.
    pause: Duration,
}

impl Session {
    fn new(steady: Steady) -> Self {
        Self {
            connection: None,
            steady,
            number: 0,
            failure: None,
            renewed: None,
            replication_id: String::new(),
            scripts: Vec::new(),
        }
    }

    /// The connection is not used any more.
    fn end(&mut self) {
        self.steady.lost();
        let (number, renewed, failure) = (self.number, self.renewed, self.failure.take());
        *self = Self { number, renewed, failure, ..Self::new(self.steady) };
    }

    /// A connection has ended by itself; returns what the server has said if it cannot be Redis.
    fn on_end(&mut self, number: u64) -> Option<StoreError> {
        let ended = self.connection.take_if(|_| self.number == number)?.why_ended();
        if matches!(ended, StoreError::Broken(_)) {
            self.fail(&ended);
            return Some(ended);
        }
        self.end();
        None
    }

    fn fail(&mut self, error: &StoreError) {
        self.end();
        let pause = match &self.failure {
            None => Duration::ZERO,
            Some(last) => (last.pause * 2).clamp(BACKOFF.0, BACKOFF.1),
        };
        let error = error.clone().before_it_began();
        self.failure = Some(Failure { error, at: Instant::now(), pause });
    }

    /// Returns how long who came at a time waits before a connection is made; the error if one has
    /// come to nothing meanwhile.
    fn pause(&self, came: Instant) -> Result<Duration, StoreError> {
        match &self.failure {
            Some(last) if last.at > came => Err(last.error.clone()),
            last => Ok(last
                .as_ref()
                .map_or(Duration::ZERO, |last| last.pause.saturating_sub(last.at.elapsed()))),
        }
    }

    fn present(&self) -> Option<(Connection, u64)> {
        Some((self.connection.clone()?, self.number))
    }
}

/// What a server answered, one for each command, over the connection of this number.
pub(super) struct Answers {
    pub(super) values: Vec<Value>,
    pub(super) connection: u64,
}

/// A command on its way to a server.
#[derive(Clone, Copy)]
pub(super) struct ServerCommand<'c> {
    pub(super) command: &'c Cmd,
    /// Whether it takes the server's replication id, as far as that is known, as a last argument,
    /// and answers with a list that ends with the true one.
    pub(super) needs_id: bool,
}

impl Server {
    /// Makes a handle; connects to nothing yet. `is_first`: whether the node finds the server when
    /// it starts.
    pub(super) fn new(host: &str, port: u16, access: &Access, is_first: bool) -> Arc<Self> {
        let session = Arc::new(Mutex::new(Session::new(Steady::new(access.lease, is_first))));
        let (host, access) = (host.to_owned(), access.clone());
        let maker = Maker { host: host.clone(), port, access, session: Arc::clone(&session) };
        #[expect(
            clippy::expect_used,
            reason = "what may fail is a pool that has time-outs and no runtime"
        )]
        let pool = Pool::builder(maker).max_size(1).build().expect("no time-outs");
        Arc::new(Self {
            address: format!("{host}:{port}"),
            host,
            session,
            pool,
            making: Semaphore::new(1),
            moved: Notify::new(),
        })
    }

    /// Opens a connection for subscriptions, of its own; `on_push` must not wait.
    pub(crate) async fn subscriber(
        &self,
        on_push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<Connection, StoreError> {
        let Maker { host, port, access, .. } = self.pool.manager();
        access.connect(host, *port, true, on_push).await
    }

    /// Carries out calls in one round trip; each has its own answer, which may be an error of the
    /// server. All share one connection, since the server takes one command at a time anyway; it is
    /// kept while it is well. `script` is loaded before them unless it is there.
    pub(super) async fn run(
        &self,
        script: Option<&Script>,
        commands: &[ServerCommand<'_>],
    ) -> Result<Answers, StoreError> {
        let (mut connection, number) = self.connection().await?;
        let pipeline = self.pipeline(number, script, commands);
        let (skipped, sent) = (pipeline.len() - commands.len(), Instant::now());
        let answers = connection.ask(&pipeline).await;
        let mut session = self.session.lock();
        let is_same = session.number == number;
        let is_loaded;
        let answers = match answers {
            Ok(mut answers) => {
                let own = answers.split_off(skipped);
                is_loaded = matches!(answers.first(), Some(loaded) if !matches!(loaded, Value::ServerError(_)));
                blame(answers.first(), own)
            }
            Err(error) => {
                if is_same {
                    session.fail(&error);
                }
                return Err(error);
            }
        };
        if is_same {
            session.failure = None;
            session.steady.answered(sent, Instant::now());
            session.scripts.extend(script.filter(|_| is_loaded).map(|script| script.hash.clone()));
            if commands.last().is_some_and(|last| last.needs_id)
                && let Some(Value::Array(answer)) = answers.last()
                && let Some(Ok(id)) = answer.last().map(String::from_redis_value_ref)
            {
                session.replication_id = id;
            }
        }
        Ok(Answers { values: answers, connection: number })
    }

    /// Gives up the connection over which the server has said that it is not the right one: who is
    /// at its address now may be. Returns whether there is, or will be, another to ask over.
    pub(super) fn renew(&self, connection: u64, is_replica: bool) -> bool {
        let mut session = self.session.lock();
        if session.number != connection || session.connection.is_none() {
            return true;
        }
        if session.renewed.is_some_and(|at| at.elapsed() < RENEW_AFTER) {
            return false;
        }
        session.end();
        session.renewed = Some(Instant::now());
        drop(session);
        if is_replica {
            self.moved.notify_waiters();
        }
        true
    }

    /// Returns for how long the server has done at once what it was asked.
    pub(super) fn steady_time(&self) -> Duration {
        self.session.lock().steady.time(Instant::now())
    }

    /// Waits until the server turns out to be a replica, whoever asks. *Cancel safe.*
    pub(crate) async fn moved(&self) {
        self.moved.notified().await;
    }

    /// Asks whether the server is a master still. One that is a replica may take writes all the
    /// same.
    ///
    /// # Errors
    /// It is not; or nobody answers.
    pub(crate) async fn check(&self) -> Result<(), StoreError> {
        let question = cmd("INFO").arg("replication").to_owned();
        let answers =
            self.run(None, &[ServerCommand { command: &question, needs_id: false }]).await?;
        let result = self
            .pool
            .manager()
            .access
            .oldest
            .map_or(Ok(()), |oldest| greeting::examine(&answers.values, oldest));
        if result.is_err() {
            self.renew(answers.connection, true);
        }
        result
    }

    fn pipeline(
        &self,
        number: u64,
        script: Option<&Script>,
        commands: &[ServerCommand<'_>],
    ) -> Pipeline {
        let session = self.session.lock();
        let is_same = session.number == number;
        let mut pipeline = Pipeline::new();
        let is_missing = |script: &&Script| !is_same || !session.scripts.contains(&script.hash);
        if let Some(script) = script.filter(is_missing) {
            pipeline.add_command(script.load.clone());
        }
        for ServerCommand { command, needs_id } in commands {
            let mut command = (*command).clone();
            if *needs_id {
                command.arg(if is_same { &session.replication_id } else { "" });
            }
            pipeline.add_command(command);
        }
        pipeline
    }

    /// Forgets which scripts the server has: it has said that it lacks one.
    pub(super) fn forget_scripts(&self) {
        self.session.lock().scripts.clear();
    }

    /// Returns the connection and its number. Of all who find it gone one makes another, and what
    /// comes of it concerns all.
    async fn connection(&self) -> Result<(Connection, u64), StoreError> {
        if let Some(present) = self.session.lock().present() {
            return Ok(present);
        }
        let came = Instant::now();
        let _making = self.making.acquire().await.map_err(|_| StoreError::Closed)?;
        let (number, pause) = {
            let mut session = self.session.lock();
            if let Some(present) = session.present() {
                return Ok(present);
            }
            let pause = session.pause(came)?;
            session.number += 1;
            (session.number, pause)
        };
        tokio::time::sleep(pause).await;
        let result = match Box::pin(self.pool.get()).await {
            Ok(made) => Ok(Object::take(made)),
            Err(PoolError::Backend(error)) => Err(error),
            Err(error) => Err(StoreError::Connect(None, error.to_string())),
        };
        let mut session = self.session.lock();
        match result {
            Ok(connection) => {
                session.end();
                session.connection = Some(connection.clone());
                session.steady.connected(Instant::now());
                self.pool.manager().access.tell_joined();
                Ok((connection, number))
            }
            Err(error) => {
                session.fail(&error);
                Err(error)
            }
        }
    }
}

impl Manager for Maker {
    type Type = Connection;
    type Error = StoreError;

    async fn create(&self) -> Result<Connection, StoreError> {
        let (ending, address) =
            (Arc::downgrade(&self.session), format!("{}:{}", self.host, self.port));
        let number = self.session.lock().number;
        let refusals = Arc::clone(&self.access.refusals);
        let on_push = move |push: PushInfo| {
            if push.kind == PushKind::Disconnection
                && let Some(session) = ending.upgrade()
            {
                let ended = session.lock().on_end(number);
                // Perhaps nobody waits for an answer.
                ended.into_iter().for_each(|error| refusals.on_error(&address, &error));
            }
        };
        let mut connection = self.access.connect(&self.host, self.port, false, on_push).await?;
        if let Some(oldest) = self.access.oldest {
            let answers = connection
                .ask(&greeting::questions())
                .await
                .map_err(StoreError::before_it_began)?;
            greeting::examine(&answers, oldest)?;
        }
        Ok(connection)
    }

    /// Nothing comes back: a connection is taken out of the pool for as long as it lasts.
    async fn recycle(&self, _: &mut Connection, _: &Metrics) -> RecycleResult<StoreError> {
        Ok(())
    }
}

/// A server that lacks a script because it would not load it says why there.
fn blame(loaded: Option<&Value>, answers: Vec<Value>) -> Vec<Value> {
    let Some(Value::ServerError(reason)) = loaded else { return answers };
    let is_lacking = |answer: &Value| matches!(answer, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript));
    let blamed =
        |answer| if is_lacking(&answer) { Value::ServerError(reason.clone()) } else { answer };
    answers.into_iter().map(blamed).collect()
}
