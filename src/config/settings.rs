//! All settings as the program works with them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Uri};
use ipnet::IpNet;

pub(crate) use self::limits::{Limits, PerAddress};
use super::aws::AwsVariables;
use super::redis_url::RedisUrl;
use super::secret::Secret;
use super::values::Values;
use crate::model::broker::Terms;
use crate::model::groups::Groups;
use crate::model::origin::OriginPattern;
use crate::ops::access::format::Format as AccessFormat;
use crate::ops::log::LogFormat;
use crate::ops::trace::Tracing;
use crate::routing::expression::Expression;
use crate::routing::route::RouteTable;

mod limits;

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
    /// Whether functions are started anew when their files change.
    pub(crate) watches: bool,
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
    /// Lines about what clients do; `None` for none.
    pub(crate) access_log: Option<AccessLogSettings>,
    /// What differs between groups.
    pub(crate) groups: Groups,
    /// What messages do.
    pub(crate) routes: RouteTable,
    /// Back ends that are called over HTTP.
    pub(crate) targets: Vec<HttpSettings>,
    /// Lambda functions that run elsewhere.
    pub(crate) lambdas: Vec<LambdaSettings>,
    /// Streams that events are appended to.
    pub(crate) streams: Vec<StreamSettings>,
    /// Functions whose processes this node runs.
    pub(crate) functions: Vec<FunctionSettings>,
    /// What each setting was read as.
    pub(crate) values: Values,
    /// Where programs are looked for that functions run with.
    pub(crate) search_path: Option<String>,
    /// Variables that the SDKs of AWS read.
    pub(crate) aws: AwsVariables,
    /// What is understood and yet hardly meant, such as variables of the environment that are no
    /// settings.
    pub(crate) warnings: Vec<String>,
}

/// Lines about what clients do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AccessLogSettings {
    pub(crate) format: AccessFormat,
    /// They are added to; standard output without.
    pub(crate) file: Option<PathBuf>,
}

/// A back end that is called over HTTP.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HttpSettings {
    pub(crate) name: String,
    pub(crate) url: Uri,
    pub(crate) format: Format,
    /// Headers that are sent besides, and what is in them.
    pub(crate) headers: Vec<(HeaderName, Expression)>,
    /// Parameters that are added to the query of the address.
    pub(crate) parameters: Vec<(String, Expression)>,
    /// From when a call is taken to its answer.
    pub(crate) timeout: Duration,
    /// Most calls under way.
    pub(crate) max_in_flight: usize,
    /// Most calls that wait.
    pub(crate) max_waiting: usize,
}

/// A Lambda function that runs elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LambdaSettings {
    pub(crate) name: String,
    /// Its name or ARN there, with an alias or a version.
    pub(crate) function: String,
    /// The Invoke API that is called.
    pub(crate) endpoint: Uri,
    pub(crate) auth: LambdaAuth,
    /// Empty where nothing is signed and nobody says.
    pub(crate) region: String,
    /// Of the files that the SDKs share.
    pub(crate) profile: Option<String>,
    /// From when a call is taken to its answer.
    pub(crate) timeout: Duration,
    /// Most calls under way.
    pub(crate) max_in_flight: usize,
    /// Most calls that wait.
    pub(crate) max_waiting: usize,
}

/// What calls of a function are signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LambdaAuth {
    /// Credentials of AWS.
    SigV4,
    /// Nothing.
    None,
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
    /// The same in one JSON object.
    CloudEventsStructured,
    /// The message as it came; the answer is the reply.
    Raw,
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
    /// What is shown there; by default a certificate of a private CA.
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

impl Runtime {
    /// Returns its name in settings.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Python => "python",
            Self::Command => "command",
        }
    }
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
