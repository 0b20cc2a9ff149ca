//! Proxies between clients and the node: whose word is taken for a client's address.
//!
//! A proxy appends whom it was called by to `X-Forwarded-For`, so its right end is the work of the
//! nearest proxy, and what stands left of the first stranger may be invented. `Forwarded` (RFC
//! 7239) is not read: a proxy that writes one of the two lets the client's own version of the other
//! through.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderMap;
use ipnet::IpNet;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// Returns whether an address is that of a trusted proxy.
pub(crate) fn trust(trusted: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|network| network.contains(&address))
}

/// Finds who speaks through the proxies that are trusted.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    /// Whether the log says already that somebody else speaks like one.
    has_warned: AtomicBool,
}

impl Proxies {
    /// Returns the address of the client behind a peer: of those that trusted proxies name, the
    /// last that is not one itself.
    pub(crate) fn client(&self, trusted: &[IpNet], peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !trust(trusted, peer) {
            self.warn_of(peer, headers);
            return peer;
        }
        let lines = headers.get_all(FORWARDED_FOR).into_iter().rev();
        let mut hops =
            lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(',')).map(address);
        let mut client = peer;
        while trust(trusted, client)
            && let Some(Some(hop)) = hops.next()
        {
            client = hop;
        }
        client
    }

    /// Says once that a peer speaks for others and is not believed: it may be a load balancer that
    /// nobody told us of.
    fn warn_of(&self, peer: IpAddr, headers: &HeaderMap) {
        let speaks =
            [FORWARDED_FOR, "forwarded"].into_iter().any(|name| headers.contains_key(name));
        if speaks && !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %peer,
                "a peer that is not in trusted_proxies sends X-Forwarded-For or Forwarded, which is not believed: if it is \
                 your load balancer, all clients seem to have its address; set trusted_proxies = [\"{peer}\"]. Said once"
            );
        }
    }
}

/// Reads an address, which some proxies write with brackets or a port.
fn address(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    let with_port = || hop.parse().ok().map(|address: SocketAddr| address.ip());
    bare.parse().ok().or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn trusted() -> Vec<IpNet> {
        let networks = ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"];
        networks.iter().map(|text| text.parse().expect("a network")).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn client(peer: &str, lines: &[&[u8]]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(line).expect("a value"));
        }
        Proxies::default().client(&trusted(), ip(peer), &headers).to_string()
    }

    #[test]
    fn the_client_is_the_last_address_that_is_no_trusted_proxy() {
        let cases: &[(&str, &[&[u8]], &str)] = &[
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[b"203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &[b"1.2.3.4, 203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &[b"1.2.3.4, 203.0.113.9 , 192.0.2.7,10.9.9.9"], "203.0.113.9"),
            ("10.0.0.1", &[b"1.2.3.4", b"203.0.113.9", b"10.2.0.1"], "203.0.113.9"),
            ("10.0.0.1", &[b"10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("192.0.2.7", &[b"203.0.113.9:4711"], "203.0.113.9"),
            ("2001:db8::1", &[b"[2001:db9::9]"], "2001:db9::9"),
            ("2001:db8::1", &[b"[2001:db9::9]:4711, 2001:db8::2"], "2001:db9::9"),
            ("::ffff:10.0.0.1", &[b"::ffff:203.0.113.9"], "203.0.113.9"),
        ];
        for (peer, lines, expected) in cases {
            assert_eq!(client(peer, lines), *expected, "{peer} {lines:?}");
        }
    }

    #[test]
    fn a_stranger_is_not_believed() {
        for peer in ["192.0.2.8", "11.0.0.1", "2001:db9::1", "127.0.0.1"] {
            assert_eq!(client(peer, &[b"203.0.113.9"]), peer);
        }
    }

    #[test]
    fn garbage_ends_the_walk_at_the_last_good_address() {
        let garbage: &[&[u8]] = &[
            b"",
            b",",
            b"unknown",
            b"_hidden",
            b"for=203.0.113.9",
            b"203.0.113.9;",
            b"203.0.113.256",
            b"203.0.113.9:99999",
            b"[2001:db9::9",
            b"\"203.0.113.9\"",
            b"203.0.113.9\xff",
        ];
        for text in garbage {
            assert_eq!(client("10.0.0.1", &[text]), "10.0.0.1", "{text:?}");
            assert_eq!(client("10.0.0.1", &[text, b"10.0.0.2"]), "10.0.0.2", "{text:?}");
            assert_eq!(client("10.0.0.1", &[b"203.0.113.9", text]), "10.0.0.1", "{text:?}");
        }
    }

    proptest! {
        /// Whatever the client writes, the address that the trusted proxy appends is the one.
        #[test]
        fn what_a_client_writes_changes_nothing(own in "[ -~]{0,80}", octets in any::<[u8; 4]>()) {
            let real = IpAddr::from(octets);
            prop_assume!(!trust(&trusted(), real));
            let line = format!("{own}, {real}");
            prop_assert_eq!(client("10.0.0.1", &[line.as_bytes()]), real.to_string());
            prop_assert_eq!(client("10.0.0.1", &[own.as_bytes(), real.to_string().as_bytes()]), real.to_string());
        }
    }
}
