//! How often somebody may ask: token buckets, one a source and one for all.
//!
//! The table of sources is bounded. A flood of forged sources pushes honest ones out of it, but
//! what all of them together get stays bounded too.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

const NS_PER_S: u64 = 1_000_000_000;

/// So much a second on average, so much at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) per_s: u64,
    pub(super) burst: u64,
}

/// Tokens, counted in ns of waiting so that no fraction is lost.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// When the bucket was, or will be, empty; in ns since the start of the process.
    empty_at_ns: u64,
}

impl Bucket {
    /// A bucket that is full at `now_ns`: its debt of the past is forgotten beyond `burst`.
    const FULL: Bucket = Bucket { empty_at_ns: 0 };

    /// Takes one token, if there is one.
    fn take(&mut self, rate: Rate, now_ns: u64) -> bool {
        let step = NS_PER_S / rate.per_s;
        let start = self.empty_at_ns.max(now_ns);
        if start - now_ns > step * (rate.burst - 1) {
            return false;
        }
        self.empty_at_ns = start + step;
        true
    }
}

/// Sources that are told apart at a time.
const SOURCES_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct Limiter {
    per_source: Rate,
    overall: Rate,
    all: Bucket,
    sources: Vec<(IpAddr, Bucket)>,
}

impl Limiter {
    pub(super) fn new(per_source: Rate, overall: Rate) -> Limiter {
        let sources = Vec::with_capacity(SOURCES_MAX);
        Limiter { per_source, overall, all: Bucket::FULL, sources }
    }

    /// Whether `source` may have one more datagram now.
    pub(super) fn admit(&mut self, source: SocketAddr, now_ns: u64) -> bool {
        let address = network_of(source.ip());
        let place = self.sources.iter().position(|(each, _)| *each == address);
        let place = place.unwrap_or_else(|| self.make_place(address));
        let (_, bucket) = &mut self.sources[place];
        // The source pays first: who asks too often does not drain the others' bucket.
        bucket.take(self.per_source, now_ns) && self.all.take(self.overall, now_ns)
    }

    /// A new place, or that of the source which has been quiet for longest.
    fn make_place(&mut self, address: IpAddr) -> usize {
        let entry = (address, Bucket::FULL);
        if self.sources.len() < SOURCES_MAX {
            self.sources.push(entry);
            return self.sources.len() - 1;
        }
        let quietest = self.sources.iter().enumerate().min_by_key(|(_, each)| each.1.empty_at_ns);
        let place = quietest.map_or(0, |(place, _)| place);
        self.sources[place] = entry;
        place
    }
}

/// Who is counted as one: an IPv4 address, or the /64 that one IPv6 host may roam in.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            // ::1 and other loopback or unspecified addresses lie in ::/64 and are one host.
            IpAddr::V6(Ipv6Addr::from(network))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Rate = Rate { per_s: 10, burst: 3 };
    const FAST: Rate = Rate { per_s: 1000, burst: 1000 };
    const MS: u64 = 1_000_000;

    fn source(last: u32) -> SocketAddr {
        (std::net::Ipv4Addr::from(0x0a00_0000 + last), 9).into()
    }

    #[test]
    fn a_burst_then_the_rate() {
        let mut limiter = Limiter::new(SLOW, FAST);
        let admitted = |limiter: &mut Limiter, at, tries| {
            (0..tries).filter(|_| limiter.admit(source(1), at)).count()
        };
        assert_eq!(admitted(&mut limiter, 0, 9), 3);
        assert_eq!(admitted(&mut limiter, 99 * MS, 9), 0);
        assert_eq!(admitted(&mut limiter, 100 * MS, 9), 1);
        assert_eq!(admitted(&mut limiter, 10_000 * MS, 9), 3, "rest earns no more than a burst");
        assert!(limiter.admit(source(2), 10_000 * MS), "another source has its own");
    }

    #[test]
    fn all_together_are_bounded_and_so_is_the_table() {
        let mut limiter = Limiter::new(FAST, SLOW);
        let admitted = (0..1000).filter(|last| limiter.admit(source(*last), 0)).count();
        assert_eq!(admitted, 3);
        assert_eq!(limiter.sources.len(), SOURCES_MAX);
    }

    #[test]
    fn neighbours_in_a_64_are_one() {
        let ip = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(ip("2001:db8::1"), ip("2001:db8::ffff:0:0:1"));
        assert_ne!(ip("2001:db8::1"), ip("2001:db8:0:1::1"));
        assert_eq!(ip("::ffff:10.0.0.1"), ip("10.0.0.1"));
        assert_ne!(ip("10.0.0.1"), ip("10.0.0.2"));
    }
}
