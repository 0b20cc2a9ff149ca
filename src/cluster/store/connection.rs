//! A connection to one server: TCP, TLS where that is asked for, the watch over what the server
//! says, and the driver.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, ErrorKind, Pipeline, ProtocolVersion, PushInfo, RedisConnectionInfo,
    RedisError, Value,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::error::StoreError;
use super::greeting;
use super::refusals::Refusals;
use super::resp::Breach;
use super::wire::{FirstBreach, Wire};
use crate::config::{RedisSettings, RedisTls, RedisTopology, Secret};

/// Longest wait for a connection, its making included. Redis is on the same network, or it is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest wait for an answer. A command that takes longer is in doubt, and its caller is told so.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes around a message: epoch, offset, and what is counted for its values.
const AROUND: usize = 1 << 10;

/// How servers are connected to, whichever they are.
#[derive(Clone)]
pub(super) struct Access {
    tls: Option<TlsConnector>,
    login: RedisConnectionInfo,
    /// The oldest version that will do, of who holds the data; it has to be a master, too.
    pub(super) oldest: Option<(u32, u32)>,
    /// Longest message.
    message_bytes: usize,
    pub(super) lease: Duration,
    /// Told of every new connection for commands to a server that holds the data.
    joined: Arc<Notify>,
    pub(super) refusals: Arc<Refusals>,
}

/// See the [module documentation](self); clones share it.
#[derive(Clone)]
pub(crate) struct Connection {
    driver: MultiplexedConnection,
    fault: FirstBreach,
    /// The driver's task ends with the last clone.
    _task: Arc<AbortOnDropHandle<()>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("oldest", &self.oldest).finish_non_exhaustive()
    }
}

impl Access {
    /// To the servers that hold the data.
    ///
    /// # Errors
    /// A file with a certificate or key cannot be read, or holds none.
    pub(super) fn to_data(
        settings: &RedisSettings,
        message_bytes: usize,
        refusals: &Arc<Refusals>,
    ) -> Result<Self, StoreError> {
        let url = &settings.url;
        let tls = url.tls.then(|| connector(&settings.tls)).transpose()?;
        let login =
            login(url.user.as_deref(), url.password.as_ref()).set_db(i64::from(url.database));
        let oldest = match url.topology {
            RedisTopology::Single | RedisTopology::Sentinel(_) => greeting::OLDEST,
            RedisTopology::Cluster => greeting::OLDEST_OF_CLUSTER,
        };
        let (lease, joined) = (settings.lease, Arc::default());
        let refusals = Arc::clone(refusals);
        Ok(Self { tls, login, oldest: Some(oldest), message_bytes, lease, joined, refusals })
    }

    /// Waits for a new connection for commands to a server that holds the data. *Cancel safe.*
    pub(super) async fn joined(&self) {
        self.joined.notified().await;
    }

    /// A connection for commands was made.
    pub(super) fn tell_joined(&self) {
        if self.oldest.is_some() {
            self.joined.notify_one();
        }
    }

    /// To servers of which it is only asked where the data is.
    pub(super) fn to_guides(&self) -> Self {
        Self { oldest: None, ..self.clone() }
    }

    /// To Sentinels, which have a login of their own.
    pub(super) fn to_sentinels(&self, settings: &RedisSettings) -> Self {
        let login = login(settings.sentinel_user.as_deref(), settings.sentinel_password.as_ref());
        Self { login, ..self.to_guides() }
    }

    /// Connects; what is pushed, and that the connection has ended, is given to `on_push`, which
    /// must not wait. Messages are pushed to who `listens` alone.
    pub(super) async fn connect(
        &self,
        host: &str,
        port: u16,
        listens: bool,
        on_push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<Connection, StoreError> {
        let connecting = async {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            let Some(tls) = &self.tls else { return self.greet(stream, listens, on_push).await };
            let name = ServerName::try_from(host.to_owned());
            let name = name.map_err(|error| StoreError::Settings(format!("{host}: {error}")))?;
            let stream = tls.connect(name, stream).await.map_err(|error| {
                let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
                match inner {
                    Some(rustls::Error::InvalidMessage(_)) => {
                        StoreError::Broken(Breach::Unencrypted)
                    }
                    _ => error.into(),
                }
            })?;
            self.greet(stream, listens, on_push).await
        };
        let result = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
        match result.unwrap_or(Err(StoreError::Timeout)) {
            Err(StoreError::Command(error)) => Err(self.turned_away(host, port, error).await),
            result => result.map_err(StoreError::before_it_began),
        }
    }

    /// Says hello over a stream.
    async fn greet<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        &self,
        stream: S,
        listens: bool,
        on_push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<Connection, StoreError> {
        let (wire, fault) = Wire::new(stream, self.message_bytes + AROUND, listens);
        let on_push = move |push| {
            on_push(push);
            Ok::<_, ()>(())
        };
        // Each pipeline is flushed for itself, so that the wire knows where it ends.
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(ANSWER_TIMEOUT))
            .set_write_backpressure_boundary(1)
            .set_push_sender(on_push);
        match MultiplexedConnection::new_with_config(&self.login, wire, config).await {
            Ok((driver, task)) => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "it ends with the last clone of the connection"
                )]
                let task = tokio::spawn(task);
                Ok(Connection { driver, fault, _task: Arc::new(AbortOnDropHandle::new(task)) })
            }
            Err(error) if error.kind() == ErrorKind::RESP3NotSupported => {
                let needed = self.oldest.unwrap_or(greeting::OLDEST);
                Err(StoreError::TooOld { version: "less than 6".to_owned(), needed })
            }
            Err(error) => Err(fault.get().map_or(StoreError::Command(error), StoreError::Broken)),
        }
    }

    /// Returns why no connection could be made. A server that lets nobody in (too many clients,
    /// protected mode) says so at once and closes, which is lost when our greeting is answered with
    /// a reset: so somebody who says nothing listens.
    async fn turned_away(&self, host: &str, port: u16, error: RedisError) -> StoreError {
        let said = if error.is_connection_dropped() && self.tls.is_none() {
            greeting::first_words(host, port).await
        } else {
            None
        };
        StoreError::Command(said.unwrap_or(error)).before_it_began()
    }
}

impl Connection {
    /// Carries out commands in one round trip; each has its own answer, which may be an error of
    /// the server.
    pub(crate) async fn ask(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, StoreError> {
        let answers = self.driver.req_packed_commands(pipeline, 0, pipeline.len());
        let answers =
            tokio::time::timeout(ANSWER_TIMEOUT, answers).await.map_err(|_| StoreError::Timeout)?;
        answers.map_err(|error| {
            self.fault.get().map_or(StoreError::Command(error), StoreError::Broken)
        })
    }

    /// Returns why it has ended.
    pub(crate) fn why_ended(&self) -> StoreError {
        self.fault.get().map_or(StoreError::Closed, StoreError::Broken)
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

/// Reads the files; without one of certificates, those count that this system trusts.
fn connector(files: &RedisTls) -> Result<TlsConnector, StoreError> {
    let wrong = |path: &str, error: &dyn std::fmt::Display| {
        StoreError::Settings(format!("{path}: {error}"))
    };
    let mut roots = RootCertStore::empty();
    match &files.ca_file {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| wrong(path, &error))?;
            }
        }
        None => {
            let certificates = rustls_native_certs::load_native_certs().certs;
            let _counts = roots.add_parsable_certificates(certificates);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("TLS", &error))?
        .with_root_certificates(roots);
    let config = match (&files.cert_file, &files.key_file) {
        (Some(cert_file), Some(key_file)) => {
            let key =
                PrivateKeyDer::from_pem_file(key_file).map_err(|error| wrong(key_file, &error))?;
            let config = config.with_client_auth_cert(certificates(cert_file)?, key);
            config.map_err(|error| wrong(key_file, &error))?
        }
        _ => config.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let wrong = |error| StoreError::Settings(format!("{path}: {error}"));
    CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(wrong)
}
