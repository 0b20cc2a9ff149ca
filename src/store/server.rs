//! One server of Redis: the connection for commands, and the way to connections for subscriptions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_redis::redis::aio::{ConnectionLike as _, MultiplexedConnection};
use deadpool_redis::redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue as _,
    IntoConnectionInfo as _, Pipeline, ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisError,
    ServerErrorKind, TlsCertificates, Value, cmd,
};
use deadpool_redis::{Connection, Manager, Pool, PoolError, Runtime, Timeouts};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::refusal::Class;
use super::{ANSWER_TIMEOUT, CONNECT_TIMEOUT, Script, StoreError, answered, greeting};
use crate::config::{RedisSettings, RedisTls, Secret};

/// Connections that may be made at a time, when all who want one find it gone.
const POOL_SIZE: usize = 4;
/// Shortest time between two connections that are given up for new ones because their server says that it is not the right one
/// any more: what stays wrong costs two connections a second.
const RENEW_AFTER: Duration = Duration::from_millis(500);
/// How servers are connected to, whichever they are.
#[derive(Clone, Debug)]
pub(super) struct Access {
    tls: Option<TlsCertificates>,
    login: RedisConnectionInfo,
    /// Whether who answers has to be a master, and not too old.
    needs_master: bool,
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Server {
    /// `host:port`, by which the server is told from others.
    pub(crate) address: String,
    /// The host alone, for what a Cluster says of servers "at the same host".
    pub(super) host: String,
    client: Client,
    pool: Pool,
    session: Arc<Mutex<Session>>,
    port: u16,
    is_plain: bool,
    needs_master: bool,
    /// Told when a connection is given up because its server is a replica now.
    moved: Notify,
}

/// The connection for commands, and what is known of the server for as long as it lasts: whoever is at the other end of the
/// next may be another, or have forgotten.
#[derive(Default)]
struct Session {
    connection: Option<MultiplexedConnection>,
    /// Counts connections.
    number: u64,
    /// When a connection was given up for a new one last.
    renewed: Option<Instant>,
    /// What tells a server from itself after a restart, and from the replica that takes over (`master_replid`); scripts
    /// tell it. Empty if it is not known.
    replication_id: String,
    /// Hashes of the scripts that the server has.
    scripts: Vec<String>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Session {
    fn end(&mut self) {
        *self = Self { number: self.number, renewed: self.renewed, ..Self::default() };
    }
}

impl Access {
    /// To the servers that hold the data.
    ///
    /// # Errors
    /// A file with a certificate or key cannot be read.
    pub(super) fn to_data(settings: &RedisSettings) -> Result<Self, StoreError> {
        let url = &settings.url;
        let tls = url.tls.then(|| certificates(&settings.tls)).transpose()?;
        let login = login(url.user.as_deref(), url.password.as_ref()).set_db(i64::from(url.database));
        Ok(Self { tls, login, needs_master: true })
    }

    /// To servers of which it is only asked where the data is.
    pub(super) fn to_guides(&self) -> Self {
        Self { needs_master: false, ..self.clone() }
    }

    /// To Sentinels, which have a login of their own.
    pub(super) fn to_sentinels(&self, settings: &RedisSettings) -> Self {
        let login = login(settings.sentinel_user.as_deref(), settings.sentinel_password.as_ref());
        Self { tls: self.tls.clone(), login, needs_master: false }
    }
}

fn login(user: Option<&str>, password: Option<&Secret>) -> RedisConnectionInfo {
    let mut login = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
    if let Some(user) = user {
        login = login.set_username(user);
    }
    if let Some(password) = password {
        login = login.set_password(password.expose());
    }
    login
}

/// Reads the files.
fn certificates(files: &RedisTls) -> Result<TlsCertificates, StoreError> {
    let read = |path: &Option<String>| {
        let read = |path: &String| {
            std::fs::read(path).map_err(|error| StoreError::Settings(format!("{path}: {error}")))
        };
        path.as_ref().map(read).transpose()
    };
    let client_tls = match (read(&files.cert_file)?, read(&files.key_file)?) {
        (Some(client_cert), Some(client_key)) => Some(ClientTlsConfig { client_cert, client_key }),
        _ => None,
    };
    // Whoever came first has chosen the same.
    drop(rustls::crypto::ring::default_provider().install_default());
    Ok(TlsCertificates { client_tls, root_cert: read(&files.ca_file)? })
}

/// What a server answered, one for each command, over the connection of this number.
pub(super) struct Answers {
    pub(super) values: Vec<Value>,
    pub(super) connection: u64,
}

/// A command on its way to a server.
#[derive(Clone, Copy)]
pub(super) struct Command<'c> {
    pub(super) command: &'c Cmd,
    /// Whether it takes the server's replication id, as far as that is known, as a last argument, and answers with a list
    /// that ends with the true one.
    pub(super) needs_id: bool,
}

impl Server {
    /// Makes a handle; connects to nothing yet.
    ///
    /// # Errors
    /// The certificates are none.
    pub(super) fn new(host: &str, port: u16, access: &Access) -> Result<Arc<Self>, StoreError> {
        let info = connection_info(host, port, access)?;
        let session = Arc::<Mutex<Session>>::default();
        let ending = Arc::clone(&session);
        let on_push = move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                ending.lock().end();
            }
            Ok::<_, ()>(())
        };
        let config = config().set_push_sender(on_push);
        let timeouts = Timeouts {
            wait: Some(CONNECT_TIMEOUT),
            create: Some(CONNECT_TIMEOUT),
            recycle: Some(CONNECT_TIMEOUT),
        };
        let manager = Manager::new_with_config(info.clone(), config)?;
        let pool = Pool::builder(manager)
            .max_size(POOL_SIZE)
            .timeouts(timeouts)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| StoreError::Settings(error.to_string()))?;
        let address = format!("{host}:{port}");
        Ok(Arc::new(Self {
            address,
            host: host.to_owned(),
            port,
            is_plain: access.tls.is_none(),
            client: Client::open(info)?,
            pool,
            session,
            needs_master: access.needs_master,
            moved: Notify::new(),
        }))
    }

    /// Opens a connection for subscriptions, of its own; `on_push` must not wait.
    pub(crate) async fn subscriber(
        &self,
        on_push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<MultiplexedConnection, StoreError> {
        let on_push = move |push| {
            on_push(push);
            Ok::<_, ()>(())
        };
        let config = config().set_push_sender(on_push);
        match answered(self.client.get_multiplexed_async_connection_with_config(&config)).await {
            Err(StoreError::Command(error)) => Err(self.turned_away(error).await),
            result => result,
        }
    }

    /// Returns why no connection could be made. A server that lets nobody in (too many clients, protected mode) says so at once
    /// and closes, which is lost when our greeting is answered with a reset: so somebody who says nothing listens.
    async fn turned_away(&self, error: RedisError) -> StoreError {
        let said = if error.is_connection_dropped() && self.is_plain {
            greeting::first_words(&self.host, self.port).await
        } else {
            None
        };
        let error = said.unwrap_or(error);
        StoreError::Connect(Class::of(&error), error.to_string())
    }

    /// Carries out calls in one round trip; each has its own answer, which may be an error of the server. All share one
    /// connection, since the server takes one command at a time anyway; it is taken from the pool, which knows how to make
    /// one, and kept while it is well. `script` is loaded before them unless it is there.
    pub(super) async fn run(
        &self,
        script: Option<&Script>,
        commands: &[Command<'_>],
    ) -> Result<Answers, StoreError> {
        let (mut connection, number) = self.connection().await?;
        let pipeline = self.pipeline(number, script, commands);
        let skipped = pipeline.len() - commands.len();
        let answers = answered(connection.req_packed_commands(&pipeline, 0, pipeline.len())).await;
        let mut session = self.session.lock();
        let is_same = session.number == number;
        let is_loaded;
        let answers = match answers {
            Ok(mut answers) => {
                let own = answers.split_off(skipped);
                is_loaded =
                    matches!(answers.first(), Some(loaded) if !matches!(loaded, Value::ServerError(_)));
                blame(answers.first(), own)
            }
            Err(error) => {
                if is_same {
                    session.end();
                }
                return Err(error);
            }
        };
        if is_same {
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

    /// Gives up the connection over which the server has said that it is not the right one: who is at its address now may be.
    /// Returns whether there is, or will be, another to ask over.
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

    /// Waits until the server turns out to be a replica, whoever asks. *Cancel safe.*
    pub(crate) async fn moved(&self) {
        self.moved.notified().await;
    }

    /// Asks whether the server is a master still. One that is a replica may take writes all the same.
    ///
    /// # Errors
    /// It is not; or nobody answers.
    pub(crate) async fn check(&self) -> Result<(), StoreError> {
        let question = cmd("INFO").arg("replication").to_owned();
        let answers = self.run(None, &[Command { command: &question, needs_id: false }]).await?;
        let result = greeting::examine(&answers.values);
        if result.is_err() {
            self.renew(answers.connection, true);
        }
        result
    }

    fn pipeline(&self, number: u64, script: Option<&Script>, commands: &[Command<'_>]) -> Pipeline {
        let session = self.session.lock();
        let is_same = session.number == number;
        let mut pipeline = Pipeline::new();
        let is_missing = |script: &&Script| !is_same || !session.scripts.contains(&script.hash);
        if let Some(script) = script.filter(is_missing) {
            pipeline.add_command(script.load.clone());
        }
        for Command { command, needs_id } in commands {
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

    /// Returns the connection and its number.
    async fn connection(&self) -> Result<(MultiplexedConnection, u64), StoreError> {
        let present = |session: &Session| Some((session.connection.clone()?, session.number));
        if let Some(present) = present(&self.session.lock()) {
            return Ok(present);
        }
        let mut connection = match self.pool.get().await {
            Ok(connection) => Connection::take(connection),
            Err(PoolError::Backend(error)) => return Err(self.turned_away(error).await),
            Err(error) => return Err(error.into()),
        };
        if self.needs_master {
            let pipeline = greeting::questions();
            let answers = connection.req_packed_commands(&pipeline, 0, pipeline.len());
            let answers = tokio::time::timeout(CONNECT_TIMEOUT, answers).await;
            greeting::examine(&answers.map_err(|_| StoreError::Timeout)??)?;
        }
        let mut session = self.session.lock();
        session.end();
        session.number += 1;
        session.connection = Some(connection.clone());
        Ok((connection, session.number))
    }
}

/// A server that lacks a script because it would not load it says why there.
fn blame(loaded: Option<&Value>, answers: Vec<Value>) -> Vec<Value> {
    let Some(Value::ServerError(reason)) = loaded else { return answers };
    let is_lacking = |answer: &Value| matches!(answer, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript));
    let blamed = |answer| if is_lacking(&answer) { Value::ServerError(reason.clone()) } else { answer };
    answers.into_iter().map(blamed).collect()
}

fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(ANSWER_TIMEOUT))
}

fn connection_info(host: &str, port: u16, access: &Access) -> Result<ConnectionInfo, StoreError> {
    let info = match &access.tls {
        None => ConnectionAddr::Tcp(host.to_owned(), port).into_connection_info()?,
        Some(certificates) => {
            let address =
                ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure: false, tls_params: None };
            let client = Client::build_with_tls(address, certificates.clone())?;
            client.get_connection_info().clone()
        }
    };
    Ok(info.set_redis_settings(access.login.clone()))
}
