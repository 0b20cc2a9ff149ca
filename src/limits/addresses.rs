//! What one address may have of the way in: handshakes a second, and connections at a time.
//!
//! An address is one of IPv4, or a network /64 of IPv6, which is what a home gets. Many of those
//! may be one site, so a network /48 has bounds too, [`SITE_SHARE`] times as wide.
//!
//! Rule: strangers with any number of addresses cost no more memory than stands here. Connections
//! are counted in maps that name only addresses with connections, so `limits.max_connections`
//! bounds them. Buckets live in a table of a fixed size. In a place of it that is full, a newcomer
//! takes over the bucket of whoever owes least, with what is owed: no debt is ever forgotten, and
//! an address cannot get rid of its own by calling under others.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use ipnet::IpNet;
use parking_lot::Mutex;

use crate::limits::rate::{Bucket, Moment, Pace};

/// A burst of handshakes is what comes in within this many seconds: an office that lost its network
/// comes back at once.
const BURST_SECONDS: usize = 4;

/// How many homes a site is worth.
const SITE_SHARE: usize = 16;

/// Places of the table of buckets, and buckets in each: 65,536 of 16 bytes.
const PLACES: usize = 8_192;
const WAYS: usize = 8;

/// Maps of connections, so that threads seldom wait for each other.
const MAPS: usize = 16;

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Addresses {
    /// Keyed at random, so that nobody can choose addresses that meet in one place.
    hasher: RandomState,
    /// Made for the first that is bounded.
    rates: OnceLock<Rates>,
    counts: Counts,
}

/// What has bounds of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Prefix {
    Host(u32),
    /// The first 64 bits.
    Home(u64),
    /// The first 48 bits.
    Site(u64),
}

/// What an address counts under: narrow first, so that what a home is refused costs its site
/// nothing.
type Prefixes = [Option<Prefix>; 2];

#[derive(Debug)]
struct Rates(Box<[Mutex<[Entry; WAYS]>]>);

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// The hash of a prefix. Two that share it share a bucket.
    name: u64,
    bucket: Bucket,
}

/// Those that come without a bound are not counted.
#[derive(Debug)]
struct Counts(Box<[Mutex<HashMap<Prefix, usize>>]>);

/// An address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who<'a> {
    pub(crate) address: IpAddr,
    /// Load balancers: what comes in their own name is a health check, or is from clients they do
    /// not name.
    pub(crate) exempt: &'a [IpNet],
}

/// An address has as many connections as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Crowded;

/// A connection, as it counts for its address for as long as this lives.
#[derive(Debug)]
pub(crate) struct Guest {
    addresses: Arc<Addresses>,
    prefixes: Prefixes,
}

impl Default for Addresses {
    fn default() -> Self {
        let maps = std::iter::repeat_with(Mutex::default).take(MAPS).collect();
        Self { hasher: RandomState::new(), rates: OnceLock::new(), counts: Counts(maps) }
    }
}

impl Addresses {
    /// Takes one of `a_second` out of the buckets of an address; returns false if there is none
    /// left.
    pub(crate) fn take(&self, a_second: Option<usize>, who: Who<'_>, now: Instant) -> bool {
        let Some(a_second) = a_second else { return true };
        let rates = self.rates.get_or_init(Rates::new);
        let mut prefixes = who.prefixes().into_iter().flatten();
        prefixes
            .all(|prefix| rates.take(self.hasher.hash_one(prefix), prefix, a_second, now.into()))
    }

    /// Counts a connection of an address, which may have at most `most`.
    pub(crate) fn enter(
        self: &Arc<Self>,
        most: Option<usize>,
        who: Who<'_>,
    ) -> Result<Option<Box<Guest>>, Crowded> {
        let Some(most) = most else { return Ok(None) };
        // Filled as it goes: where the site has no room, the home's place is given back.
        let mut guest = Guest { addresses: Arc::clone(self), prefixes: [None; 2] };
        for (taken, prefix) in guest.prefixes.iter_mut().zip(who.prefixes()) {
            let Some(prefix) = prefix else { continue };
            let mut map = self.counts.map(self.hasher.hash_one(prefix)).lock();
            let count = map.entry(prefix).or_default();
            if *count >= prefix.share() * most {
                return Err(Crowded);
            }
            *count += 1;
            *taken = Some(prefix);
        }
        Ok(Some(Box::new(guest)))
    }

    fn leave(&self, prefix: Prefix) {
        let mut map = self.counts.map(self.hasher.hash_one(prefix)).lock();
        if let Some(count) = map.get_mut(&prefix) {
            *count -= 1;
            if *count == 0 {
                map.remove(&prefix);
            }
        }
    }
}

impl Who<'_> {
    fn prefixes(&self) -> Prefixes {
        let address = self.address.to_canonical();
        if self.exempt.iter().any(|network| network.contains(&address)) {
            return [None; 2];
        }
        match address {
            IpAddr::V4(address) => [Some(Prefix::Host(address.to_bits())), None],
            IpAddr::V6(address) => {
                let home = first_64(address);
                [Some(Prefix::Home(home)), Some(Prefix::Site(home >> 16))]
            }
        }
    }
}

impl Prefix {
    /// How many addresses' worth it may have.
    fn share(self) -> usize {
        match self {
            Self::Host(_) | Self::Home(_) => 1,
            Self::Site(_) => SITE_SHARE,
        }
    }
}

impl Rates {
    fn new() -> Self {
        Self(std::iter::repeat_with(Mutex::default).take(PLACES).collect())
    }

    fn take(&self, name: u64, prefix: Prefix, a_second: usize, now: Moment) -> bool {
        let a_second = prefix.share() * a_second;
        let pace = Pace::new(a_second, BURST_SECONDS * a_second);
        let Some(place) = self.0.get(below(name, self.0.len())) else { return true };
        let mut entries = place.lock();
        let known = entries.iter().position(|entry| entry.name == name);
        let least = || (0..WAYS).min_by_key(|at| entries.get(*at).map(|entry| entry.bucket));
        let Some(entry) = known.or_else(least).and_then(|at| entries.get_mut(at)) else {
            return true;
        };
        entry.name = name;
        entry.bucket.take(&pace, 1, now)
    }
}

impl Counts {
    fn map(&self, hash: u64) -> &Mutex<HashMap<Prefix, usize>> {
        #[expect(clippy::indexing_slicing, reason = "there are as many maps")]
        &self.0[below(hash, MAPS)]
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.prefixes.into_iter().flatten().for_each(|prefix| self.addresses.leave(prefix));
    }
}

fn first_64(address: Ipv6Addr) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = address.octets();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// A number below `bound`, by the low bits of a hash; `bound` is a power of two.
fn below(hash: u64, bound: usize) -> usize {
    usize::try_from(hash % bound as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::LazyLock;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Addresses that each may have so much.
    struct Bounded {
        addresses: Arc<Addresses>,
        rate: Option<usize>,
        connections: Option<usize>,
    }

    impl Bounded {
        fn take(&self, address: IpAddr, now: Instant) -> bool {
            self.addresses.take(self.rate, who(address), now)
        }

        fn enter(&self, address: IpAddr) -> Result<Option<Box<Guest>>, Crowded> {
            self.addresses.enter(self.connections, who(address))
        }
    }

    fn addresses(rate: Option<usize>, connections: Option<usize>) -> Bounded {
        Bounded { addresses: Arc::default(), rate, connections }
    }

    fn who(address: IpAddr) -> Who<'static> {
        static EXEMPT: LazyLock<[IpNet; 1]> =
            LazyLock::new(|| ["10.0.0.0/8".parse().expect("a network")]);
        Who { address, exempt: &*EXEMPT }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn taken(addresses: &Bounded, address: IpAddr, now: Instant, tries: usize) -> usize {
        (0..tries).filter(|_| addresses.take(address, now)).count()
    }

    /// The n-th network /64 of a site.
    fn home(site: u16, n: u16) -> IpAddr {
        IpAddr::from([0x2001, 0xdb8, site, n, 0, 0, 0, 1])
    }

    #[test]
    fn an_address_has_its_burst_and_its_rate_whatever_others_do() {
        let (addresses, now) = (addresses(Some(5), None), Instant::now());
        assert_eq!(taken(&addresses, ip("192.0.2.1"), now, 100), 20);
        assert_eq!(taken(&addresses, ip("192.0.2.2"), now, 100), 20);
        assert_eq!(taken(&addresses, ip("::ffff:192.0.2.2"), now, 100), 0, "the same address");
        assert_eq!(taken(&addresses, ip("192.0.2.1"), now + SECOND, 100), 5);
        assert_eq!(taken(&addresses, ip("10.1.2.3"), now, 100), 100, "a load balancer");
    }

    #[test]
    fn a_home_of_ipv6_is_one_address_and_a_site_is_sixteen() {
        let (addresses, now) = (addresses(Some(5), None), Instant::now());
        assert_eq!(taken(&addresses, ip("2001:db8:0:1::1"), now, 100), 20);
        assert_eq!(taken(&addresses, ip("2001:db8:0:1:ffff::2"), now, 100), 0, "the same home");
        let homes = (2..100).map(|n| taken(&addresses, home(0, n), now, 100));
        assert_eq!(homes.sum::<usize>(), 15 * 20, "what the site has left");
        assert_eq!(taken(&addresses, home(1, 1), now, 100), 20, "another site");
    }

    #[test]
    fn what_a_home_is_refused_costs_its_site_nothing() {
        let (addresses, now) = (addresses(Some(5), None), Instant::now());
        assert_eq!(taken(&addresses, home(0, 1), now, 100_000), 20);
        assert_eq!(taken(&addresses, home(0, 2), now, 100), 20);
    }

    #[test]
    fn connections_of_an_address_are_counted_until_they_end() {
        let addresses = addresses(None, Some(2));
        let enter = |address| addresses.enter(address);
        let (first, second) = (enter(ip("192.0.2.1")), enter(ip("192.0.2.1")));
        assert!(first.is_ok() && second.is_ok() && enter(ip("192.0.2.1")).is_err());
        assert!(enter(ip("192.0.2.2")).is_ok(), "another address");
        drop(first);
        assert!(enter(ip("192.0.2.1")).is_ok());
        let site: Vec<_> = (0..100).filter_map(|n| enter(home(0, n)).ok()).collect();
        assert_eq!(site.len(), 2 * SITE_SHARE);
        let proxies: Vec<_> = (0..100).filter_map(|_| enter(ip("10.0.0.1")).ok()).collect();
        assert_eq!(proxies.len(), 100);
        drop((second, site, proxies));
        assert!(
            addresses.addresses.counts.0.iter().all(|map| map.lock().is_empty()),
            "nothing is left, not of the refused either"
        );
    }

    #[test]
    fn bounds_may_change_and_only_those_are_counted_who_came_under_one() {
        let mut addresses = addresses(None, None);
        let free: Vec<_> =
            (0..3).map(|_| addresses.enter(ip("192.0.2.1")).expect("no bound")).collect();
        addresses.connections = Some(2);
        let (first, second) = (addresses.enter(ip("192.0.2.1")), addresses.enter(ip("192.0.2.1")));
        assert!(first.is_ok() && second.is_ok() && addresses.enter(ip("192.0.2.1")).is_err());
        drop(free);
        assert!(addresses.enter(ip("192.0.2.1")).is_err(), "they were not counted");
        addresses.connections = Some(3);
        assert!(addresses.enter(ip("192.0.2.1")).is_ok());
        let now = Instant::now();
        addresses.rate = Some(5);
        assert_eq!(taken(&addresses, ip("192.0.2.1"), now, 100), 20);
        addresses.rate = Some(50);
        assert_eq!(taken(&addresses, ip("192.0.2.1"), now + SECOND, 100), 50);
    }

    #[test]
    fn without_bounds_there_is_no_table() {
        let addresses = addresses(None, None);
        assert_eq!(taken(&addresses, ip("192.0.2.1"), Instant::now(), 1_000), 1_000);
        assert!(matches!(addresses.enter(ip("192.0.2.1")), Ok(None)));
        assert!(addresses.addresses.rates.get().is_none());
    }

    #[test]
    fn the_table_is_of_one_size() {
        let places = Rates::new().0;
        assert!(size_of_val(&*places) <= 1_200 << 10, "{} bytes", size_of_val(&*places));
    }

    /// A flooder that also calls under a hundred thousand other addresses gets no more for it.
    #[test]
    fn a_flooder_is_not_forgotten_for_all_its_other_addresses() {
        let (addresses, now) = (addresses(Some(1), None), Instant::now());
        let flooder = ip("192.0.2.1");
        assert_eq!(taken(&addresses, flooder, now, 100), 4);
        for n in 0..100_000_u32 {
            addresses.take(IpAddr::from(Ipv4Addr::from_bits(0xC612_0000 + n)), now);
            addresses.take(IpAddr::from(Ipv4Addr::from_bits(0xC612_0000 + n % 1_000)), now);
        }
        assert_eq!(taken(&addresses, flooder, now, 100), 0);
        assert_eq!(taken(&addresses, flooder, now + SECOND, 100), 1);
    }

    proptest! {
        /// However many addresses there are, each bucket of the table lets in its rate and its
        /// burst, and no more.
        #[test]
        fn all_together_get_what_the_table_holds(
            steps in prop::collection::vec((0..3_000_u64, 0..400_u32, 1..30_usize), 1..200),
        ) {
            // One place, in which all meet.
            let rates = OnceLock::from(Rates(Box::new([Mutex::default()])));
            let all = Arc::new(Addresses { rates, ..Addresses::default() });
            let addresses = Bounded { addresses: all, ..addresses(Some(2), None) };
            let (began, mut elapsed, mut count) = (Instant::now(), Duration::ZERO, 0);
            for (pause, address, tries) in steps {
                elapsed += Duration::from_millis(pause);
                count += taken(&addresses, IpAddr::from(address.to_be_bytes()), began + elapsed, tries);
                let most = WAYS as f64 * (2.0 * elapsed.as_secs_f64() + 8.0) + 1.0;
                prop_assert!(count as f64 <= most, "{count} of {most} in {elapsed:?}");
            }
        }

        /// Whoever comes and goes, the maps hold those that are there.
        #[test]
        fn guests_are_counted_exactly(steps in prop::collection::vec((0..6_u16, 0..3_u16, any::<bool>()), 0..200)) {
            let addresses = addresses(None, Some(3));
            let mut guests: Vec<((u16, u16), Box<Guest>)> = Vec::new();
            for (n, site, comes) in steps {
                let of = |one: u16, key: fn(&(u16, u16)) -> u16, guests: &[((u16, u16), Box<Guest>)]| {
                    guests.iter().filter(|(who, _)| key(who) == one && who.1 == site).count()
                };
                if comes {
                    let has_room = of(n, |who| who.0, &guests) < 3 && of(site, |who| who.1, &guests) < 48;
                    let entered = addresses.enter(home(site, n));
                    prop_assert_eq!(entered.is_ok(), has_room);
                    guests.extend(entered.ok().flatten().map(|guest| ((n, site), guest)));
                } else if let Some(at) = guests.iter().position(|(who, _)| *who == (n, site)) {
                    guests.swap_remove(at);
                }
                let maps = &addresses.addresses.counts.0;
                let total: usize = maps.iter().map(|map| map.lock().values().sum::<usize>()).sum();
                prop_assert_eq!(total, 2 * guests.len(), "a home and a site each");
            }
        }
    }
}
