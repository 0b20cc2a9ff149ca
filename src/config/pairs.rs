//! Settings that are each right, and contradict each other.

use std::net::SocketAddr;

use super::reader::Reader;
use super::redis_url::RedisTopology;
use super::settings::{Config, Drain, Limits, OnOutage, RedisSettings};
use crate::routing::route::{Integration, Route};

/// Fewest heartbeats in a lease, lest one that is late makes others take the node for dead.
const HEARTBEATS: u32 = 3;

/// Looks at all of them. To be called when everything is read.
pub(super) fn check(reader: &mut Reader<'_>, config: &Config) {
    if is_one_port(config.listen, config.admin_listen) {
        let message = format!(
            "{} is taken by listen; clients and operators need a port each",
            config.admin_listen
        );
        reader.contradiction(&["admin_listen", "listen"], &message);
    }
    for (name, taken) in [("listen", config.listen), ("admin_listen", config.admin_listen)] {
        if let Some(listen) = config.callback.listen.filter(|listen| is_one_port(*listen, taken)) {
            let message =
                format!("{listen} is taken by {name}; functions need a port of their own");
            reader.contradiction(&["callback.listen", name], &message);
        }
    }
    limits(reader, &config.limits);
    drain(reader, &config.drain, &config.limits);
    for route in config.routes.iter().filter(|route| is_refused_for_its_key(route, config)) {
        let message = "the groups that it sends to have replay = \"off\", where a key cannot be found again, so every message \
                       with one is refused; remove it, or write replay = \"on\" in their rule";
        reader.contradiction(&[&format!("routes.{}.idempotency_key", route.key)], message);
    }
    if config.routes.iter().any(|route| &*route.key == "$binary") && !config.limits.allow_binary {
        let message = "binary messages are refused, so none gets there; set limits.allow_binary = true, or remove the route";
        reader.contradiction(&["routes.$binary"], message);
    }
    match &config.redis {
        Some(redis) => self::redis(reader, redis, &config.limits),
        None => alone(reader, config),
    }
}

/// Returns whether the second of two ports cannot be bound while the first is. The kernel draws
/// port 0 anew each time.
fn is_one_port(first: SocketAddr, second: SocketAddr) -> bool {
    let (one, other) = (first.ip().to_canonical(), second.ip().to_canonical());
    first.port() == second.port()
        && first.port() != 0
        && (one == other || [first, second].iter().any(|address| address.ip().is_unspecified()))
}

fn is_refused_for_its_key(route: &Route, config: &Config) -> bool {
    let Integration::SendGroup { group, .. } = &route.integration else { return false };
    route.idempotency_key.is_some() && config.groups.keep_none(&group.pattern())
}

/// A node works with a short grace; those who answer late are cut, which may be meant.
fn drain(reader: &mut Reader<'_>, drain: &Drain, limits: &Limits) {
    let (grace, close) = (drain.grace, limits.close_timeout);
    if grace >= close {
        return;
    }
    let message = format!(
        "clients that are closed last have {grace:?} to answer, and not limits.close_timeout, {close:?}; write drain.grace = \"{close:?}\" or more"
    );
    reader.warn(format!("drain.grace: {message}"));
}

fn limits(reader: &mut Reader<'_>, limits: &Limits) {
    if limits.message_bytes > limits.outbox_bytes {
        let message = "a message may be longer than limits.outbox_bytes, and no client could be sent it; make limits.outbox_bytes \
                       several times as large as limits.message_bytes";
        reader.contradiction(&["limits.message_bytes", "limits.outbox_bytes"], message);
    }
    if limits.frame_bytes > limits.message_bytes && reader.is_given("limits.frame_bytes") {
        let message = "longer than limits.message_bytes, so a frame of this length is refused all the same; lower it, or raise that";
        reader.contradiction(&["limits.frame_bytes"], message);
    }
    if limits.ping_interval.is_none() && reader.is_given("limits.pong_timeout") {
        reader.warn(
            "limits.pong_timeout has no effect, since limits.ping_interval is \"off\"".to_owned(),
        );
    }
}

fn redis(reader: &mut Reader<'_>, redis: &RedisSettings, limits: &Limits) {
    if redis.lease < redis.heartbeat * HEARTBEATS {
        let message = format!(
            "a lease of {:?} ends before {HEARTBEATS} heartbeats of {:?} have come; make it longer, or redis.heartbeat shorter",
            redis.lease, redis.heartbeat
        );
        reader.contradiction(&["redis.lease", "redis.heartbeat"], &message);
    }
    let is_sentinel = matches!(redis.url.topology, RedisTopology::Sentinel(_));
    if !is_sentinel && (redis.sentinel_user.is_some() || redis.sentinel_password.is_some()) {
        let message = "redis.url names no Sentinels; write redis+sentinel://…, or remove it";
        reader.contradiction(&["redis.sentinel_password", "redis.sentinel_user"], message);
    } else if redis.sentinel_user.is_some() && redis.sentinel_password.is_none() {
        let message = "a user without a password cannot log in; set redis.sentinel_password";
        reader.contradiction(&["redis.sentinel_user"], message);
    }
    let has_files = [&redis.tls.ca_file, &redis.tls.cert_file, &redis.tls.key_file]
        .iter()
        .any(|file| file.is_some());
    if has_files && !redis.url.tls {
        let message =
            "redis.url asks for no TLS; write rediss instead of redis there, or remove the files";
        reader.contradiction(
            &["redis.tls_ca_file", "redis.tls_cert_file", "redis.tls_key_file"],
            message,
        );
    }
    let buffers = redis.on_outage == OnOutage::Buffer;
    if buffers && redis.buffer_bytes < limits.message_bytes {
        reader.warn(
            "redis.buffer_bytes is less than limits.message_bytes: longer messages are refused while Redis is away".to_owned(),
        );
    }
    if buffers && redis.buffer_age > limits.idempotency_age {
        let message = "a message with an idempotency key may wait for Redis longer than its key is known, and would come twice; make \
                       redis.buffer_age shorter, or limits.idempotency_age longer";
        reader.contradiction(&["redis.buffer_age", "limits.idempotency_age"], message);
    }
    for key in ["redis.buffer_bytes", "redis.buffer_age"] {
        if !buffers && reader.is_given(key) {
            reader.warn(format!("{key} has no effect without redis.on_outage = \"buffer\""));
        }
    }
}

fn alone(reader: &mut Reader<'_>, config: &Config) {
    if let Some(stream) = config.streams.first() {
        let message =
            "a stream is kept in Redis, and redis.url is not set; set it, or remove the streams";
        reader.contradiction(&[&format!("streams.{}", stream.name)], message);
    }
    if let Some(key) = reader.given_below("redis.").filter(|key| key != "redis.url") {
        reader.warn(format!("{key} has no effect without redis.url"));
    }
}
