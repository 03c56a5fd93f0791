//! The buckets of peer addresses: a table of a fixed size that all rings share.
//!
//! ```text
//!   connection --BucketId--> buckets: charged by rings, without a lock
//!   address -----------------> book: who has which bucket; locked when a connection comes or goes
//! ```
//!
//! An address is one of IPv4, or the first 64 bits of one of IPv6: whoever has one of those has all
//! 2^64. A bucket stays with its address while it has connections, and afterwards until others need
//! it: first those that are full, whose owners lose nothing by it, then the least indebted.
//! Invariant: there are more buckets than connections may be, so that one is always to be had,
//! however many addresses come, and what is remembered of them does not grow.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;

use crate::base::sync::Mutex;

use super::rate::{Bucket, RateLimits, Served};

/// Buckets for addresses that have no connection, at the least.
const SPARE_MIN: usize = 1024;

/// Buckets without connections that are looked at for a full one.
const LOOKS_MAX: usize = 64;

/// Where nobody follows.
const NONE: u32 = u32::MAX;

/// The bucket of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BucketId(NonZeroU32);

impl BucketId {
    fn new(place: usize) -> BucketId {
        let number = u32::try_from(place + 1).ok().and_then(NonZeroU32::new);
        BucketId(number.expect("fewer than 2^32 buckets"))
    }

    fn place(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// What a new connection is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    pub bucket: BucketId,
    /// Somebody else's debt was forgotten for it.
    pub forgets: bool,
}

#[derive(Debug)]
pub struct Peers {
    limits: RateLimits,
    buckets: Box<[Bucket]>,
    book: Mutex<Book>,
}

/// Who has the bucket in this place.
#[derive(Clone, Copy, Debug)]
struct Tenant {
    /// None while nobody ever had it.
    key: Option<u64>,
    connections: u32,
    /// The next in the chain.
    next: u32,
}

#[derive(Debug)]
struct Book {
    /// Where addresses come in which chain nobody can choose.
    hasher: RandomState,
    heads: Box<[u32]>,
    tenants: Box<[Tenant]>,
    /// Where to look for a bucket next.
    hand: usize,
}

/// What one bucket is for.
fn key(address: IpAddr) -> u64 {
    let bits = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    match bits.to_ipv4_mapped() {
        // No address that sends begins with these bits.
        Some(v4) => 0xFF << 56 | u64::from(v4.to_bits()),
        None => u64::try_from(bits.to_bits() >> 64).expect("64 bits"),
    }
}

impl Peers {
    /// None where nothing is limited.
    pub fn new(limits: RateLimits, connections_max: u32) -> Option<Peers> {
        limits.is_on().then(|| {
            let count = bucket_count(connections_max);
            let buckets = (0..count).map(|_| Bucket::default()).collect();
            Peers { limits, buckets, book: Mutex::new(Book::new(count)) }
        })
    }

    /// Bytes that all of it takes, whoever comes.
    pub fn bytes(limits: &RateLimits, connections_max: u32) -> u64 {
        let count = bucket_count(connections_max);
        let each = size_of::<Bucket>() + size_of::<Tenant>();
        let bytes = count * each + chain_count(count) * size_of::<u32>();
        // Lossless: no target has a wider usize.
        if limits.is_on() { bytes as u64 } else { 0 }
    }

    /// Counts a connection from this address in. None for one without a limit.
    pub fn enter(&self, address: IpAddr, now_ns: u64) -> Option<Seat> {
        if self.limits.exempt.iter().flatten().any(|prefix| prefix.contains(address)) {
            return None;
        }
        let key = key(address);
        let mut book = self.book.lock();
        let (place, forgets) = match book.find(key) {
            Some(place) => (place, false),
            None => {
                let place = book.free_place(&self.buckets, now_ns);
                let forgets = !self.buckets[place].is_full(now_ns);
                book.unlink(place);
                book.link(place, key);
                self.buckets[place].clear();
                (place, forgets)
            }
        };
        book.tenants[place].connections += 1;
        Some(Seat { bucket: BucketId::new(place), forgets })
    }

    /// A connection is gone.
    pub fn leave(&self, bucket: BucketId) {
        self.book.lock().tenants[bucket.place()].connections -= 1;
    }

    #[cfg(test)]
    pub fn connections(&self) -> u32 {
        self.book.lock().tenants.iter().map(|tenant| tenant.connections).sum()
    }

    /// From when on its connections may be served.
    pub fn due_ns(&self, bucket: BucketId) -> u64 {
        self.buckets[bucket.place()].due_ns(&self.limits)
    }

    /// Requests of one of its connections that may be executed at a time.
    pub fn requests(&self, bucket: BucketId, now_ns: u64) -> u32 {
        self.buckets[bucket.place()].requests(&self.limits, now_ns)
    }

    pub fn charge(&self, bucket: BucketId, served: Served, now_ns: u64) {
        self.buckets[bucket.place()].charge(&self.limits, served, now_ns);
    }
}

fn bucket_count(connections_max: u32) -> usize {
    let connections = connections_max as usize;
    connections + (connections / 4).max(SPARE_MIN)
}

fn chain_count(buckets: usize) -> usize {
    buckets.next_power_of_two()
}

impl Book {
    fn new(buckets: usize) -> Book {
        let nobody = Tenant { key: None, connections: 0, next: NONE };
        Book {
            hasher: RandomState::new(),
            heads: vec![NONE; chain_count(buckets)].into(),
            tenants: vec![nobody; buckets].into(),
            hand: 0,
        }
    }

    fn chain(&self, key: u64) -> usize {
        let mask = self.heads.len() as u64 - 1;
        usize::try_from(self.hasher.hash_one(key) & mask).expect("an index")
    }

    fn find(&self, key: u64) -> Option<usize> {
        let mut at = self.heads[self.chain(key)];
        while at != NONE {
            let tenant = &self.tenants[at as usize];
            if tenant.key == Some(key) {
                return Some(at as usize);
            }
            at = tenant.next;
        }
        None
    }

    fn link(&mut self, place: usize, key: u64) {
        let chain = self.chain(key);
        self.tenants[place] = Tenant { key: Some(key), connections: 0, next: self.heads[chain] };
        self.heads[chain] = u32::try_from(place).expect("fewer than 2^32 buckets");
    }

    fn unlink(&mut self, place: usize) {
        let Some(key) = self.tenants[place].key else { return };
        let (chain, after) = (self.chain(key), self.tenants[place].next);
        let mut at = self.heads[chain] as usize;
        if at == place {
            self.heads[chain] = after;
            return;
        }
        while self.tenants[at].next as usize != place {
            at = self.tenants[at].next as usize;
        }
        self.tenants[at].next = after;
    }

    /// A bucket that nobody uses: one that is full, or of some the least indebted.
    fn free_place(&mut self, buckets: &[Bucket], now_ns: u64) -> usize {
        let (mut looks, mut best) = (0, None);
        for _ in 0..self.tenants.len() {
            self.hand = (self.hand + 1) % self.tenants.len();
            if self.tenants[self.hand].connections > 0 {
                continue;
            }
            looks += 1;
            let spent = buckets[self.hand].spent_beyond(now_ns);
            if best.is_none_or(|(least, _)| spent < least) {
                best = Some((spent, self.hand));
            }
            if spent == 0 || looks == LOOKS_MAX {
                break;
            }
        }
        best.expect("there are more buckets than connections").1
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;
    const LIMITS: RateLimits = RateLimits {
        requests_per_s: 10,
        bytes_per_s: 0,
        burst_ms: 1000,
        exempt: [None; crate::net::rate::EXEMPT_MAX],
    };

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn v6(number: u64) -> IpAddr {
        IpAddr::from((u128::from(number) << 64).to_be_bytes())
    }

    fn requests(requests: u64) -> Served {
        Served { requests, bytes: 0 }
    }

    #[test]
    fn an_address_has_one_bucket_however_it_comes() {
        let peers = Peers::new(LIMITS, 10).unwrap();
        let bucket = |text| peers.enter(address(text), 0).unwrap().bucket;
        assert_eq!(bucket("10.0.0.1"), bucket("::ffff:10.0.0.1"));
        assert_eq!(bucket("2001:db8::1"), bucket("2001:db8::ffff:0:0:2"), "one network");
        let others = ["10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8:0:1::1", "::1", "::a00:1"];
        let mut ids: Vec<_> = others.map(bucket).into();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 5, "only ::1 and ::a00:1 are of one network");
    }

    #[test]
    fn who_is_exempt_has_none() {
        let mut limits = LIMITS;
        limits.exempt[7] = crate::net::rate::Prefix::new(address("127.0.0.0"), 8);
        let peers = Peers::new(limits, 10).unwrap();
        assert_eq!(peers.enter(address("127.9.9.9"), 0), None);
        assert!(peers.enter(address("128.0.0.1"), 0).is_some());
        assert!(Peers::new(RateLimits { requests_per_s: 0, ..LIMITS }, 10).is_none());
        assert_eq!(Peers::bytes(&RateLimits::default(), 10), 0);
    }

    #[test]
    fn to_come_again_pays_no_debt() {
        let peers = Peers::new(LIMITS, 10).unwrap();
        let one = peers.enter(v6(1), 0).unwrap().bucket;
        peers.charge(one, requests(1000), 0);
        peers.leave(one);
        for number in 2..500 {
            let other = peers.enter(v6(number), SECOND_NS).unwrap();
            peers.leave(other.bucket);
        }
        let again = peers.enter(v6(1), SECOND_NS).unwrap();
        assert_eq!(peers.due_ns(again.bucket), 99 * SECOND_NS);
    }

    #[test]
    fn what_is_paid_is_given_to_others_and_begins_anew() {
        let peers = Peers::new(LIMITS, 1).unwrap();
        let count = u64::try_from(peers.buckets.len()).unwrap();
        for number in 0..count {
            let seat = peers.enter(v6(number), 0).unwrap();
            peers.charge(seat.bucket, requests(10), 0);
            peers.leave(seat.bucket);
        }
        let seat = peers.enter(v6(count), SECOND_NS).unwrap();
        assert!(!seat.forgets, "all have been paid");
        assert_eq!(peers.due_ns(seat.bucket), 0);
        peers.leave(seat.bucket);
        let later = peers.enter(v6(count + 1), SECOND_NS - 1).unwrap();
        assert!(later.forgets || later.bucket == seat.bucket);
    }

    /// Each address comes once, gets into debt, and goes; one that stays keeps what it owes, and
    /// nothing grows.
    #[test]
    fn any_number_of_addresses_fits() {
        let peers = Peers::new(LIMITS, 100).unwrap();
        let (places, chains) = (peers.buckets.len(), peers.book.lock().heads.len());
        let stays = peers.enter(address("10.0.0.1"), 0).unwrap().bucket;
        peers.charge(stays, requests(1_000_000), 0);
        let owes_little = peers.enter(v6(0), 0).unwrap().bucket;
        peers.charge(owes_little, requests(11), 0);
        peers.leave(owes_little);
        let mut forgotten = 0;
        for number in 1..100_000 {
            let seat = peers.enter(v6(number), 0).unwrap();
            assert_ne!(seat.bucket, stays);
            assert_eq!(peers.due_ns(seat.bucket), 0, "what others owe is not its debt");
            forgotten += u64::from(seat.forgets);
            peers.charge(seat.bucket, requests(1000), 0);
            peers.leave(seat.bucket);
        }
        assert_eq!(forgotten, 100_001 - places as u64);
        assert_eq!((peers.buckets.len(), peers.book.lock().heads.len()), (places, chains));
        assert_eq!(peers.enter(address("10.0.0.1"), 0).unwrap().bucket, stays);
        let book = peers.book.lock();
        let keys = book.tenants.iter().filter_map(|tenant| tenant.key);
        assert_eq!(keys.filter(|key| book.find(*key).is_none()).count(), 0, "a chain is broken");
    }

    #[test]
    fn of_debtors_the_least_indebted_is_forgotten() {
        let peers = Peers::new(LIMITS, 1).unwrap();
        let count = u64::try_from(peers.buckets.len()).unwrap();
        for number in 0..count {
            let seat = peers.enter(v6(number), 0).unwrap();
            peers.charge(seat.bucket, requests(100 + number), 0);
            peers.leave(seat.bucket);
        }
        assert!(peers.enter(v6(count), 0).unwrap().forgets);
        let owed = (1..count).map(|number| {
            let place = peers.book.lock().find(key(v6(number)));
            place.map_or(0, |place| peers.buckets[place].due_ns(&LIMITS))
        });
        assert!(owed.zip(1..).all(|(owed, number)| owed == (90 + number) * SECOND_NS / 10));
    }

    #[test]
    fn all_who_may_be_let_in_find_a_bucket() {
        let peers = Peers::new(LIMITS, 3000).unwrap();
        let seats: Vec<_> = (0..3000).map(|number| peers.enter(v6(number), 0).unwrap()).collect();
        let mut ids: Vec<_> = seats.iter().map(|seat| seat.bucket).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 3000);
    }
}
