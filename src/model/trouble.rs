//! What keeps a node from working with Redis, and what to do about it.

/// What keeps a node from working with Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    /// Nobody was reached, or nobody answered in time.
    #[error("Redis is away")]
    Away,
    #[error("Redis refuses what it is asked: {}", .0.text())]
    Refused(RedisRefusal),
}

/// What an error of Redis says: which class it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RedisRefusal {
    /// The server is a replica, or has become one.
    ReadOnly,
    /// It reads its data from disk.
    Loading,
    /// The Cluster, or a part of it, is not served.
    ClusterDown,
    /// The login is wrong, or has become so.
    Auth,
    /// It holds as much as it may.
    Oom,
    /// The user lacks a right.
    NoPerm,
    /// It cannot save to disk.
    Misconf,
    /// It has fewer replicas than it has to have.
    Replicas,
    /// A key holds something else than it should.
    WrongType,
    /// A script of somebody runs for too long.
    Busy,
    /// It has as many clients as it may.
    MaxClients,
    /// It does not know a command: it is no Redis in full, or the command was renamed.
    Unknown,
    /// Its version is older than the oldest that will do.
    TooOld,
    /// The reply is not what was asked for, or not one of Redis at all.
    Broken,
    Other,
}

impl RedisRefusal {
    /// Returns whether a new connection may reach a server that does what this one did not.
    pub(crate) fn is_moved_on(self) -> bool {
        matches!(self, Self::ReadOnly | Self::Loading | Self::ClusterDown | Self::Auth)
    }

    /// Returns whether it concerns one key, and neither the server nor what is asked of other keys.
    pub(crate) fn is_confined(self) -> bool {
        self == Self::WrongType
    }

    /// Returns what has come to pass, as people say it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::ReadOnly => "it is a replica",
            Self::Loading => "it is reading its data from disk",
            Self::ClusterDown => "the Cluster is not whole",
            Self::Auth => "the login is wrong",
            Self::Oom => "its memory is full",
            Self::NoPerm => "the user lacks a right",
            Self::Misconf => "it cannot save to disk",
            Self::Replicas => "it has too few replicas",
            Self::WrongType => "a key holds something else",
            Self::Busy => "a script keeps it busy",
            Self::MaxClients => "it has too many clients",
            Self::Unknown => "it does not know a command",
            Self::TooOld => "it is too old",
            Self::Broken => "its reply cannot be read",
            Self::Other => "it says so",
        }
    }

    /// Returns what to do about it.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::ReadOnly => {
                "let redis.url name the master: an address that follows it, its Sentinels, or the Cluster"
            }
            Self::Loading => "wait: it comes back by itself",
            Self::ClusterDown => "see which slots nobody serves: redis-cli --cluster check",
            Self::Auth => "correct the user and password in redis.url, or those of Redis",
            Self::Oom => "raise maxmemory, or give Gatecast a Redis of its own",
            Self::NoPerm => "give the user the rights that the README lists (Many nodes)",
            Self::Misconf => "free the disk of Redis, or look into its log for why it cannot save",
            Self::Replicas => "bring its replicas back, or lower min-replicas-to-write",
            Self::WrongType => {
                "remove the key that somebody else has written, or give Gatecast another redis.prefix"
            }
            Self::Busy => "end the script (SCRIPT KILL), or give Gatecast a Redis of its own",
            Self::MaxClients => {
                "raise maxclients, or find out who holds the connections (CLIENT LIST)"
            }
            Self::Unknown => "let the server have all commands of the README's list, none renamed",
            Self::TooOld => "use Redis 6.2 or later; for a Cluster 7.0 or later",
            Self::Broken => "see what answers at this address; it does not speak as Redis does",
            Self::Other => "look up the error in the documentation of Redis",
        }
    }
}
