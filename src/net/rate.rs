//! How much one peer address may ask for and be sent, a second.
//!
//! ```text
//!              due                         spent
//!     ----------|---------- burst ----------|--------> time
//!      in debt  |   may go on, ever longer  |  may have all of the burst
//! ```
//!
//! A bucket is one moment for requests and one for bytes: up to which everything is spent. What is
//! served moves it on, by the time that the rate allows for it, from now at the least. Who is in
//! debt waits until `due`. So a bucket is an atomic word that is written when something was served
//! and never because time passes, and nobody is charged twice or forgiven by a race.
//!
//! Debt is allowed, because what a request costs is known when it is answered: over any time, what
//! is served is the rate, and the burst, and at most one batch for each ring; and where workers
//! execute, as many as they have at a time, as what a batch costs is known when it comes home.

use std::net::IpAddr;

use crate::base::sync::atomic::{AtomicU64, Ordering};

const NS_PER_S: u64 = 1_000_000_000;
const NS_PER_MS: u64 = 1_000_000;

/// What is received from peers that wait is looked at again after so long, if not before: what the
/// rate brings in that time is served at a time.
pub const GRAIN_NS: u64 = 10 * NS_PER_MS;

/// The shortest burst: two grains, so that who is let go a little late is not paid less for it.
pub const BURST_MS_MIN: u32 = 20;

/// How many prefixes may be exempt.
pub const EXEMPT_MAX: usize = 8;

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// As of IPv6, where those of IPv4 are mapped.
    bits: u128,
    len: u32,
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl Prefix {
    /// The addresses whose first `len` bits are those of `address`; none if it has fewer.
    pub fn new(address: IpAddr, len: u32) -> Option<Prefix> {
        let (most, mapped) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
        (len <= most).then_some(Prefix { bits: bits(address), len: len + mapped })
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let differ = bits(address) ^ self.bits;
        differ.checked_shr(u128::BITS - self.len).unwrap_or(0) == 0
    }
}

/// What the operator allows one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// 0 is as many as come.
    pub requests_per_s: u64,
    /// Received and sent; 0 is as many as come.
    pub bytes_per_s: u64,
    /// How long an address may save up what it does not use.
    pub burst_ms: u32,
    /// Who has no limit.
    pub exempt: [Option<Prefix>; EXEMPT_MAX],
}

impl Default for RateLimits {
    fn default() -> RateLimits {
        RateLimits { requests_per_s: 0, bytes_per_s: 0, burst_ms: 1000, exempt: [None; EXEMPT_MAX] }
    }
}

impl RateLimits {
    pub fn is_on(&self) -> bool {
        self.requests_per_s > 0 || self.bytes_per_s > 0
    }

    fn burst_ns(&self) -> u64 {
        u64::from(self.burst_ms) * NS_PER_MS
    }
}

/// What was served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    pub requests: u64,
    pub bytes: u64,
}

/// What one address has spent. Alone on its line: rings that serve other addresses stay away.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Bucket {
    requests: AtomicU64,
    bytes: AtomicU64,
}

/// The time that a rate allows for an amount, rounded up.
fn cost_ns(amount: u64, per_s: u64) -> u64 {
    amount.saturating_mul(NS_PER_S).div_ceil(per_s)
}

fn spend(spent: &AtomicU64, amount: u64, per_s: u64, now_ns: u64) {
    if amount == 0 || per_s == 0 {
        return;
    }
    let cost_ns = cost_ns(amount, per_s);
    let add = |spent: u64| Some(spent.max(now_ns).saturating_add(cost_ns));
    // Relaxed, here and below: a moment by itself, which orders nothing.
    let _ = spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
}

impl Bucket {
    pub(super) fn charge(&self, limits: &RateLimits, served: Served, now_ns: u64) {
        spend(&self.requests, served.requests, limits.requests_per_s, now_ns);
        spend(&self.bytes, served.bytes, limits.bytes_per_s, now_ns);
    }

    fn spent_ns(&self) -> u64 {
        self.requests.load(Ordering::Relaxed).max(self.bytes.load(Ordering::Relaxed))
    }

    /// From when on it is not in debt.
    pub(super) fn due_ns(&self, limits: &RateLimits) -> u64 {
        self.spent_ns().saturating_sub(limits.burst_ns())
    }

    /// True when it is as if nothing had ever been served.
    pub(super) fn is_full(&self, now_ns: u64) -> bool {
        self.spent_ns() <= now_ns
    }

    /// How much of it is spent.
    pub(super) fn spent_beyond(&self, now_ns: u64) -> u64 {
        self.spent_ns().saturating_sub(now_ns)
    }

    /// Requests that may be executed at a time: those that were saved up, or what a grain brings.
    pub(super) fn requests(&self, limits: &RateLimits, now_ns: u64) -> u32 {
        if limits.requests_per_s == 0 {
            return u32::MAX;
        }
        let spent_ns = self.requests.load(Ordering::Relaxed).max(now_ns);
        let saved_ns = (now_ns + limits.burst_ns()).saturating_sub(spent_ns).max(GRAIN_NS);
        let requests = saved_ns.saturating_mul(limits.requests_per_s) / NS_PER_S;
        u32::try_from(requests.max(1)).unwrap_or(u32::MAX)
    }

    pub(super) fn clear(&self) {
        self.requests.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn limits(requests_per_s: u64, bytes_per_s: u64) -> RateLimits {
        RateLimits { requests_per_s, bytes_per_s, ..RateLimits::default() }
    }

    fn requests(requests: u64) -> Served {
        Served { requests, bytes: 0 }
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let (limits, bucket) = (limits(100, 0), Bucket::default());
        let mut served = 0;
        // A minute in steps of a millisecond, asking all the time.
        for now_ns in (0..60 * NS_PER_S).step_by(1_000_000) {
            if bucket.due_ns(&limits) <= now_ns {
                bucket.charge(&limits, requests(1), now_ns);
                served += 1;
            }
        }
        assert!((6100..=6101).contains(&served), "{served}: 100 at once, and 100 a second");
    }

    #[test]
    fn debt_is_paid_and_no_more_than_the_burst_is_saved() {
        let (limits, bucket) = (limits(100, 0), Bucket::default());
        bucket.charge(&limits, requests(1000), NS_PER_S);
        assert_eq!(bucket.due_ns(&limits), 10 * NS_PER_S);
        assert!(!bucket.is_full(11 * NS_PER_S - 1) && bucket.is_full(11 * NS_PER_S));
        bucket.charge(&limits, requests(50), 100 * NS_PER_S);
        assert_eq!(bucket.due_ns(&limits), 99 * NS_PER_S + NS_PER_S / 2);
        assert_eq!(bucket.spent_beyond(100 * NS_PER_S), NS_PER_S / 2);
    }

    #[test]
    fn the_tighter_limit_is_the_one() {
        let (limits, bucket) = (limits(100, 1000), Bucket::default());
        bucket.charge(&limits, Served { requests: 1, bytes: 5000 }, 0);
        assert_eq!(bucket.due_ns(&limits), 4 * NS_PER_S);
        bucket.charge(&limits, Served { requests: 1000, bytes: 0 }, 0);
        assert_eq!(bucket.due_ns(&limits), 9 * NS_PER_S + NS_PER_S / 100);
        bucket.clear();
        assert_eq!(bucket.due_ns(&limits), 0);
    }

    #[test]
    fn as_many_requests_at_a_time_as_were_saved_or_a_grain_brings() {
        let (small, bucket) = (limits(1000, 0), Bucket::default());
        assert_eq!(bucket.requests(&small, 0), 1000);
        bucket.charge(&small, requests(400), 0);
        assert_eq!(bucket.requests(&small, 0), 600);
        bucket.charge(&small, requests(4000), 0);
        assert_eq!(bucket.requests(&small, 0), 10);
        assert_eq!(bucket.requests(&limits(3, 0), 0), 1);
        assert_eq!(bucket.requests(&limits(0, 5), 0), u32::MAX);
    }

    #[test]
    fn no_amount_and_no_rate_overflows() {
        let (limits, bucket) = (limits(1, u64::MAX), Bucket::default());
        bucket.charge(&limits, Served { requests: u64::MAX, bytes: u64::MAX }, NS_PER_S);
        bucket.charge(&limits, Served { requests: u64::MAX, bytes: u64::MAX }, NS_PER_S);
        assert!(bucket.due_ns(&limits) > NS_PER_S);
        assert_eq!(
            bucket.requests(&RateLimits { requests_per_s: u64::MAX, ..limits }, 0),
            u32::MAX
        );
    }

    #[test]
    fn a_prefix_holds_what_begins_like_it() {
        let prefix = |address: &str, len| Prefix::new(address.parse().unwrap(), len);
        let holds = |prefix: Option<Prefix>, address: &str| {
            prefix.unwrap().contains(address.parse().unwrap())
        };
        assert!(holds(prefix("10.1.0.0", 16), "10.1.255.1"));
        assert!(!holds(prefix("10.1.0.0", 16), "10.2.0.1"));
        assert!(holds(prefix("10.1.0.0", 16), "::ffff:10.1.2.3"));
        assert!(holds(prefix("0.0.0.0", 0), "255.1.2.3") && !holds(prefix("0.0.0.0", 0), "::1"));
        assert!(holds(prefix("::", 0), "1.2.3.4") && holds(prefix("::1", 128), "::1"));
        assert!(!holds(prefix("2001:db8::", 32), "2001:db9::1"));
        assert_eq!((prefix("1.2.3.4", 33), prefix("::", 129)), (None, None));
    }
}
