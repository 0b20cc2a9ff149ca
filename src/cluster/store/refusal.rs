//! What errors of Redis mean, in one table: which class each is of, whether to ask again elsewhere,
//! and what to do about it.
//!
//! *Moved on* (`ReadOnly`, `Loading`, `ClusterDown`, and `Auth` on a connection that was let in
//! once): nothing was carried out, and a new connection may reach who does it. All others are
//! refused, which no repetition changes. An error without a class does not come from Redis: nobody
//! was reached, or nobody answered.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::model::trouble::RedisRefusal;

/// The first word of an error
/// (<https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors>), and its class.
const CODES: &[(&str, RedisRefusal)] = &[
    ("READONLY", RedisRefusal::ReadOnly),
    ("MASTERDOWN", RedisRefusal::ReadOnly),
    // A command that waited when the server became a replica.
    ("UNBLOCKED", RedisRefusal::ReadOnly),
    ("LOADING", RedisRefusal::Loading),
    ("CLUSTERDOWN", RedisRefusal::ClusterDown),
    ("TRYAGAIN", RedisRefusal::ClusterDown),
    ("MOVED", RedisRefusal::ClusterDown),
    ("ASK", RedisRefusal::ClusterDown),
    ("NOAUTH", RedisRefusal::Auth),
    ("WRONGPASS", RedisRefusal::Auth),
    // Protected mode: no password is set, and the client is on another host.
    ("DENIED", RedisRefusal::Auth),
    ("OOM", RedisRefusal::Oom),
    ("NOPERM", RedisRefusal::NoPerm),
    ("MISCONF", RedisRefusal::Misconf),
    ("NOREPLICAS", RedisRefusal::Replicas),
    ("WRONGTYPE", RedisRefusal::WrongType),
    ("BUSY", RedisRefusal::Busy),
    ("NOPROTO", RedisRefusal::TooOld),
    // Loaded and asked again by who runs scripts; what comes so far was evicted between the two,
    // again and again.
    ("NOSCRIPT", RedisRefusal::Other),
];

/// What errors say that begin with a bare `ERR`.
const TEXTS: &[(&str, RedisRefusal)] = &[
    ("max number of clients", RedisRefusal::MaxClients),
    ("The user executing the script can't", RedisRefusal::NoPerm),
    // Whatever somebody else has added to a stream is in the way of what comes.
    ("The ID specified in XADD", RedisRefusal::WrongType),
    ("unknown command", RedisRefusal::Unknown),
    ("unknown subcommand", RedisRefusal::Unknown),
    ("Unknown Redis command called from script", RedisRefusal::Unknown),
    ("without any password configured", RedisRefusal::Auth),
    ("invalid password", RedisRefusal::Auth),
];

impl RedisRefusal {
    /// Returns the class of an error; `None` if nobody answered.
    pub(crate) fn of(error: &RedisError) -> Option<Self> {
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::ResponseError) => {
                Some(Self::of_text(error.detail().unwrap_or_default()))
            }
            ErrorKind::Server(_) | ErrorKind::Extension => {
                Some(error.code().and_then(Self::of_code).unwrap_or(Self::Other))
            }
            ErrorKind::AuthenticationFailed => {
                Some(Self::of_login(error.detail().unwrap_or_default()))
            }
            ErrorKind::RESP3NotSupported => Some(Self::TooOld),
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => Some(Self::Broken),
            _ => None,
        }
    }

    /// Returns whether a script met the error behind what it may have done already. Whatever else
    /// is refused for the server's sake is refused with a script's first write.
    pub(super) fn is_halfway(error: &RedisError) -> bool {
        let is_plain = error.kind() == ErrorKind::Server(ServerErrorKind::ResponseError);
        let text = error.detail().unwrap_or_default();
        is_plain && text.contains("script")
    }

    fn of_code(code: &str) -> Option<Self> {
        CODES.iter().find(|(known, _)| *known == code).map(|(_, class)| *class)
    }

    /// What begins with `ERR`. Before 7.0 the error of a command in a script is behind words about
    /// the script.
    fn of_text(text: &str) -> Self {
        let known = TEXTS.iter().find(|(part, _)| text.contains(part)).map(|(_, class)| *class);
        let inner = || text.split([' ', ':', '-']).find_map(Self::of_code);
        known.or_else(inner).unwrap_or(Self::Other)
    }

    /// What keeps a connection from being made, when the driver says no more than that logging in
    /// failed.
    fn of_login(text: &str) -> Self {
        Some(Self::of_text(text)).filter(|class| *class != Self::Other).unwrap_or(Self::Auth)
    }
}

#[cfg(test)]
mod tests {
    use redis::{Value, parse_redis_value};

    use super::*;
    use RedisRefusal as Class;

    fn class_of(line: &str) -> Option<Class> {
        let value = parse_redis_value(format!("-{line}\r\n").as_bytes()).expect("a reply");
        let Value::ServerError(error) = value else { panic!("{value:?}") };
        Class::of(&error.into())
    }

    /// As Redis 6.2 and 7.0 word them.
    const WORDED: &[(&str, Class)] = &[
        ("READONLY You can't write against a read only replica.", Class::ReadOnly),
        (
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            Class::ReadOnly,
        ),
        (
            "UNBLOCKED force unblock from blocking operation, instance state changed",
            Class::ReadOnly,
        ),
        ("LOADING Redis is loading the dataset in memory", Class::Loading),
        ("CLUSTERDOWN The cluster is down", Class::ClusterDown),
        ("CLUSTERDOWN Hash slot not served", Class::ClusterDown),
        ("TRYAGAIN Multiple keys request during rehashing of slot", Class::ClusterDown),
        ("MOVED 3999 127.0.0.1:6381", Class::ClusterDown),
        ("NOAUTH Authentication required.", Class::Auth),
        (
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the",
            Class::Auth,
        ),
        ("WRONGPASS invalid username-password pair or user is disabled.", Class::Auth),
        (
            "ERR AUTH <password> called without any password configured for the default user.",
            Class::Auth,
        ),
        ("ERR invalid password", Class::Auth),
        (
            "DENIED Redis is running in protected mode because protected mode is enabled",
            Class::Auth,
        ),
        ("OOM command not allowed when used memory > 'maxmemory'.", Class::Oom),
        (
            "OOM command not allowed when used memory > 'maxmemory'. script: a219, on @user_script:1.",
            Class::Oom,
        ),
        (
            "ERR Error running script (call to f_a219): @user_script:1: -OOM command not allowed",
            Class::Oom,
        ),
        (
            "ERR Error running script (call to f_a219): @user_script:1: READONLY You can't",
            Class::ReadOnly,
        ),
        ("NOPERM this user has no permissions to run the 'set' command", Class::NoPerm),
        (
            "ERR The user executing the script can't run this command or subcommand script: a2",
            Class::NoPerm,
        ),
        (
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to",
            Class::Misconf,
        ),
        ("NOREPLICAS Not enough good replicas to write.", Class::Replicas),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", Class::WrongType),
        (
            "ERR The ID specified in XADD is equal or smaller than the target stream top item script: a2",
            Class::WrongType,
        ),
        (
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN",
            Class::Busy,
        ),
        ("ERR max number of clients reached", Class::MaxClients),
        ("ERR unknown command 'EVALSHA', with args beginning with: ", Class::Unknown),
        ("ERR unknown subcommand 'foo'. Try SCRIPT HELP.", Class::Unknown),
        (
            "ERR Unknown Redis command called from script script: cc78, on @user_script:1.",
            Class::Unknown,
        ),
        ("NOPROTO unsupported protocol version", Class::TooOld),
        ("ERR value is not an integer or out of range", Class::Other),
        ("EXECABORT Transaction discarded because of previous errors.", Class::Other),
        ("SOMETHING new", Class::Other),
    ];

    #[test]
    fn each_error_has_its_class() {
        for (line, class) in WORDED {
            assert_eq!(class_of(line), Some(*class), "{line}");
        }
    }

    #[test]
    fn what_is_no_reply_of_redis_is_broken_and_silence_has_no_class() {
        let garbage = parse_redis_value(b"HTTP/1.1 400 Bad Request\r\n").expect_err("no reply");
        assert_eq!(Class::of(&garbage), Some(Class::Broken));
        let another = RedisError::from((ErrorKind::UnexpectedReturnType, "a list was expected"));
        assert_eq!(Class::of(&another), Some(Class::Broken));
        assert_eq!(
            Class::of(&std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into()),
            None
        );
    }

    #[test]
    fn only_what_another_server_may_do_is_asked_again() {
        for (_, class) in CODES.iter().chain(TEXTS) {
            let is_elsewhere =
                [Class::ReadOnly, Class::Loading, Class::ClusterDown, Class::Auth].contains(class);
            assert_eq!(class.is_moved_on(), is_elsewhere, "{class:?}");
            assert!(!class.text().is_empty() && !class.advice().is_empty());
        }
    }
}
