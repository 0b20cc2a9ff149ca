//! Where Redis is, as one URL says it: one server, Sentinels that know the master, or a Cluster.

use std::net::Ipv6Addr;

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::kinds::Setting;
use super::row::Kind;
use super::secret::Secret;
use crate::model::origin::Host;

/// Port of a Redis whose URL names none.
const REDIS_PORT: u16 = 6_379;
/// Port of a Sentinel whose URL names none.
const SENTINEL_PORT: u16 = 26_379;

/// See the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RedisUrl {
    /// What the hosts are.
    pub(crate) topology: RedisTopology,
    /// Whether connections are encrypted.
    pub(crate) tls: bool,
    /// Where to begin: the server, or some of the Sentinels or of the Cluster's servers. Never
    /// empty.
    pub(crate) hosts: Vec<(String, u16)>,
    /// User of Redis's access control list.
    pub(crate) user: Option<String>,
    /// Their password, or that of all.
    pub(crate) password: Option<Secret>,
    /// Number of the database; a Cluster has only 0.
    pub(crate) database: u32,
}

/// How Redis is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RedisTopology {
    /// One server.
    Single,
    /// Sentinels, which say where the master of this name is.
    Sentinel(String),
    /// A Cluster, in which every channel has a slot, and every slot a server.
    Cluster,
}

impl Kind for RedisUrl {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        json!({ "type": "string", "pattern": r"^rediss?(\+sentinel|\+cluster)?://" })
    }
}

impl Setting for RedisUrl {
    const EXPECTED: &'static str = "redis://[user:password@]host[:port][/database], \
         redis+sentinel://[user:password@]host[:port],…/master[/database] or \
         redis+cluster://[user:password@]host[:port],…; rediss for TLS; @ : / % in a user or password are %40 %3A %2F %25";
    const SECRET: bool = true;

    fn read(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (base, form) = scheme.split_once('+').unwrap_or((scheme, ""));
        let tls = match base {
            "redis" => false,
            "rediss" => true,
            _ => return None,
        };
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (login, rest),
            None => ("", rest),
        };
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (user, password) = (plain(user)?, plain(password)?);
        // A password that stands where the user does would go unsaid.
        if user.is_some() && password.is_none() {
            return None;
        }
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (topology, database) = match form {
            "" => (RedisTopology::Single, path),
            "cluster" => (RedisTopology::Cluster, path),
            "sentinel" => {
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                (RedisTopology::Sentinel(plain(master)??), database)
            }
            _ => return None,
        };
        let database = if database.is_empty() { 0 } else { database.parse().ok()? };
        let port =
            if matches!(topology, RedisTopology::Sentinel(_)) { SENTINEL_PORT } else { REDIS_PORT };
        let hosts =
            hosts.split(',').map(|host| host_and_port(host, port)).collect::<Option<Vec<_>>>()?;
        let is_possible = match topology {
            RedisTopology::Single => hosts.len() == 1,
            RedisTopology::Sentinel(_) => true,
            RedisTopology::Cluster => database == 0,
        };
        let password = password.map(|password| Secret::new(&password));
        is_possible.then_some(Self { topology, tls, hosts, user, password, database })
    }
}

/// Decodes a part of a URL, `None` within if it is empty; `None` if it cannot be read.
#[expect(clippy::option_option, reason = "whether it can be read, and whether it is there")]
fn plain(part: &str) -> Option<Option<String>> {
    let text = percent_decode_str(part).decode_utf8().ok()?.into_owned();
    let is_clean = !text.chars().any(char::is_control);
    is_clean.then(|| Some(text).filter(|text| !text.is_empty()))
}

/// Splits `host[:port]`; an address of IPv6 stands in brackets.
fn host_and_port(text: &str, default: u16) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map_or(Some(default), |port| port.parse().ok().filter(|port| *port > 0))?;
    let is_host = match text.strip_prefix('[') {
        Some(_) => host.parse::<Ipv6Addr>().is_ok(),
        // A dot at its end keeps a name from being looked up in other domains.
        None => Host::parse(host.strip_suffix('.').unwrap_or(host)).is_some(),
    };
    is_host.then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        let single = RedisUrl::read("redis://127.0.0.1").expect("a URL");
        assert_eq!((single.hosts, single.tls), (vec![("127.0.0.1".to_owned(), 6_379)], false));
        let secured = RedisUrl::read("rediss://tom:a%40b@[::1]:7000/3").expect("a URL");
        assert_eq!(secured.hosts, [("::1".to_owned(), 7_000)]);
        assert_eq!(
            (secured.user.as_deref(), secured.database, secured.tls),
            (Some("tom"), 3, true)
        );
        assert_eq!(secured.password, Some(Secret::new("a@b")));
        let sentinel = RedisUrl::read("redis+sentinel://:pw@a,b:1/mymaster/2").expect("a URL");
        assert_eq!(sentinel.topology, RedisTopology::Sentinel("mymaster".to_owned()));
        assert_eq!(sentinel.hosts, [("a".to_owned(), 26_379), ("b".to_owned(), 1)]);
        assert_eq!((sentinel.user, sentinel.database), (None, 2));
        let rooted = RedisUrl::read("redis://redis.default.svc.:1").expect("a URL");
        assert_eq!(rooted.hosts, [("redis.default.svc.".to_owned(), 1)]);
        let cluster = RedisUrl::read("rediss+cluster://a:1,b:2,c:3").expect("a URL");
        assert_eq!((cluster.topology, cluster.hosts.len()), (RedisTopology::Cluster, 3));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in [
            "",
            "redis://",
            "http://a",
            "redis://a,b",
            "redis://a:x",
            "redis://a/x",
            "redis+sentinel://a:1",
            "redis+cluster://a/1",
            "redis+ring://a",
            "redis://[::1",
            "redis://[localhost]",
            "redis://a b",
            "redis://a?b=c",
            "redis://a:0",
            "redis://a:70000",
            "redis://127.1",
            "redis://tom@a",
            "redis://:p%FF@a",
            "redis://t%00m:p@a",
            "redis+sentinel://a/%FF",
            " redis://a",
        ] {
            assert_eq!(RedisUrl::read(text), None, "{text}");
        }
    }

    #[test]
    fn password_is_not_shown() {
        let url = RedisUrl::read("redis://:swordfish@a").expect("a URL");
        assert!(!format!("{url:?}").contains("swordfish"));
    }
}
