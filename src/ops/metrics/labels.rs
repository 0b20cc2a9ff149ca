//! The values of labels: closed sets, each an enum.

use crate::model::call::{CallError, CallResult};
use crate::model::trouble::RedisRefusal;

/// How the run of a route ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RouteOutcome {
    Ok,
    /// The body lacks what the route takes from it.
    BadBody,
    /// No route matched.
    Forbidden,
    /// The back end has failed, could not be reached or took no more calls.
    Failed,
    /// The back end did not answer in time.
    TimedOut,
}

impl RouteOutcome {
    /// Returns how a route has ended that calls a back end.
    pub(crate) fn of(result: &CallResult) -> Self {
        match result {
            Ok(_) => Self::Ok,
            Err(CallError::TimedOut) => Self::TimedOut,
            Err(CallError::Failed | CallError::Unreachable | CallError::Overload) => Self::Failed,
        }
    }
}

/// Why a handshake was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not this stage's path.
    Path,
    /// Not a WebSocket handshake, or a broken one.
    Malformed,
    /// The origin may not connect.
    Origin,
    /// Not from this host, where only that is served.
    NotLocal,
    /// It cannot be read whom the proxy means.
    User,
    /// `$connect` said no.
    Connect,
    /// Redis is away, or this node is not subscribed yet.
    Unavailable,
    /// Redis does not take this node's writes.
    RedisRefused,
    /// As many connections as allowed.
    Capacity,
    /// As many handshakes in this second as allowed.
    Rate,
    /// As many handshakes of this address in this second as allowed.
    AddressRate,
    /// As many connections of this address as allowed.
    AddressConnections,
    /// The node's memory is nearly used up.
    Memory,
    /// The node is shutting down.
    Draining,
}

/// Why an HTTP request did not come to a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestRefusal {
    /// Not HTTP/1.1.
    Malformed,
    /// Not TLS, where that is spoken.
    Plain,
    /// A head over its bound.
    TooLarge,
    /// Not a path.
    Target,
    /// Not exactly one `Host`.
    Host,
    /// A `Transfer-Encoding` that is not understood.
    Coding,
    /// An `Expect` that is not understood.
    Expectation,
    /// As many of its kind are served as may be.
    Busy,
}

/// What an HTTP connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HttpState {
    /// Its request's head has not come whole.
    Head,
    /// Its request's body has not come whole.
    Body,
    /// Its request waits until one of its kind may be served.
    Queue,
    /// Its client has not taken the answer.
    Answer,
    /// Nothing, between requests.
    Idle,
}

/// Why an HTTP connection was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CutCause {
    /// Its time was up.
    Timeout,
    /// Others waited for its place.
    Crowded,
}

/// Why a connection was closed over its PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyRefusal {
    /// The peer is no trusted proxy.
    Untrusted,
    /// It is none.
    Malformed,
    /// It did not come whole and in time.
    Incomplete,
}

/// How a handshake of TLS ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsOutcome {
    Ok,
    /// What came was no TLS.
    Plain,
    /// The client did not take our certificate, or asked for what we do not have, or went away.
    Failed,
    /// Its time was up.
    Late,
    /// Others waited for its place.
    Crowded,
}

/// What became of a connection to a host that is mapped to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MappedOutcome {
    /// It was carried to its end.
    Done,
    /// Nobody answered at the address.
    Unreachable,
    /// There were as many as may be.
    Busy,
    /// Nothing came from either side for too long.
    Idle,
}

/// How the repair of a gap ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Recovery {
    /// Nothing is missing.
    Repaired,
    /// Something is, or may be.
    Lost,
}

/// What was wrong with a record in Redis.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reconciled {
    /// It was missing.
    Written,
    /// Its connection was gone.
    Removed,
}

/// How our close frame fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// The client's own came, before or after.
    Answered,
    /// The TCP stream ended without.
    Gone,
    /// The client had its time, and sent none.
    Timeout,
    /// It never left the outbox: the client took too little of what was in front of it.
    Stuck,
    /// The client sent too much else instead.
    Flood,
    /// The node ended before.
    Cut,
}

/// Why messages were dropped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DropReason {
    /// The broker's queues were full; the sender was told.
    Overload,
    /// Waiting for a slow consumer when it was closed.
    SlowConsumer,
    /// The node's memory was nearly used up: refused, the sender being told, or waiting for a
    /// connection that was closed for it.
    Memory,
    /// Redis did not take it, or did not say so; the sender was told.
    Unavailable,
    /// It did not fit among those that wait for Redis; the sender was told.
    BufferFull,
    /// It waited for Redis for too long; the sender was told.
    BufferAge,
    /// A shard's queue was full, and the group keeps nothing to repair the gap from.
    InboxFull,
    /// Waiting for a connection that was closed and given up.
    Cut,
}

/// Which limit a sender was slowed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendLimit {
    Messages,
    Bytes,
    FanoutBytes,
}

/// How far a channel's message has come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LagStage {
    Queue,
    Socket,
}

/// How the broker answered a publication.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PublishOutcome {
    Ok,
    /// Redis did not take it; the members on this node have it.
    Local,
    /// Queues were full.
    Overload,
    /// Redis is away.
    Unavailable,
    /// Redis did not take it.
    Refused,
    /// It had a key where none are remembered.
    KeyUnkept,
    /// It was longer than any client may be sent.
    TooLong,
}

/// Why a run of `$disconnect` will never be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GivenUp {
    /// It is longer than any client may be sent.
    TooLong,
    /// Too many wait to be tried again.
    QueueFull,
    /// The back end that is to be told has not answered, however often it was tried.
    BackEnd,
}

/// Whose bucket had no new channel left.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NameLimit {
    Connection,
    Address,
}

/// What was found in Redis that no node has written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Foreign {
    /// A message that was published.
    Message,
    /// An entry of a channel's stream.
    Entry,
    /// A letter to this node.
    PeerMessage,
}

/// What went wrong while deletion costs were kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CostFault {
    /// A node did not say how many connections it has.
    Unanswered,
    /// The token or the CA's certificate cannot be read.
    Credentials,
    /// Nobody answers at the API server's address.
    Unreachable,
    /// Whoever answers there is not who the CA's certificate says.
    Tls,
    /// No answer in time.
    Timeout,
    /// 401.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 404.
    NotFound,
    /// 409.
    Conflict,
    /// 429.
    Throttled,
    /// 5xx.
    Server,
    /// Any other status, or an answer that is too long or not understood.
    Unexpected,
    /// More costs changed than are written in one round.
    Deferred,
}

/// Why a process of a function ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FunctionEnd {
    /// By itself, after it had asked for work.
    Exit,
    /// It was killed, since a run took longer than it may.
    Timeout,
    /// It never asked for work.
    Init,
    /// There was nothing to do.
    Idle,
    /// It was stopped, since its code had changed.
    Outdated,
}

/// How an invocation of a function ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FunctionOutcome {
    Ok,
    /// The code reported an error.
    Error,
    /// The process exited meanwhile.
    Exit,
    /// No process could be started.
    Init,
    /// Neither result nor error in time.
    Timeout,
    /// The result was too long.
    TooLong,
    /// The node was ending.
    Ending,
    /// Whoever asked gave up.
    Abandoned,
}

macro_rules! labels {
    ($($kind:ident { $($variant:ident => $label:literal),+ $(,)? })+) => {$(
        impl $kind {
            pub(super) const ALL: &[Self] = &[$(Self::$variant),+];

            pub(crate) fn label(self) -> &'static str {
                match self { $(Self::$variant => $label),+ }
            }
        }
    )+};
}

labels! {
    Recovery { Repaired => "repaired", Lost => "lost" }
    RouteOutcome {
        Ok => "ok", BadBody => "bad_body", Forbidden => "forbidden", Failed => "failed", TimedOut => "timeout",
    }
    Refusal {
        Path => "path", Malformed => "malformed", Origin => "origin", NotLocal => "not_local", User => "user", Connect => "connect",
        Capacity => "capacity", Rate => "rate", Memory => "memory", AddressRate => "address_rate",
        AddressConnections => "address_connections", Unavailable => "unavailable",
        RedisRefused => "redis_refused", Draining => "draining",
    }
    RequestRefusal {
        Malformed => "malformed", Plain => "plain", TooLarge => "too_large", Target => "target", Host => "host",
        Coding => "coding", Expectation => "expectation", Busy => "busy",
    }
    HttpState { Head => "head", Body => "body", Queue => "queue", Answer => "answer", Idle => "idle" }
    CutCause { Timeout => "timeout", Crowded => "crowded" }
    Reconciled { Written => "written", Removed => "removed" }
    TlsOutcome { Ok => "ok", Plain => "plain", Failed => "failed", Late => "timeout", Crowded => "crowded" }
    MappedOutcome { Done => "done", Unreachable => "unreachable", Busy => "busy", Idle => "idle" }
    ProxyRefusal { Untrusted => "untrusted", Malformed => "malformed", Incomplete => "incomplete" }
    Farewell {
        Answered => "answered", Gone => "gone", Timeout => "timeout", Stuck => "stuck", Flood => "flood", Cut => "cut",
    }
    GivenUp { TooLong => "too_long", QueueFull => "queue_full", BackEnd => "back_end" }
    NameLimit { Connection => "connection", Address => "address" }
    Foreign { Message => "message", Entry => "entry", PeerMessage => "letter" }
    SendLimit {
        Messages => "message_rate", Bytes => "receive_bytes_rate", FanoutBytes => "fanout_bytes_rate",
    }
    FunctionEnd { Exit => "exit", Timeout => "timeout", Init => "init", Idle => "idle", Outdated => "outdated" }
    FunctionOutcome {
        Ok => "ok", Error => "error", Exit => "exit", Init => "init", Timeout => "timeout", TooLong => "too_long",
        Ending => "ending", Abandoned => "abandoned",
    }
    LagStage { Queue => "queue", Socket => "socket" }
    PublishOutcome {
        Ok => "ok", Local => "local", Overload => "overload", Unavailable => "unavailable",
        Refused => "refused", KeyUnkept => "key_unkept", TooLong => "too_long",
    }
    RedisRefusal {
        ReadOnly => "readonly", Loading => "loading", ClusterDown => "cluster_down", Auth => "auth", Oom => "oom",
        NoPerm => "noperm", Misconf => "misconf", Replicas => "replicas", WrongType => "wrongtype", Busy => "busy",
        MaxClients => "max_clients", Unknown => "unknown_command", TooOld => "too_old", Broken => "broken", Other => "other",
    }
    CostFault {
        Unanswered => "unanswered", Credentials => "credentials", Unreachable => "unreachable", Tls => "tls",
        Timeout => "timeout", Unauthorized => "unauthorized", Forbidden => "forbidden", NotFound => "not_found",
        Conflict => "conflict", Throttled => "throttled", Server => "server", Unexpected => "unexpected",
        Deferred => "deferred",
    }
    DropReason {
        Overload => "overload", SlowConsumer => "slow_consumer", Memory => "memory", Unavailable => "unavailable",
        BufferFull => "buffer_full", BufferAge => "buffer_age", InboxFull => "inbox_full", Cut => "cut",
    }
}
