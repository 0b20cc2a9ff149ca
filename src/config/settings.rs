//! All settings as the program works with them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Uri};
use ipnet::IpNet;

use super::redis_url::RedisUrl;
use super::secret::Secret;
use super::values::Values;
use crate::model::broker::Terms;
use crate::model::groups::Groups;
use crate::model::origin::OriginPattern;
use crate::ops::log::LogFormat;
use crate::ops::trace::Tracing;
use crate::routing::expression::Expression;
use crate::routing::route::RouteTable;

/// All settings, checked.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Where clients connect.
    pub(crate) listen: SocketAddr,
    /// Where operators and probes connect.
    pub(crate) admin_listen: SocketAddr,
    /// Path prefix of the gateway.
    pub(crate) stage: String,
    /// Name of this node in logs and `/info`.
    pub(crate) node_name: String,
    /// Event loops; 0 for one a core.
    pub(crate) shards: usize,
    /// Form of the log.
    pub(crate) log_format: LogFormat,
    /// Bounds.
    pub(crate) limits: Limits,
    /// Shutdown.
    pub(crate) drain: Drain,
    /// Who may use the management API.
    pub(crate) management: Management,
    /// How functions come back.
    pub(crate) callback: CallbackSettings,
    /// Who may connect.
    pub(crate) auth: Auth,
    /// What stands between clients and the node.
    pub(crate) proxies: ProxySettings,
    /// Where many nodes meet; `None` for a node that is alone.
    pub(crate) redis: Option<RedisSettings>,
    /// What becomes of spans.
    pub(crate) tracing: Tracing,
    /// What differs between groups.
    pub(crate) groups: Groups,
    /// What messages do.
    pub(crate) routes: RouteTable,
    /// Back ends that are called over HTTP.
    pub(crate) targets: Vec<HttpSettings>,
    /// Streams that events are appended to.
    pub(crate) streams: Vec<StreamSettings>,
    /// Functions whose processes this node runs.
    pub(crate) functions: Vec<FunctionSettings>,
    /// What each setting was read as.
    pub(crate) values: Values,
    /// Where programs are looked for that functions run with.
    pub(crate) search_path: Option<String>,
    /// What is understood and yet hardly meant, such as variables of the environment that are no
    /// settings.
    pub(crate) warnings: Vec<String>,
}

/// A back end that is called over HTTP.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HttpSettings {
    pub(crate) name: String,
    pub(crate) url: Uri,
    pub(crate) format: Format,
    /// Headers that are sent besides, and what is in them.
    pub(crate) headers: Vec<(HeaderName, Expression)>,
    /// From when a call is taken to its answer.
    pub(crate) timeout: Duration,
    /// Most calls under way.
    pub(crate) max_in_flight: usize,
    /// Most calls that wait.
    pub(crate) max_waiting: usize,
}

/// A stream of Redis that events are appended to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamSettings {
    pub(crate) name: String,
    /// Most entries, about.
    pub(crate) max_entries: usize,
}

/// What a back end is sent, and what is made of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The event of a Lambda proxy integration; the answer is its result.
    LambdaProxy,
    /// An event of `CloudEvents`, its attributes in headers; the answer is the reply.
    CloudEvents,
    /// The message as it came; the answer is the reply.
    Raw,
}

/// Bounds on what a client may do and hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    /// Most connections at a time; over it the handshake is answered 503.
    pub(crate) max_connections: usize,
    /// Most HTTP connections of a port whose request is not being served, most handshakes and most
    /// calls that are; over it the idle and the late give way, and the others wait.
    pub(crate) max_http_connections: usize,
    /// Most handshakes that are let in a second, with a burst of one second's; over it they are
    /// answered 503.
    pub(crate) handshake_rate: usize,
    /// What each address may have of the way in.
    pub(crate) per_address: PerAddress,
    /// Longest time for a request's head, a PROXY header before it included; for its body; and
    /// without any of its answer taken.
    pub(crate) handshake_timeout: Duration,
    /// Longest time between the requests of an HTTP connection.
    pub(crate) keep_alive_timeout: Duration,
    /// Longest payload of a frame from a client, in bytes.
    pub(crate) frame_bytes: usize,
    /// Longest message, in bytes.
    pub(crate) message_bytes: usize,
    /// Whether binary messages are taken.
    pub(crate) allow_binary: bool,
    /// Most messages and control frames a second from one connection, with a burst of one second's;
    /// whoever sends more is not read from meanwhile.
    pub(crate) message_rate: usize,
    /// Most bytes a second from one connection, with a burst of one second's and no more than half
    /// an outbox.
    pub(crate) receive_bytes_rate: usize,
    /// Most bytes a second from one connection, each counting once for every member on this node
    /// that it goes to, with a burst of one second's.
    pub(crate) fanout_bytes_rate: usize,
    /// Most groups a second that one connection may name which this node has not seen lately, with
    /// a burst of ten seconds' or of all that it may be in.
    pub(crate) new_channels_rate: usize,
    /// The same for all connections of one address, with a burst of four seconds'; `None` for no
    /// bound.
    pub(crate) new_channels_per_address: Option<usize>,
    /// Longest time without a message in either direction.
    pub(crate) idle_timeout: Duration,
    /// Longest life of a connection.
    pub(crate) max_lifetime: Duration,
    /// Time between pings, jittered by a tenth; `None` for none.
    pub(crate) ping_interval: Option<Duration>,
    /// Longest wait for anything from the client after a ping.
    pub(crate) pong_timeout: Duration,
    /// Most bytes waiting for a client.
    pub(crate) outbox_bytes: usize,
    /// Longest time that bytes may wait for a client without any progress.
    pub(crate) outbox_age: Duration,
    /// Longest wait for the client's close frame after ours, and for progress where it is owed
    /// nothing.
    pub(crate) close_timeout: Duration,
    /// Most calls of back ends under way for one connection; it is not read from meanwhile.
    pub(crate) calls_per_connection: usize,
    /// Most groups one connection may be in.
    pub(crate) groups_per_connection: usize,
    /// How long a message's idempotency key is remembered.
    pub(crate) idempotency_age: Duration,
    /// Most bytes that clients and callers together may make the node hold; 0 for half of what the
    /// process may use.
    pub(crate) memory_budget: usize,
}

/// What may be on its way to a client unseen, in kernels and proxies, in outboxes.
const UNDER_WAY_MAX: f64 = 4.0;

impl Limits {
    /// Returns the time that a client has for so many bytes on their way: `outbox_age` for each
    /// `outbox_bytes`, by default 35 kB/s, and four times that at most.
    pub(crate) fn lag(&self, bytes: u64) -> Duration {
        self.outbox_age.mul_f64((bytes as f64 / self.outbox_bytes as f64).min(UNDER_WAY_MAX))
    }
}

/// Bounds on what one address may have; over them its handshakes are answered 429.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct PerAddress {
    /// Most handshakes a second, with a burst of four seconds'; `None` for no bound.
    pub(crate) handshake_rate: Option<usize>,
    /// Most connections at a time; `None` for no bound.
    pub(crate) connections: Option<usize>,
    /// Whether there are no bounds only because nobody has asked for them.
    pub(crate) is_unset: bool,
}

/// How a node shuts down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Drain {
    /// Time between "not ready" and the end of accepting, for load balancers to notice.
    pub(crate) notice: Duration,
    /// Time over which connections are closed.
    pub(crate) window: Duration,
    /// Fewest connections closed a second where no other node takes them, so that a few do not take
    /// the whole window.
    pub(crate) min_rate: usize,
    /// Time from the end of `window` after which what is left is cut.
    pub(crate) grace: Duration,
}

/// Who may use the management API.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Management {
    /// How callers prove who they are; chosen by [`Config`] where the operator did not.
    pub(crate) auth: ManagementAuth,
    /// Keys that callers sign with.
    pub(crate) keys: Arc<[AccessKey]>,
    /// Largest difference between the caller's clock and ours.
    pub(crate) clock_skew: Duration,
}

/// How callers of the management API prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ManagementAuth {
    /// By an AWS Signature Version 4.
    SigV4,
    /// Not at all, but they have to be on this host: the default where nobody else reaches the
    /// ports.
    Local,
    /// Not at all.
    None,
}

/// One pair of keys that a back end signs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccessKey {
    /// The public half.
    pub(crate) id: String,
    /// The secret half.
    pub(crate) secret: Secret,
}

/// How functions reach the management API.
#[derive(Clone, Debug)]
pub(crate) struct CallbackSettings {
    /// Where they connect; else at a port of the kernel's choice, if there are any.
    pub(crate) listen: Option<SocketAddr>,
    /// `host` or `host:port` as they reach it.
    pub(crate) domain_name: Option<String>,
    /// What is shown there; else a certificate of a private CA.
    pub(crate) certificate: Option<CertificateFiles>,
    /// `AWS_REGION` of functions.
    pub(crate) region: String,
}

/// Files, in PEM, for the server's side of TLS.
#[derive(Clone, Debug)]
pub(crate) struct CertificateFiles {
    /// The certificate, and those that lead to whom clients trust.
    pub(crate) cert_file: String,
    /// Its key.
    pub(crate) key_file: String,
}

/// How nodes meet in Redis.
#[derive(Clone, Debug)]
pub(crate) struct RedisSettings {
    /// Where it is.
    pub(crate) url: RedisUrl,
    /// User for the Sentinels themselves.
    pub(crate) sentinel_user: Option<String>,
    /// Their password.
    pub(crate) sentinel_password: Option<Secret>,
    /// What encrypted connections are checked with.
    pub(crate) tls: RedisTls,
    /// Start of every key and channel.
    pub(crate) prefix: String,
    /// How long a node that is not heard of holds its connections.
    pub(crate) lease: Duration,
    /// Time between round trips through the publish path, each of which proves that messages
    /// arrive.
    pub(crate) heartbeat: Duration,
    /// Messages kept of a channel, about, to repair gaps from.
    pub(crate) stream_entries: usize,
    /// Most bytes kept of a channel, about, each message counting 128 more.
    pub(crate) stream_bytes: usize,
    /// Memory of a server at which streams keep the least, in bytes; 0 for what follows from the
    /// server's own limit.
    pub(crate) stream_budget: usize,
    /// Longest time for which they are kept, about.
    pub(crate) stream_age: Duration,
    /// What becomes of messages, joins and handshakes while Redis is away.
    pub(crate) on_outage: OnOutage,
    /// Most bytes of messages that wait for Redis to come back.
    pub(crate) buffer_bytes: usize,
    /// Longest time that a message waits for it.
    pub(crate) buffer_age: Duration,
}

/// What is done while Redis is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnOutage {
    /// Whatever needs Redis is refused.
    Reject,
    /// Clients are let in, and messages reach the members on the same node.
    Local,
    /// Messages wait for a while; the rest is refused.
    Buffer,
}

/// Files, in PEM, for encrypted connections to Redis.
#[derive(Clone, Debug, Default)]
pub(crate) struct RedisTls {
    /// Certificates that may sign the servers'; without it those that the system trusts.
    pub(crate) ca_file: Option<String>,
    /// The certificate by which this node is known to the servers.
    pub(crate) cert_file: Option<String>,
    /// Its key.
    pub(crate) key_file: Option<String>,
}

/// Who may connect.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Auth {
    /// Pages that may connect.
    pub(crate) allowed_origins: Origins,
    /// Header that a trusted proxy sets to the authenticated user's name.
    pub(crate) user_header: Option<HeaderName>,
    /// Sub-protocols that are selected where no back end is asked.
    pub(crate) subprotocols: Vec<String>,
}

/// Pages that may connect. Clients that send no `Origin` are not browsers, and are not asked for
/// it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Origins {
    /// All.
    #[default]
    Any,
    /// Those of this host, as all else that connects has to be: the default where nobody else
    /// reaches the port, and nothing says that a proxy does.
    Local,
    /// Those that the operator has listed.
    Listed(Arc<[OriginPattern]>),
}

/// What stands between clients and the node.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProxySettings {
    /// Whose word is taken for a client's address and user.
    pub(crate) trusted: Vec<IpNet>,
    /// Whether every connection of the public port begins with a header of the PROXY protocol.
    pub(crate) protocol: bool,
}

/// A function whose processes this node runs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FunctionSettings {
    /// What targets call it.
    pub(crate) name: String,
    /// What runs its code.
    pub(crate) runtime: Runtime,
    /// File and export that are called, such as `index.handler`.
    pub(crate) handler: Option<String>,
    /// The folder of its code, where its processes work.
    pub(crate) code: PathBuf,
    /// Program and arguments; for `node` and `python` the interpreter's. Empty for the default.
    pub(crate) command: Vec<String>,
    /// Longest run; a process that takes longer is killed.
    pub(crate) timeout: Duration,
    /// Processes that are kept while nothing is to do.
    pub(crate) min_processes: usize,
    /// Most processes at a time.
    pub(crate) max_processes: usize,
    /// Most runs at a time in one process.
    pub(crate) concurrency: usize,
    /// Variables of its environment besides those that Lambda sets.
    pub(crate) environment: BTreeMap<String, Secret>,
    /// Addresses that its code reaches hosts at, by their names.
    pub(crate) hosts: BTreeMap<String, SocketAddr>,
    /// The domain name in its events, where it is not the node's.
    pub(crate) callback_domain: Option<String>,
}

/// What runs the code of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// Node.js, with a bootstrap of ours.
    Node,
    /// Python, with the package `awslambdaric`.
    Python,
    /// A program that asks the Runtime API for work itself.
    Command,
}

impl Config {
    /// Returns what brokers need to know.
    pub(crate) fn terms(&self) -> Terms {
        Terms { groups: self.groups.clone(), message_bytes: self.limits.message_bytes }
    }

    /// Returns the number of event loops to start: unless it is given, one core is left to
    /// handshakes, the management API and Redis.
    pub(crate) fn shard_count(&self) -> usize {
        match self.shards {
            0 => std::thread::available_parallelism()
                .map_or(1, |cores| cores.get().saturating_sub(1).max(1)),
            count => count,
        }
    }
}
