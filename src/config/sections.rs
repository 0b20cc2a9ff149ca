//! Reads the settings, table by table, into what the program works with.

use super::aws::AwsVariables;
use super::kinds::Attribute;
use super::kinds::off::Bound;
use super::kinds::texts::AccessFormat;
use super::reader::Reader;
use super::routes::Known;
use super::settings::{
    AccessLogSettings, Config, Drain, Limits, PerAddress, ProxySettings, RedisSettings, RedisTls,
};
use super::table::{access_log, drain, limits, node, redis, tracing};
use super::values::Values;
use super::{access, callback, functions, groups, lambdas, otel, routes, targets, tls};
use crate::ops::trace::Tracing;

/// Least memory of a Redis for streams to be worth anything, in bytes.
const LEAST_BUDGET: usize = 16 << 20;

/// Takes every setting.
pub(super) fn read(reader: &mut Reader<'_>, aws: &AwsVariables) -> Config {
    let listen = reader.take(&node::listen);
    let admin_listen = reader.take(&node::admin_listen);
    let proxies = access::proxies(reader);
    let (targets, streams) = (targets::targets(reader), targets::streams(reader));
    let (lambdas, functions) = (lambdas::read(reader, aws), functions::read(reader));
    Config {
        listen,
        admin_listen,
        stage: reader.take(&node::stage),
        node_name: reader.take(&node::node_name),
        shards: reader.take(&node::shards),
        log_format: reader.take(&node::log_format),
        watches: reader.take(&node::watch),
        routes: routes::read(
            reader,
            Known {
                targets: &targets,
                lambdas: &lambdas,
                streams: &streams,
                functions: &functions,
            },
        ),
        targets,
        streams,
        lambdas,
        functions,
        groups: groups::read(reader),
        limits: limits(reader, &proxies),
        drain: drain(reader),
        auth: access::auth(reader, &proxies, listen),
        redis: redis(reader),
        tracing: tracing(reader),
        access_log: access_log(reader),
        management: access::management(reader, [listen, admin_listen]),
        callback: callback::read(reader),
        proxies,
        search_path: None,
        aws: AwsVariables::default(),
        values: Values::default(),
        warnings: Vec::new(),
    }
}

fn limits(reader: &mut Reader<'_>, proxies: &ProxySettings) -> Limits {
    let handshake_rate = reader.take(&limits::handshake_rate_per_address);
    let connections = reader.take(&limits::connections_per_address);
    let new_channels = reader.take(&limits::new_channels_rate_per_address);
    // Without them all clients may seem to come from one address, that of a proxy nobody told us
    // of.
    let addresses_are_known = !proxies.trusted.is_empty() || proxies.protocol;
    let per_address = PerAddress {
        handshake_rate: handshake_rate.or(addresses_are_known.then_some(50)),
        connections: connections.or(addresses_are_known.then_some(1_000)),
        is_unset: !addresses_are_known && [handshake_rate, connections] == [Bound::Unset; 2],
    };
    let limits = Limits {
        max_connections: reader.take(&limits::max_connections),
        max_http_connections: reader.take(&limits::max_http_connections),
        handshake_rate: reader.take(&limits::handshake_rate),
        per_address,
        handshake_timeout: reader.take(&limits::handshake_timeout),
        keep_alive_timeout: reader.take(&limits::keep_alive_timeout),
        frame_bytes: reader.take(&limits::frame_bytes),
        message_bytes: reader.take(&limits::message_bytes),
        allow_binary: reader.take(&limits::allow_binary),
        message_rate: reader.take(&limits::message_rate),
        receive_bytes_rate: reader.take(&limits::receive_bytes_rate),
        fanout_bytes_rate: reader.take(&limits::fanout_bytes_rate),
        new_channels_rate: reader.take(&limits::new_channels_rate),
        new_channels_per_address: new_channels.or(addresses_are_known.then_some(200)),
        idle_timeout: reader.take(&limits::idle_timeout),
        max_lifetime: reader.take(&limits::max_lifetime),
        ping_interval: reader.take(&limits::ping_interval).into(),
        pong_timeout: reader.take(&limits::pong_timeout),
        outbox_bytes: reader.take(&limits::outbox_bytes),
        outbox_age: reader.take(&limits::outbox_age),
        close_timeout: reader.take(&limits::close_timeout),
        calls_per_connection: reader.take(&limits::calls_per_connection),
        groups_per_connection: reader.take(&limits::groups_per_connection),
        idempotency_age: reader.take(&limits::idempotency_age),
        memory_budget: reader.take(&limits::memory_budget),
    };
    let least = 16 * limits.message_bytes.max(1 << 20);
    if (1..least).contains(&limits.memory_budget) {
        let message = format!(
            "too small to work with; set at least {least}, or 0 for half of what the process may use"
        );
        reader.fault_of(&limits::memory_budget, message);
    }
    limits
}

fn drain(reader: &mut Reader<'_>) -> Drain {
    Drain {
        notice: reader.take(&drain::notice),
        window: reader.take(&drain::window),
        min_rate: reader.take(&drain::min_rate),
        grace: reader.take(&drain::grace),
    }
}

fn redis(reader: &mut Reader<'_>) -> Option<RedisSettings> {
    let url = reader.take(&redis::url);
    let sentinel_user = reader.take(&redis::sentinel_user);
    let sentinel_password = reader.take(&redis::sentinel_password);
    let tls = tls(reader);
    let prefix = reader.take(&redis::prefix);
    let lease = reader.take(&redis::lease);
    let heartbeat = reader.take(&redis::heartbeat);
    let stream_entries = reader.take(&redis::stream_entries);
    let stream_bytes = reader.take(&redis::stream_bytes);
    let stream_budget = reader.take(&redis::stream_budget);
    if (1..LEAST_BUDGET).contains(&stream_budget) {
        let message = "hardly more than a Redis that is empty uses; 0 for what follows from its maxmemory, or at least 16777216";
        reader.fault_of(&redis::stream_budget, message);
    }
    let stream_age = reader.take(&redis::stream_age);
    let on_outage = reader.take(&redis::on_outage);
    let buffer_bytes = reader.take(&redis::buffer_bytes);
    let buffer_age = reader.take(&redis::buffer_age);
    Some(RedisSettings {
        url: url?,
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

/// Takes the names of the files, and looks into them: a server that refuses them says little of
/// why.
fn tls(reader: &mut Reader<'_>) -> RedisTls {
    let ca_file = reader.take(&redis::tls_ca_file);
    if let Some(path) = &ca_file
        && let Err(problem) = tls::check_roots(path)
    {
        reader.fault_of(&redis::tls_ca_file, format!("{path}: {problem}"));
    }
    let (cert_file, key_file) = tls::pair(reader, [&redis::tls_cert_file, &redis::tls_key_file])
        .map_or((None, None), |[cert, key]| (Some(cert), Some(key)));
    RedisTls { ca_file, cert_file, key_file }
}

fn access_log(reader: &mut Reader<'_>) -> Option<AccessLogSettings> {
    let format = reader.take(&access_log::format);
    let file = reader.take(&access_log::file).filter(|file| !file.is_empty());
    if format.is_none() && file.is_some() {
        let message = "there is no access log; set access_log.format, or remove this";
        reader.fault_of(&access_log::file, message);
    }
    let AccessFormat(format) = format?;
    Some(AccessLogSettings { format, file: file.map(Into::into) })
}

fn tracing(reader: &mut Reader<'_>) -> Tracing {
    let endpoint = reader.take(&tracing::endpoint).filter(|endpoint| !endpoint.is_empty());
    if endpoint.is_some() && !otel::IS_BUILT_IN {
        let message = "this program was built without the feature otlp, and exports nothing; build it with --features otlp, or \
                       remove this";
        reader.fault_of(&tracing::endpoint, message);
    } else if endpoint.as_deref().is_some_and(|endpoint| !otel::is_collector(endpoint)) {
        let message = "not a URL of a collector without TLS, such as \"http://127.0.0.1:4318/v1/traces\"; \
                       run one beside the node to pass spans on to elsewhere";
        reader.fault_of(&tracing::endpoint, message);
    }
    Tracing {
        endpoint,
        ratio: reader.take(&tracing::ratio),
        service_name: reader.take(&tracing::service_name),
        attributes: reader
            .take(&tracing::attributes)
            .into_iter()
            .map(|Attribute(pair)| pair)
            .collect(),
    }
}
