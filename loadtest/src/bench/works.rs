//! The names of servers, works and measures.
//!
//! Rule: measurements and goals both take their names from here, so that they match.

/// The server that the goals are about.
pub(crate) const GATECAST: &str = "gatecast";
/// The reference: a process that sends a ready frame to each socket with one `send(2)`.
pub(crate) const FLOOR: &str = "bare send loop";
/// The C++ library, or [`UWEBSOCKETS_JS`] where it cannot be compiled.
pub(crate) const UWEBSOCKETS: &str = "uWebSockets";
/// Measured beside it only on request.
pub(crate) const UWEBSOCKETS_JS: &str = "uWebSockets.js";
pub(crate) const WS: &str = "ws";
pub(crate) const SOCKET_IO: &str = "Socket.IO";
pub(crate) const SOCKET_IO_REDIS: &str = "Socket.IO + Redis";
/// In the order in which tables and plots show them.
pub(crate) const SERVERS: [&str; 7] =
    [GATECAST, FLOOR, UWEBSOCKETS, UWEBSOCKETS_JS, WS, SOCKET_IO, SOCKET_IO_REDIS];

/// The name of a figure, and its unit.
pub(crate) type Measure = (&'static str, &'static str);

pub(crate) const SERVER_CPU: Measure = ("server CPU per delivery", "µs");
pub(crate) const CLIENT_CPU: Measure = ("client CPU per delivery", "µs");
pub(crate) const DELIVERIES: Measure = ("deliveries", "/s");
/// CPU of Redis, if there is one, per delivery.
pub(crate) const REDIS_CPU: Measure = ("Redis CPU per delivery", "µs");
/// Latencies of an open loop: from the moment a message is due until a receiver has it.
pub(crate) const P50: Measure = ("latency, p50", "µs");
pub(crate) const P99: Measure = ("latency, p99", "µs");
pub(crate) const P999: Measure = ("latency, p99.9", "µs");
pub(crate) const LONGEST: Measure = ("latency, max", "µs");
/// More than the empty server's, at the first opening.
pub(crate) const RSS: Measure = ("RSS per connection", "B");
/// The same at the last of [`OPENINGS`].
pub(crate) const RSS_REOPENED: Measure = ("RSS per connection, opening 11", "B");
/// The kernel's memory for sockets, which no process's RSS shows.
pub(crate) const SLAB: Measure = ("kernel slab per connection", "B");
pub(crate) const OPENED: Measure = ("connections opened", "/s");
pub(crate) const OPENING_CPU: Measure = ("server CPU per opening", "µs");
pub(crate) const POSTS: Measure = ("posts", "/s");
pub(crate) const POST_CPU: Measure = ("server CPU per post", "µs");

/// How often the connections of [`CHURN`] are opened: once, and again after each of ten closings.
pub(crate) const OPENINGS: usize = 11;

/// A load that is the same for each server.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) name: &'static str,
    /// One group is everybody.
    pub(crate) groups: usize,
    /// Connections in each.
    pub(crate) group_size: usize,
    /// Messages under way at once; 0 if there are no messages, or a rate instead.
    pub(crate) window: u32,
    /// Size of a payload.
    pub(crate) bytes: usize,
}

pub(crate) const FANOUT_1K: Work = to_all("fan-out to 1,000", 1000, 1, 128);
pub(crate) const FANOUT_5K: Work = to_all("fan-out to 5,000", 5000, 1, 128);
pub(crate) const FANOUT_15K: Work = to_all("fan-out to 15,000", 15_000, 1, 128);
pub(crate) const FLOOD_1K: Work = to_all("flood to 1,000", 1000, 32, 128);
pub(crate) const FLOOD_15K: Work = to_all("flood to 15,000", 15_000, 32, 128);
pub(crate) const GROUPS_OF_50: Work = in_groups("200 groups of 50", 200, 50);
pub(crate) const GROUPS_OF_2: Work = in_groups("1,000 groups of 2", 1000, 2);
pub(crate) const KIB_1: Work = to_all("1 KiB to 1,000", 1000, 32, 1024);
/// Four under way: 32 would be half a gigabyte in queues.
pub(crate) const KIB_16: Work = to_all("16 KiB to 1,000", 1000, 4, 16 << 10);
/// An open loop at one rate for all: half of what the slower of gatecast and uWebSockets delivered
/// in the flood.
pub(crate) const LATENCY: Work = to_all("latency at half of the peak", 1000, 0, 128);
/// Measures [`rss_at`] each opening.
pub(crate) const CHURN: Work = silent("15,000 idle", 1, 15_000);
/// Idle connections that are all members of one group, and of one of a hundred each.
pub(crate) const IDLE_IN_1: Work = silent("15,000 idle in 1 group", 1, 15_000);
pub(crate) const IDLE_IN_100: Work = silent("15,000 idle in 100 groups", 100, 150);
pub(crate) const STORM: Work = silent("storm of 15,000", 1, 15_000);
/// Posts of the management API to a connection of the same node, and of another.
pub(crate) const POST_HERE: Work = to_all("posts, same node", 1000, 0, 128);
pub(crate) const POST_THERE: Work = to_all("posts, other node", 1000, 0, 128);
/// The first of these, with signatures.
pub(crate) const POST_SIGNED: Work = to_all("signed posts, same node", 1000, 0, 128);
/// Three nodes on one Redis.
pub(crate) const CLUSTER: Work = to_all("three nodes, flood", 1000, 32, 128);
/// An open loop at the same rate on three nodes, and on one with the same Redis.
pub(crate) const CLUSTER_LATENCY: Work = to_all("three nodes, latency", 1000, 0, 128);
pub(crate) const ONE_NODE_LATENCY: Work = to_all("one node, latency", 1000, 0, 128);

/// Returns the place of a server in the order; unknown ones are last.
pub(crate) fn place(server: &str) -> usize {
    SERVERS.iter().position(|name| *name == server).unwrap_or(SERVERS.len())
}

/// Returns whether a server is one of these; uWebSockets.js takes part wherever uWebSockets does.
pub(crate) fn has_part(servers: &[&str], server: &str) -> bool {
    servers.contains(&if server == UWEBSOCKETS_JS { UWEBSOCKETS } else { server })
}

/// Names the memory of a connection at an opening; the first is [`RSS`], the last [`RSS_REOPENED`].
pub(crate) fn rss_at(opening: usize) -> String {
    if opening == 1 { RSS.0.to_owned() } else { format!("{}, opening {opening}", RSS.0) }
}

const fn to_all(name: &'static str, group_size: usize, window: u32, bytes: usize) -> Work {
    Work { name, groups: 1, group_size, window, bytes }
}

const fn in_groups(name: &'static str, groups: usize, group_size: usize) -> Work {
    Work { name, groups, group_size, window: 32, bytes: 128 }
}

const fn silent(name: &'static str, groups: usize, group_size: usize) -> Work {
    Work { name, groups, group_size, window: 0, bytes: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_opening_have_names_of_their_own() {
        assert_eq!((rss_at(1).as_str(), rss_at(OPENINGS).as_str()), (RSS.0, RSS_REOPENED.0));
    }

    #[test]
    fn uwebsockets_js_has_part_where_uwebsockets_has() {
        assert!(has_part(&[GATECAST, UWEBSOCKETS], UWEBSOCKETS_JS));
        assert!(!has_part(&[GATECAST, WS], UWEBSOCKETS_JS));
        assert!(has_part(&[GATECAST, WS], WS) && !has_part(&[GATECAST, UWEBSOCKETS], WS));
    }
}
