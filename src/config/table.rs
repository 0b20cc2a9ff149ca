//! The settings, a row each. All that is said of them anywhere comes from here: what the parser
//! takes, its defaults and bounds, the names of the variables, what a reload does, the reference in
//! the README, and the JSON schema.
//!
//! A row: its name and kind; its default, with the least and the most that it may be; what a reload
//! does with it ([`super::row::Reload`]); what it is, for operators. To add a setting, add its row,
//! and the field that it is read into.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;

use super::kinds::Attribute;
use super::kinds::domain::{Domain, DomainName};
use super::kinds::keys::{KeyId, KeySecret};
use super::kinds::lambda::{FunctionName, Region};
use super::kinds::maps::{Addresses, Variables};
use super::kinds::off::{Bound, Switchable};
use super::kinds::texts::{AccessFormat, Texts, Url};
use super::redis_url::RedisUrl;
use super::row::Reload::{Next, Open, Restart};
use super::row::{Described, Row, Shape, bytes, fixed, like, made, none, within};
use super::secret::Secret;
use super::settings::{
    AccessKey, Format, FunctionSettings, HttpSettings, LambdaAuth, LambdaSettings, ManagementAuth,
    OnOutage, Runtime, StreamSettings,
};
use crate::model::groups::{Groups, Pattern, Replay};
use crate::model::origin::OriginPattern;
use crate::ops::log::LogFormat;
use crate::routing::expression::Expression;
use crate::routing::route::{Ordering, Route};

/// Declares the rows of each table of the file, and the list of all.
macro_rules! rows {
    ($($module:ident: $table:literal { $($name:ident: $kind:ty = $spec:expr, $reload:ident, $help:literal;)* })*) => {
        $(
            #[doc = concat!("`[", $table, "]`")]
            #[expect(non_upper_case_globals, reason = "named as in the file")]
            pub(super) mod $module {
                use crate::config::table::*;
                $(pub(in crate::config) static $name: Row<$kind> =
                    Row { table: $table, name: stringify!($name), spec: $spec, reload: $reload, help: $help };)*
            }
        )*
        /// All rows, in the order of the reference.
        pub(super) static ROWS: &[&dyn Described] = &[$($(&$module::$name),*),*];
    };
}

rows! {
    node: "" {
        listen: SocketAddr = fixed(loopback(8_080)), Restart, "address for clients";
        admin_listen: SocketAddr = fixed(loopback(9_090)), Restart, "address for metrics, health, and the management API";
        stage: String = like(|| "beta".to_owned(), &STAGE), Restart, "path prefix of the gateway";
        node_name: String = like(host_name, &NAME).shown("the host's name"), Restart, "name in logs and `/info`";
        trusted_proxies: Vec<IpNet> = none(), Next,
            "addresses and networks (`10.0.0.0/8`) of load balancers, whose `X-Forwarded-For` is believed";
        proxy_protocol: bool = fixed(false), Restart,
            "whether each connection to `listen` begins with a PROXY header (version 1 or 2); only `trusted_proxies` may connect then";
        shards: usize = within(0, 0, 1_024), Restart,
            "event loops; 0 for one a core, less one for handshakes, the management API and Redis";
        log_format: LogFormat = fixed(LogFormat::Text), Restart, "`text` or `json`";
        watch: bool = fixed(false), Restart, "whether functions are started anew when their files change, for development";
        route_selection_expression: Expression = made(selection, "`$request.body.action`"), Open, "selects the route of a message";
        routes: Vec<Route> = none().shown("a chat room"), Open, "see [Routes](#routes)";
        targets: Vec<HttpSettings> = none(), Restart, "see [Back ends](#back-ends)";
        lambdas: Vec<LambdaSettings> = none(), Restart, "AWS Lambda functions that run elsewhere; see [Back ends](#back-ends)";
        streams: Vec<StreamSettings> = none(), Restart, "see [Back ends](#back-ends)";
        groups: Groups = none(), Restart,
            "see [Groups](#groups). All nodes have the same, so they change with a restart";
        functions: Vec<FunctionSettings> = none(), Restart,
            "AWS Lambda functions that this node runs; see [Functions](#functions)";
        access_key_id: Option<KeyId> = none(), Next, "key of the management API";
        secret_access_key: Option<KeySecret> = none(), Next, "its secret, of at least 8 bytes";
    }
    management: "management" {
        keys: Vec<AccessKey> = none(), Next, "more keys: `[[management.keys]]` with `id` and `secret`";
        auth: Option<ManagementAuth> = none().shown("by keys and addresses"), Next,
            "`sigv4`, or `none` for a management API that is open to all";
        clock_skew: Duration = within(m(5), s(1), h(1)), Next, "largest difference of clocks in a signature";
    }
    redis: "redis" {
        url: Option<RedisUrl> = none(), Restart,
            "see [Many nodes](#many-nodes); nodes with the same Redis and prefix are one gateway";
        sentinel_user: Option<String> = none(), Restart, "user for the Sentinels themselves";
        sentinel_password: Option<Secret> = none(), Restart, "their password";
        tls_ca_file: Option<String> = none().shown("the system's"), Restart,
            "PEM file with the certificates that may sign the servers'";
        tls_cert_file: Option<String> = none(), Restart,
            "PEM file with the certificate by which nodes are known to the servers";
        tls_key_file: Option<String> = none(), Restart, "its key";
        prefix: String = like(|| "gatecast".to_owned(), &PREFIX), Restart,
            "start of every key and channel: letters, digits, `-`, `_`, `.`, `:`, `/`";
        lease: Duration = within(s(10), ms(500), h(1)), Restart,
            "how long a node that is not heard of holds its connections at least; at least three heartbeats";
        heartbeat: Duration = within(s(1), ms(50), s(60)), Restart,
            "between writes to Redis, with a round trip through it, that prove that messages are taken and arrive";
        stream_entries: usize = within(1_000, 1, 1_000_000), Restart, "messages kept of a channel, about, to repair gaps from";
        stream_bytes: usize = bytes(16 * MIB, 1 << 10, 1 << 30), Restart,
            "bytes kept of a channel, about, each message counting 128 more";
        stream_budget: usize = bytes(0, 0, 1 << 40), Restart,
            "memory of a server of Redis at which streams keep the least; from half of it on they keep less and less. 0 for three \
             quarters of its `maxmemory`, or 1 GiB where it has none";
        stream_age: Duration = within(s(60), s(1), h(24)), Restart, "longest time they are kept, about, also while more come";
        on_outage: OnOutage = fixed(OnOutage::Reject), Restart,
            "what is done without Redis: `reject`, `local` or `buffer`; see [When Redis is away](#when-redis-is-away)";
        buffer_bytes: usize = bytes(16 * MIB, 1 << 10, 1 << 30), Restart,
            "with `buffer`: messages of this node that may wait, each counting 256 bytes more";
        buffer_age: Duration = within(s(10), ms(100), h(1)), Restart, "with `buffer`: they may wait";
    }
    callback: "callback" {
        listen: Option<SocketAddr> = none().shown("a free port of 127.0.0.1"), Restart,
            "address at which functions reach the management API, over TLS; open where functions are configured, or this is set. \
             See [The way back](docs/callback.md)";
        domain_name: Option<DomainName> = none().shown("that address"), Restart,
            "`host` or `host:port` as functions reach it: the `domainName` of their events";
        cert_file: Option<String> = none().shown("one of a private CA"), Restart,
            "PEM file with the certificate that is shown there, for `callback.domain_name`";
        key_file: Option<String> = none(), Restart, "its key";
        region: String = like(|| "us-east-1".to_owned(), &REGION), Restart, "`AWS_REGION` of functions";
    }
    tracing: "tracing" {
        endpoint: Option<String> = none(), Restart,
            "URL of an OpenTelemetry collector that takes spans; see [Traces](docs/operations.md#traces). Needs the feature `otlp`";
        ratio: f64 = within(0.01, 0.0, 1.0), Restart, "share of messages and requests of which spans are made";
        service_name: String = like(|| "gatecast".to_owned(), &NAME), Restart, "name of the service in spans";
        attributes: Vec<Attribute> = none(), Restart,
            "what else spans say of the service: `[\"deployment.environment.name=production\"]`";
    }
    access_log: "access_log" {
        format: Option<AccessFormat> = none().shown("no log"), Restart,
            "a line for each event of a client, with Amazon's `$context` variables; see [Access logs](#access-logs)";
        file: Option<String> = none().shown("standard output"), Restart, "file that the lines are added to";
    }
    auth: "auth" {
        allowed_origins: Vec<OriginPattern> = none().shown("all; see [Only this host](#only-this-host)"), Next,
            "origins of the pages that may connect: `https://example.com`, `https://*.example.com` (subdomains), \
             `http://localhost:*` (any port), `null`, `*` (all). Clients without `Origin` are no browsers, and may";
        user_header: Option<HeaderName> = none(), Next,
            "header in which `trusted_proxies` name the user, once, in UTF-8, with 1 to 128 bytes and no control characters, or else \
             400; they must remove the client's own. From others it is ignored";
        subprotocols: Vec<String> = none(), Next,
            "sub-protocols (`Sec-WebSocket-Protocol`) of which the first that a client offers is selected, where `$connect` asks no back end";
    }
    limits: "limits" {
        max_connections: usize = within(100_000, 1, 10_000_000), Next,
            "connections at a time; fewer if the limit of open files says so";
        max_http_connections: usize = within(1_024, 1, 1_000_000), Restart,
            "HTTP connections of each port, of which no request is served; as many handshakes, and as many calls, are served beside \
             them. When all are taken whoever is idle, or late, gives way to who waits";
        handshake_rate: usize = within(2_000, 1, 1_000_000), Next,
            "handshakes let in a second, with a burst of one second's; over it 503";
        handshake_rate_per_address: Bound = within(Bound::Unset, Bound::Off, Bound::At(1_000_000)).shown("50, see [below](#what-one-client-may-take)"), Next,
            "handshakes let in a second of one address, with a burst of four seconds'; over it 429; `off` for no bound";
        connections_per_address: Bound = within(Bound::Unset, Bound::Off, Bound::At(10_000_000)).shown("1,000, see [below](#what-one-client-may-take)"), Next,
            "connections of one address at a time; over it 429; `off` for no bound";
        handshake_timeout: Duration = within(s(10), ms(10), s(60)), Next,
            "for a request's head with a PROXY header before it; as long again for its body, for its turn, and for the client to begin \
             to take the answer, the rest of which has to leave at 16 KiB/s";
        keep_alive_timeout: Duration = within(s(75), s(1), h(1)), Next,
            "for the next request of an HTTP connection, as `Keep-Alive: timeout=` tells; one second more is allowed. Longer than \
             proxies keep idle connections";
        frame_bytes: usize = bytes(32 << 10, 125, 256 * MIB), Open, "longest frame from a client";
        message_bytes: usize = bytes(128 << 10, 125, 256 * MIB), Restart,
            "longest message, either way; nodes check what they read of each other by it";
        allow_binary: bool = fixed(false), Open, "whether binary messages are taken";
        message_rate: usize = within(10_000, 1, 100_000_000), Open,
            "messages and control frames a second of one connection, with a burst of one second's; over it the connection is slowed";
        receive_bytes_rate: usize = bytes(16 * MIB, 1 << 10, 1 << 40), Open,
            "bytes a second of one connection, with a burst of one second's, but no more than half of `limits.outbox_bytes`; over it \
             the connection is slowed";
        fanout_bytes_rate: usize = bytes(512 * MIB, 1 << 10, 1 << 40), Open,
            "bytes a second of one connection, each times the members on this node that it goes to (about), with a burst of one \
             second's; over it the connection is slowed";
        new_channels_rate: usize = within(20, 1, 1_000_000), Open,
            "groups a second that one connection may join or send to which the node has not seen for a minute or two, with a burst of \
             ten seconds', or of `limits.groups_per_connection`; over it `Limit exceeded`";
        new_channels_rate_per_address: Bound = within(Bound::Unset, Bound::Off, Bound::At(1_000_000)).shown("200, see [below](#what-one-client-may-take)"), Open,
            "the same for all connections of one address, with a burst of four seconds'; `off` for no bound";
        idle_timeout: Duration = within(m(10), ms(10), h(24)), Open,
            "without a message, or part of one, in either direction";
        max_lifetime: Duration = within(h(2), ms(10), h(720)), Open, "of a connection";
        ping_interval: Switchable = within(Switchable::At(s(25)), Switchable::At(ms(10)), Switchable::Off), Open,
            "between pings, jittered by a tenth; `off` for none";
        pong_timeout: Duration = within(s(10), ms(10), h(1)), Open, "for any sign of life after a ping; see [Deadlines](#deadlines)";
        outbox_bytes: usize = bytes(MIB, 1 << 10, 1 << 30), Open,
            "bytes that may wait for a client, each message counting 128 more";
        outbox_age: Duration = within(s(30), ms(10), h(1)), Open, "they may wait without any progress";
        close_timeout: Duration = within(s(5), ms(10), s(60)), Open,
            "for the client's close frame after ours; see [Deadlines](#deadlines)";
        calls_per_connection: usize = within(16, 1, 10_000), Open,
            "calls of back ends under way for one connection; it is not read from meanwhile";
        groups_per_connection: usize = within(128, 0, 10_000), Open,
            "memberships of one connection; those that it has already stay";
        idempotency_age: Duration = within(m(5), s(1), h(24)), Next, "an idempotency key is remembered";
        memory_budget: usize = bytes(0, 0, 1 << 50), Restart,
            "bytes that clients and callers together may make the node hold; 0 for half of what the process may use; see \
             [Bounds](#bounds)";
    }
    drain: "drain" {
        notice: Duration = within(s(0), s(0), h(1)), Next, "between \"not ready\" and the end of accepting";
        window: Duration = within(s(30), s(0), h(1)), Next, "over which connections are closed";
        min_rate: usize = within(100, 1, 1_000_000), Next,
            "closes a second where no other node is there to take the clients, so that few are done soon";
        grace: Duration = within(s(10), ms(10), h(1)), Next,
            "after the window, then what is left is cut; not less than `limits.close_timeout`, or who is closed last has less than that";
    }
    route: "routes.*" {
        integration: Option<String> = none().required(), Open, "what the route does; see [Integrations](#integrations)";
        data: Option<Expression> = none(), Open, "what is sent";
        group: Option<Expression> = none(), Open, "the group's name";
        reply: Option<Expression> = none(), Open, "what the sender is answered";
        idempotency_key: Option<Expression> = none(), Open, "what names a message, so that it is sent once";
        target: Option<String> = none(), Open, "with `http`: which of `[targets]` is called";
        lambda: Option<String> = none(), Open, "with `lambda`: which of `[lambdas]` is called";
        stream: Option<String> = none(), Open, "with `stream`: which of `[streams]` the event is appended to";
        function: Option<String> = none(), Open, "with `function`: which of `[functions]` is called";
        two_way: bool = fixed(false), Open, "whether the sender is sent what the back end answers";
        ordering: Option<Ordering> = none().shown("`connection` for `raw` and `cloudevents`, else `none`"), Open,
            "`none`: calls of one connection run side by side; `connection`: one after the other, in order";
        status: u16 = within(200, 200, 599), Next, "of `$connect`: the handshake's answer; what is not 2xx refuses every client";
    }
    target: "targets.*" {
        url: Option<Url> = none().required(), Restart, "where it is called: `http://…` or `https://…`";
        format: Format = fixed(Format::LambdaProxy), Restart,
            "what is sent: `lambda-proxy` (the event of a Lambda proxy integration), `cloudevents` (1.0, binary mode), `cloudevents-structured` (one JSON object) or `raw` (the message)";
        timeout: Duration = within(s(29), ms(50), s(29)), Restart, "from when a call is taken to its answer, waiting included";
        max_in_flight: usize = within(256, 1, 65_536), Restart, "calls under way";
        max_waiting: usize = within(8_192, 0, 1_000_000), Restart,
            "calls that wait for their turn; over it the answer is `Internal server error`";
        headers: Texts<Expression> = none(), Restart,
            "headers that are sent besides: `{ \"X-Connection\" = \"$context.connectionId\" }`";
        parameters: Texts<Expression> = none(), Restart,
            "parameters that are added to the query: `{ connection = \"$context.connectionId\" }`";
    }
    lambda: "lambdas.*" {
        function: Option<FunctionName> = none().required(), Restart,
            "name or ARN, with `:ALIAS` or `:VERSION` if one is meant: `arn:aws:lambda:eu-west-1:123456789012:function:chat:prod`";
        endpoint: Option<Url> = none().shown("Amazon's of the region"), Restart,
            "where the Invoke API is: `http://…` or `https://…`";
        auth: Option<LambdaAuth> = none().shown("`none` for `http://…`, else `sigv4`"), Restart,
            "`sigv4`, with [credentials of AWS](#lambda-functions-elsewhere), or `none`";
        region: Option<Region> = none().shown("the ARN's, `AWS_REGION` or `AWS_DEFAULT_REGION`"), Restart, "where the function is";
        profile: Option<String> = none().shown("`AWS_PROFILE`"), Restart,
            "profile with the credentials, in the files that the AWS CLI and the SDKs share; if it is set, no other source is asked";
        timeout: Duration = within(s(29), ms(50), s(29)), Restart, "from when a call is taken to its answer, waiting included";
        max_in_flight: usize = within(256, 1, 65_536), Restart, "calls under way; 1 for the emulator in Amazon's images";
        max_waiting: usize = within(8_192, 0, 1_000_000), Restart,
            "calls that wait for their turn; over it the answer is `Internal server error`";
    }
    stream: "streams.*" {
        max_entries: usize = within(100_000, 1, 1_000_000_000), Restart,
            "entries kept, about; the oldest go first, whether they were read or not";
    }
    function: "functions.*" {
        runtime: Option<Runtime> = none().required(), Restart,
            "what runs the code: `node` (18 or newer; nothing to install), `python` (with `pip install awslambdaric`), or `command`, a \
             program that speaks the Runtime API of AWS Lambda";
        code: Option<String> = none().required(), Restart,
            "folder of the code, from that of the configuration file; processes work there";
        handler: Option<String> = none(), Restart,
            "file and export that are called, such as `index.handler` or `src/app.handler`; `node` and `python` need it";
        command: Vec<String> = none().shown("`node`, `python3` or `./bootstrap`"), Restart,
            "program and arguments, from the folder of the code; for `node` and `python` the interpreter, such as `[\".venv/bin/python\"]`";
        timeout: Duration = within(s(29), ms(50), m(15)), Restart, "longest run; the process is killed then";
        min_processes: usize = within(0, 0, 1_000), Restart, "processes that are kept while nothing is to do";
        max_processes: usize = within(4, 1, 1_000), Restart, "most processes at a time; those that idle for five minutes end";
        concurrency: usize = within(1, 1, 1_000), Restart,
            "most runs at a time in one process; the code has to be made for more than one, as for Lambda Managed Instances";
        environment: Variables = none(), Restart,
            "variables for the processes, besides those that Lambda sets; they get none of the node's own. As a variable itself: a JSON object";
        hosts: Addresses = none(), Restart,
            "hosts that the code is to reach elsewhere, such as `\"dynamodb.us-east-1.amazonaws.com\" = \"127.0.0.1:8000\"`. All of them for `node`; for other runtimes DynamoDB's, through its SDK's variable";
        callback_domain: Option<Domain> = none().shown("the node's"), Restart,
            "`domainName` in events, by which the code calls back";
    }
    group: "groups.*" {
        pattern: Option<Pattern> = none().required(), Restart, "groups' names, in which `*` stands for any text";
        replay: Replay = fixed(Replay::On), Restart, "whether their messages are counted and kept: `on` or `off`";
    }
    key: "management.keys.*" {
        id: Option<KeyId> = none().required(), Next, "the public half of a key";
        secret: Option<KeySecret> = none().required(), Next, "the other half";
    }
}

const MIB: usize = 1 << 20;

static STAGE: Shape = Shape {
    fits: |text| {
        (1..=128).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    },
    pattern: "^[A-Za-z0-9_-]{1,128}$",
    is: "a stage's name, which is part of every path: 1 to 128 letters, digits, - and _; write a name such as \"prod\"",
};

static NAME: Shape = Shape {
    fits: is_name,
    pattern: r"^(?=[\s\S]*\S)[^\u0000-\u001f\u007f-\u009f]{1,128}$",
    is: "a name of 1 to 128 bytes and no control characters",
};

// Braces would make it a Cluster's hash tag, * ? [ ] \ a pattern in the rights of a user.
static PREFIX: Shape = Shape {
    fits: |text| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte))
    },
    pattern: "^[A-Za-z0-9_.:/-]{1,64}$",
    is: "a prefix: 1 to 64 letters, digits and the signs - _ . : /",
};

static REGION: Shape = Shape {
    fits: |text| {
        (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    },
    pattern: "^[a-z0-9-]{1,64}$",
    is: "a region's name: 1 to 64 small letters, digits and -; write a name such as \"eu-central-1\"",
};

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn m(minutes: u64) -> Duration {
    s(60 * minutes)
}

const fn h(hours: u64) -> Duration {
    m(60 * hours)
}

#[expect(clippy::expect_used, reason = "a constant, parsed in every test")]
fn selection() -> Expression {
    Expression::parse("$request.body.action").expect("valid")
}

fn host_name() -> String {
    let system = rustix::system::uname();
    system.nodename().to_str().ok().filter(|name| is_name(name)).unwrap_or("gatecast").to_owned()
}

/// Returns whether a name fits into logs and tables.
fn is_name(name: &str) -> bool {
    !name.trim().is_empty() && name.len() <= 128 && !name.chars().any(char::is_control)
}
