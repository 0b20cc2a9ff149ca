//! What a server says of itself when a connection is made, and what it says when it does not let
//! anybody in.

use std::time::Duration;

use redis::{FromRedisValue as _, Pipeline, RedisError, Value, parse_redis_value};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::error::StoreError;
use super::resp::Scanner;

/// The oldest version that has all the commands (`XRANGE` with an open end).
pub(super) const OLDEST: (u32, u32) = (6, 2);
/// The oldest whose Clusters have them (`SSUBSCRIBE`).
pub(super) const OLDEST_OF_CLUSTER: (u32, u32) = (7, 0);
/// Bytes that are read, and time that is waited, for what a server says to whom it does not let in.
const FIRST_WORDS: usize = 1_024;
const LISTEN_TIMEOUT: Duration = Duration::from_millis(200);

/// Returns what a server that is to hold the data is asked first.
pub(super) fn questions() -> Pipeline {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("INFO").arg("server").cmd("INFO").arg("replication");
    pipeline
}

/// Reads what `INFO` says of a server. One that does not say is what it was taken for: what it
/// lacks will show.
pub(super) fn examine(answers: &[Value], oldest: (u32, u32)) -> Result<(), StoreError> {
    let texts = answers.iter().filter_map(|answer| String::from_redis_value_ref(answer).ok());
    for (field, value) in texts.flat_map(|text| fields(&text)) {
        let is_slave = field == "role" && value == "slave";
        let is_old =
            field == "redis_version" && version(&value).is_some_and(|version| version < oldest);
        if is_slave {
            return Err(StoreError::Replica);
        }
        if is_old {
            return Err(StoreError::TooOld { version: value, needed: oldest });
        }
    }
    Ok(())
}

fn fields(text: &str) -> Vec<(String, String)> {
    let pairs = text.lines().filter_map(|line| line.trim_end().split_once(':'));
    pairs.map(|(field, value)| (field.to_owned(), value.to_owned())).collect()
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

/// Listens for what a server says before it is asked anything.
pub(super) async fn first_words(host: &str, port: u16) -> Option<RedisError> {
    let listen = async {
        let mut words = Vec::new();
        let stream = TcpStream::connect((host, port)).await.ok()?;
        stream.take(FIRST_WORDS as u64).read_to_end(&mut words).await.ok()?;
        Scanner::default().pass(&words, FIRST_WORDS).ok()?;
        match parse_redis_value(&words) {
            Ok(Value::ServerError(error)) => Some(error.into()),
            _ => None,
        }
    };
    tokio::time::timeout(LISTEN_TIMEOUT, listen).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examined(text: &str) -> Result<(), StoreError> {
        examine(&[Value::BulkString(text.into())], OLDEST)
    }

    #[test]
    fn only_a_master_that_is_not_too_old_is_taken() {
        assert!(examined("# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n").is_ok());
        assert!(
            examined("redis_version:6.2.0\r\n").is_ok()
                && examined("redis_version:10.0.1\r\n").is_ok()
        );
        assert!(
            matches!(examined("redis_version:6.0.16\r\n"), Err(StoreError::TooOld { version, needed: OLDEST }) if version == "6.0.16")
        );
        assert!(examined("# Replication\r\nrole:master\r\nconnected_slaves:1\r\n").is_ok());
        assert!(matches!(examined("# Replication\r\nrole:slave\r\n"), Err(StoreError::Replica)));
        assert!(
            examined("").is_ok() && examined("redis_version:unstable\r\n").is_ok(),
            "it does not say"
        );
        assert!(examine(&[Value::Nil, Value::Okay, Value::Array(Vec::new())], OLDEST).is_ok());
    }
}
