//! Reads the settings, table by table: their names, defaults and ranges.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::reader::{Reader, Section};
use super::settings::{Bound, Switchable};
use super::{
    Config, Drain, Limits, LogFormat, OnOutage, PerAddress, ProxySettings, RedisSettings, RedisTls, RedisUrl,
    Tracing, access, groups, otel, routes, tls,
};
use crate::routing::route::{BUILT_IN, RouteTable};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
/// Least memory of a Redis for streams to be worth anything, in bytes.
const LEAST_BUDGET: usize = 16 << 20;
const MILLISECOND: Duration = Duration::from_millis(1);

/// Takes every setting.
pub(super) fn read<'d>(reader: &mut Reader<'d>, document: &mut Section<'d>) -> Config {
    let listen = reader.setting(document, "listen", SocketAddr::from(([127, 0, 0, 1], 8080)));
    let admin_listen = reader.setting(document, "admin_listen", SocketAddr::from(([127, 0, 0, 1], 9090)));
    let stage = stage(reader, document);
    let node_name = node_name(reader, document);
    let shards = reader.within(document, "shards", 0, 0..=1_024);
    let log_format = reader.setting(document, "log_format", LogFormat::Text);
    let routes = route_table(reader, document);
    let groups = groups::read(reader, document);
    let proxies = access::proxies(reader, document);
    let limits = limits(reader, document, &proxies);
    let drain = drain(reader, document);
    let auth = access::auth(reader, document, &proxies, listen);
    let redis = redis(reader, document);
    let tracing = tracing(reader, document);
    let management = access::management(reader, document, [listen, admin_listen]);
    Config {
        listen,
        admin_listen,
        stage,
        node_name,
        shards,
        log_format,
        limits,
        drain,
        management,
        auth,
        proxies,
        redis,
        tracing,
        groups,
        routes,
        warnings: Vec::new(),
    }
}

fn stage<'d>(reader: &mut Reader<'d>, document: &mut Section<'d>) -> String {
    let place = reader.place(document, "stage");
    let stage = reader.setting(document, "stage", "beta".to_owned());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if stage.is_empty() || stage.len() > 128 || !stage.bytes().all(plain) {
        let message = if stage == "$default" {
            "the stage $default is one of HTTP APIs; a WebSocket API's is part of every path: write a name such as \"prod\""
        } else {
            "a stage's name has 1 to 128 letters, digits, - and _"
        };
        reader.fault(place, "stage".to_owned(), message);
    }
    stage
}

/// The routes of the file, or the built-in table if it names none.
fn route_table<'d>(reader: &mut Reader<'d>, document: &mut Section<'d>) -> RouteTable {
    let table = routes::read(reader, document);
    if table.iter().next().is_some() {
        return table;
    }
    let no_overrides = BTreeMap::new();
    let mut built_in = Reader::new("built-in routes", BUILT_IN, &no_overrides);
    let mut document = built_in.document();
    let table = routes::read(&mut built_in, &mut document);
    built_in.finish(document);
    debug_assert_eq!(built_in.into_faults(), []);
    table
}

fn limits<'d>(reader: &mut Reader<'d>, document: &mut Section<'d>, proxies: &ProxySettings) -> Limits {
    const MIB: usize = 1 << 20;
    let mut section = reader.section(document, "limits");
    let s = &mut section;
    let handshake_rate_per_address =
        reader.within(s, "handshake_rate_per_address", Bound::Unset, Bound::Off..=Bound::At(1_000_000));
    let connections_per_address =
        reader.within(s, "connections_per_address", Bound::Unset, Bound::Off..=Bound::At(10_000_000));
    let new_channels_rate_per_address =
        reader.within(s, "new_channels_rate_per_address", Bound::Unset, Bound::Off..=Bound::At(1_000_000));
    // Without them all clients may seem to come from one address, that of a proxy nobody told us of.
    let addresses_are_known = !proxies.trusted.is_empty() || proxies.protocol;
    let both = [handshake_rate_per_address, connections_per_address];
    let per_address = PerAddress {
        handshake_rate: handshake_rate_per_address.or(addresses_are_known.then_some(50)),
        connections: connections_per_address.or(addresses_are_known.then_some(1_000)),
        is_unset: !addresses_are_known && both == [Bound::Unset; 2],
    };
    let budget_place = reader.place(s, "memory_budget");
    let limits = Limits {
        max_connections: reader.within(s, "max_connections", 100_000, 1..=10_000_000),
        max_http_connections: reader.within(s, "max_http_connections", 1_024, 1..=1_000_000),
        handshake_rate: reader.within(s, "handshake_rate", 2_000, 1..=1_000_000),
        per_address,
        handshake_timeout: reader.within(s, "handshake_timeout", 10 * SECOND, 10 * MILLISECOND..=60 * SECOND),
        keep_alive_timeout: reader.within(s, "keep_alive_timeout", 75 * SECOND, SECOND..=HOUR),
        frame_bytes: reader.within(s, "frame_bytes", 32 << 10, 125..=256 * MIB),
        message_bytes: reader.within(s, "message_bytes", 128 << 10, 125..=256 * MIB),
        allow_binary: reader.setting(s, "allow_binary", false),
        message_rate: reader.within(s, "message_rate", 10_000, 1..=100_000_000),
        receive_bytes_rate: reader.within(s, "receive_bytes_rate", 16 * MIB, 1 << 10..=1 << 40),
        fanout_bytes_rate: reader.within(s, "fanout_bytes_rate", 512 * MIB, 1 << 10..=1 << 40),
        new_channels_rate: reader.within(s, "new_channels_rate", 20, 1..=1_000_000),
        new_channels_per_address: new_channels_rate_per_address.or(addresses_are_known.then_some(200)),
        idle_timeout: reader.within(s, "idle_timeout", 600 * SECOND, 10 * MILLISECOND..=24 * HOUR),
        max_lifetime: reader.within(s, "max_lifetime", 2 * HOUR, 10 * MILLISECOND..=720 * HOUR),
        ping_interval: {
            let range = Switchable::At(10 * MILLISECOND)..=Switchable::Off;
            reader.within(s, "ping_interval", Switchable::At(25 * SECOND), range).into()
        },
        pong_timeout: reader.within(s, "pong_timeout", 10 * SECOND, 10 * MILLISECOND..=HOUR),
        outbox_bytes: reader.within(s, "outbox_bytes", MIB, 1 << 10..=1 << 30),
        outbox_age: reader.within(s, "outbox_age", 30 * SECOND, 10 * MILLISECOND..=HOUR),
        close_timeout: reader.within(s, "close_timeout", 5 * SECOND, 10 * MILLISECOND..=60 * SECOND),
        groups_per_connection: reader.within(s, "groups_per_connection", 128, 0..=10_000),
        idempotency_age: reader.within(s, "idempotency_age", 300 * SECOND, SECOND..=24 * HOUR),
        memory_budget: reader.within(s, "memory_budget", 0, 0..=1 << 50),
    };
    let least = 16 * limits.message_bytes.max(MIB);
    if (1..least).contains(&limits.memory_budget) {
        let message = format!(
            "too small to work with; set at least {least}, or 0 for half of what the process may use"
        );
        reader.fault(budget_place, "limits.memory_budget".to_owned(), message);
    }
    reader.finish(section);
    limits
}

fn drain<'d>(reader: &mut Reader<'d>, document: &mut Section<'d>) -> Drain {
    let mut section = reader.section(document, "drain");
    let s = &mut section;
    let drain = Drain {
        notice: reader.within(s, "notice", Duration::ZERO, Duration::ZERO..=HOUR),
        window: reader.within(s, "window", 30 * SECOND, Duration::ZERO..=HOUR),
        min_rate: reader.within(s, "min_rate", 100, 1..=1_000_000),
        grace: reader.within(s, "grace", 10 * SECOND, 10 * MILLISECOND..=HOUR),
    };
    reader.finish(section);
    drain
}

fn redis<'d>(reader: &mut Reader<'d>, document: &mut Section<'d>) -> Option<RedisSettings> {
    let mut section = reader.section(document, "redis");
    let s = &mut section;
    let url = reader.optional::<RedisUrl>(s, "url");
    let sentinel_user = reader.optional(s, "sentinel_user");
    let sentinel_password = reader.optional(s, "sentinel_password");
    let tls = tls(reader, s);
    let prefix = prefix(reader, s);
    let lease = reader.within(s, "lease", 10 * SECOND, 500 * MILLISECOND..=HOUR);
    let heartbeat = reader.within(s, "heartbeat", SECOND, 50 * MILLISECOND..=60 * SECOND);
    let stream_entries = reader.within(s, "stream_entries", 1_000, 1..=1_000_000);
    let stream_bytes = reader.within(s, "stream_bytes", 16 << 20, 1 << 10..=1 << 30);
    let budget_place = reader.place(s, "stream_budget");
    let stream_budget = reader.within(s, "stream_budget", 0, 0..=1 << 40);
    if (1..LEAST_BUDGET).contains(&stream_budget) {
        let message = "hardly more than a Redis that is empty uses; 0 for what follows from its maxmemory, or at least 16777216";
        reader.fault(budget_place, "redis.stream_budget".to_owned(), message);
    }
    let stream_age = reader.within(s, "stream_age", 60 * SECOND, SECOND..=24 * HOUR);
    let on_outage = reader.setting(s, "on_outage", OnOutage::Reject);
    let buffer_bytes = reader.within(s, "buffer_bytes", 16 << 20, 1 << 10..=1 << 30);
    let buffer_age = reader.within(s, "buffer_age", 10 * SECOND, 100 * MILLISECOND..=HOUR);
    reader.finish(section);
    let url = url?;
    Some(RedisSettings {
        url,
        sentinel_user,
        sentinel_password,
        tls,
        prefix,
        lease,
        heartbeat,
        stream_entries,
        stream_bytes,
        stream_budget,
        stream_age,
        on_outage,
        buffer_bytes,
        buffer_age,
    })
}

/// Takes the names of the files, and looks into them: a server that refuses them says little of why.
fn tls<'d>(reader: &mut Reader<'d>, s: &mut Section<'d>) -> RedisTls {
    let mut take = |key| (reader.place(s, key), reader.optional::<String>(s, key));
    let files = [take("tls_ca_file"), take("tls_cert_file"), take("tls_key_file")];
    let [(ca_place, ca_file), (cert_place, cert_file), (key_place, key_file)] = files;
    let tls = RedisTls { ca_file, cert_file, key_file };
    if let Some(path) = &tls.ca_file
        && let Err(problem) = tls::check_roots(path)
    {
        reader.fault(ca_place, s.dotted("tls_ca_file"), format!("{path}: {problem}"));
    }
    match (&tls.cert_file, &tls.key_file) {
        (Some(cert), Some(key)) => {
            if let Err((is_key, problem)) = tls::check_pair(cert, key) {
                let (place, name, path) = if is_key {
                    (key_place, "tls_key_file", key)
                } else {
                    (cert_place, "tls_cert_file", cert)
                };
                reader.fault(place, s.dotted(name), format!("{path}: {problem}"));
            }
        }
        (None, None) => {}
        (cert, _) => {
            let (place, name) =
                if cert.is_some() { (cert_place, "tls_cert_file") } else { (key_place, "tls_key_file") };
            let message = "redis.tls_cert_file and redis.tls_key_file go together; set both or none";
            reader.fault(place, s.dotted(name), message);
        }
    }
    tls
}

fn prefix<'d>(reader: &mut Reader<'d>, s: &mut Section<'d>) -> String {
    let place = reader.place(s, "prefix");
    let prefix = reader.setting(s, "prefix", "gatecast".to_owned());
    // Braces would make it a Cluster's hash tag, * ? [ ] \\ a pattern in the rights of a user.
    let is_plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/');
    if !(1..=64).contains(&prefix.len()) || !prefix.bytes().all(is_plain) {
        let message = "a prefix has 1 to 64 letters, digits and the signs - _ . : /";
        reader.fault(place, s.dotted("prefix"), message);
    }
    prefix
}

fn tracing<'d>(reader: &mut Reader<'d>, document: &mut Section<'d>) -> Tracing {
    let mut section = reader.section(document, "tracing");
    let s = &mut section;
    let endpoint_place = reader.place(s, "endpoint");
    let endpoint = reader.optional::<String>(s, "endpoint").filter(|endpoint| !endpoint.is_empty());
    if endpoint.is_some() && !otel::IS_BUILT_IN {
        let message = "this program was built without the feature otlp, and exports nothing; build it with --features otlp, or \
                       remove this";
        reader.fault(endpoint_place, "tracing.endpoint".to_owned(), message);
    } else if endpoint.as_deref().is_some_and(|endpoint| !otel::is_collector(endpoint)) {
        let message = "not a URL of a collector without TLS, such as \"http://127.0.0.1:4318/v1/traces\"; \
                       run one beside the node to pass spans on to elsewhere";
        reader.fault(endpoint_place, "tracing.endpoint".to_owned(), message);
    }
    let ratio = reader.within(s, "ratio", 0.01, 0.0..=1.0);
    let service_place = reader.place(s, "service_name");
    let service_name = reader.setting(s, "service_name", "gatecast".to_owned());
    if !is_name(&service_name) {
        let message = "a service's name has 1 to 128 bytes and no control characters";
        reader.fault(service_place, "tracing.service_name".to_owned(), message);
    }
    let attributes_place = reader.place(s, "attributes");
    let texts = reader.texts(s, "attributes");
    let attributes: Vec<_> = texts.iter().filter_map(|text| otel::attribute(text)).collect();
    if attributes.len() < texts.len() {
        let message = "expected texts such as \"deployment.environment.name=production\"";
        reader.fault(attributes_place, "tracing.attributes".to_owned(), message);
    }
    reader.finish(section);
    Tracing { endpoint, ratio, service_name, attributes }
}

fn node_name<'d>(reader: &mut Reader<'d>, document: &mut Section<'d>) -> String {
    let place = reader.place(document, "node_name");
    let system = rustix::system::uname();
    let host = system.nodename().to_str().ok().filter(|name| is_name(name)).unwrap_or("gatecast");
    let name = reader.setting(document, "node_name", host.to_owned());
    if !is_name(&name) {
        let message = "a node's name has 1 to 128 bytes and no control characters";
        reader.fault(place, "node_name".to_owned(), message);
    }
    name
}

/// Returns whether a name fits into logs and tables.
fn is_name(name: &str) -> bool {
    !name.trim().is_empty() && name.len() <= 128 && !name.chars().any(char::is_control)
}
