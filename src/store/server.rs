//! One server of Redis: a pool of connections for commands, and the way to connections for subscriptions.

use std::sync::Arc;

use deadpool_redis::redis::aio::{ConnectionLike as _, MultiplexedConnection};
use deadpool_redis::redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    Pipeline, ProtocolVersion, PushInfo, RedisConnectionInfo, TlsCertificates, Value,
};
use deadpool_redis::{Hook, Manager, Pool, Runtime, Timeouts};
use parking_lot::Mutex;

use super::{ANSWER_TIMEOUT, CONNECT_TIMEOUT, StoreError, answered};
use crate::config::{RedisSettings, RedisTls, Secret};

/// Connections for commands. A pipeline is under way on each; more do not make Redis faster.
const POOL_SIZE: usize = 16;

/// How servers are connected to, whichever they are.
#[derive(Clone, Debug)]
pub(super) struct Access {
    tls: Option<TlsCertificates>,
    login: RedisConnectionInfo,
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
    id: Arc<Mutex<ReplicationId>>,
}

/// What tells a server from itself after a restart, and from the replica that takes over (`master_replid`). Scripts tell it;
/// it is forgotten with every new connection, since the server may be another by then.
#[derive(Debug, Default)]
struct ReplicationId {
    /// Empty if it is not known.
    id: String,
    /// Counts new connections: what was learnt before one does not hold after it.
    connections: u64,
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
        Ok(Self { tls, login })
    }

    /// To Sentinels, which have a login of their own.
    pub(super) fn to_sentinels(&self, settings: &RedisSettings) -> Self {
        let login = login(settings.sentinel_user.as_deref(), settings.sentinel_password.as_ref());
        Self { tls: self.tls.clone(), login }
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

impl Server {
    /// Makes a handle; connects to nothing yet.
    ///
    /// # Errors
    /// The certificates are none.
    pub(super) fn new(host: &str, port: u16, access: &Access) -> Result<Arc<Self>, StoreError> {
        let info = connection_info(host, port, access)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        let manager = Manager::new_with_config(info.clone(), config)?;
        let timeouts = Timeouts {
            wait: Some(CONNECT_TIMEOUT),
            create: Some(CONNECT_TIMEOUT),
            recycle: Some(CONNECT_TIMEOUT),
        };
        let id = Arc::<Mutex<ReplicationId>>::default();
        let forgotten = Arc::clone(&id);
        let forget = Hook::sync_fn(move |_, _| {
            let mut known = forgotten.lock();
            known.id.clear();
            known.connections += 1;
            Ok(())
        });
        let pool = Pool::builder(manager)
            .post_create(forget)
            .max_size(POOL_SIZE)
            .timeouts(timeouts)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| StoreError::Settings(error.to_string()))?;
        let address = format!("{host}:{port}");
        Ok(Arc::new(Self { address, host: host.to_owned(), client: Client::open(info)?, pool, id }))
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
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT))
            .set_push_sender(on_push);
        answered(self.client.get_multiplexed_async_connection_with_config(&config)).await
    }

    /// Carries out commands in one round trip; each has its own answer, which may be an error of the server. They are made
    /// once there is a connection, with the server's replication id, which is empty if it is not known; `id_in` finds it in
    /// the answers.
    pub(super) async fn run(
        &self,
        commands: impl FnOnce(&str) -> Pipeline,
        id_in: impl FnOnce(&[Value]) -> Option<String>,
    ) -> Result<Vec<Value>, StoreError> {
        let mut connection = self.pool.get().await?;
        let (pipeline, connections) = {
            let known = self.id.lock();
            (commands(&known.id), known.connections)
        };
        let answers = answered(connection.req_packed_commands(&pipeline, 0, pipeline.len())).await?;
        if let Some(id) = id_in(&answers) {
            let mut known = self.id.lock();
            if known.connections == connections {
                known.id = id;
            }
        }
        Ok(answers)
    }
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
