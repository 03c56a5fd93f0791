//! Several threads at a table that is full, whose values say whose they are.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{NOW, table};
use crate::base::clock::{Clock, Expiry, Now, TICKS_PER_S};
use crate::base::metrics::{Metric, Registry};
use crate::store::{
    Change, Condition, Direction, ItemHead, Join, Participant, Side, Sweep, TURNS_PER_ROUND,
};

const KEYS: u64 = 20_000;
const SECONDS: u64 = 2;
/// For slow machines, and builds that watch over every access.
const SECONDS_MAX: u64 = 60;
/// So long one size of values is usual.
const TICKS_PER_PHASE: u64 = TICKS_PER_S / 2;

/// A small generator; the same in every run.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }
}

/// One record: its length, its key, and bytes that follow from both and from the salt.
fn record(key: u64, salt: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 24);
    bytes.extend_from_slice(&(len as u64).to_le_bytes());
    bytes.extend_from_slice(&key.to_le_bytes());
    bytes.extend_from_slice(&salt.to_le_bytes());
    bytes.extend((0..len as u64).map(|i| (i * 31 + key * 7 + salt).to_le_bytes()[0]));
    bytes
}

/// A value is one record or more, each whole.
fn check(key: u64, value: &[u8]) {
    let mut rest = value;
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    while !rest.is_empty() {
        let len = usize::try_from(number(&rest[..8])).unwrap();
        let salt = number(&rest[16..24]);
        assert_eq!(number(&rest[8..16]), key);
        assert!(rest[..24 + len] == record(key, salt, len)[..], "a torn record of {len} bytes");
        rest = &rest[24 + len..];
    }
}

/// Sizes shift from time to time, so that pages have to follow.
fn size(dice: &mut Dice, now: Now) -> usize {
    let usual = if (now.ticks / TICKS_PER_PHASE).is_multiple_of(2) { 60 } else { 600 };
    let below = match dice.throw(1000) {
        0 => 200_000,
        1..=19 => 8000,
        _ => usual,
    };
    usize::try_from(dice.throw(below)).unwrap()
}

/// Most items stay, some die soon.
fn expiry(dice: &mut Dice, now: Now) -> Expiry {
    match dice.throw(8) {
        0 => Expiry::at_tick(now.ticks + 1 + dice.throw(16)),
        1 => Expiry::at_tick(now.ticks + 100 * TICKS_PER_S),
        _ => Expiry::NEVER,
    }
}

struct Peer {
    one: Participant,
    dice: Dice,
    now: Now,
}

impl Peer {
    fn turn(&mut self, now: Now) {
        self.now = now;
        for _ in 0..=self.dice.throw(20) {
            // Some keys are everybody's.
            let keys = if self.dice.throw(3) == 0 { 8 } else { KEYS };
            let key = self.dice.throw(keys);
            match self.dice.throw(100) {
                0..=49 => self.read(key),
                50..=79 => self.write(key, None),
                80..=86 => self.write(key, Some(Side::Append)),
                87..=89 => self.write(key, Some(Side::Prepend)),
                90..=95 => {
                    let hash = self.one.table().hash(&key.to_le_bytes());
                    self.one.delete(&key.to_le_bytes(), hash, now);
                }
                96..=98 => {
                    let bytes = key.to_le_bytes();
                    let hash = self.one.table().hash(&bytes);
                    let expiry = expiry(&mut self.dice, now);
                    let _ = self.one.touch(&bytes, hash, expiry, now);
                }
                _ => self.send(key),
            }
        }
        if self.dice.throw(50) == 0 {
            self.one.offline();
            std::thread::yield_now();
            self.one.online();
        }
        if self.dice.throw(5000) == 0 {
            self.one.flush(None, now);
        }
        self.one.quiesce();
    }

    fn read(&self, key: u64) {
        let bytes = key.to_le_bytes();
        if let Ok(item) = self.one.get(&bytes, self.one.table().hash(&bytes), self.now) {
            assert_eq!((item.key(), item.flags()), (&bytes[..], u32::from(bytes[0])));
            let value = item.runs().collect::<Vec<_>>().concat();
            check(key, &value);
            // It stays what it is for as long as it is held, whatever the others do.
            if value[0] < 16 {
                (0..8).for_each(|_| std::thread::yield_now());
            }
            assert!(item.key() == bytes && item.runs().collect::<Vec<_>>().concat() == value);
        }
    }

    fn write(&mut self, key: u64, side: Option<Side>) {
        let now = self.now;
        let value = record(key, self.dice.throw(1 << 40), size(&mut self.dice, now));
        let bytes = key.to_le_bytes();
        let (hash, flags) = (self.one.table().hash(&bytes), u32::from(bytes[0]));
        let (expiry, value_bytes) = (expiry(&mut self.dice, now), value.len());
        let head = ItemHead { key: &bytes, hash, flags, expiry, value_bytes, cas: None };
        if side.is_none() && self.dice.throw(2) == 0 {
            let stored = self.one.put(&head, &value, Condition::Always, now);
            assert!(stored.is_none_or(|outcome| outcome.is_stored()), "{stored:?}");
            if stored.is_some() {
                return;
            }
        }
        let mut reservation = self.one.reserve(head, now).expect("something can be evicted");
        for piece in value.chunks(3000) {
            self.one.fill(&mut reservation, piece, now).expect("something can be evicted");
            if self.dice.throw(10) == 0 {
                self.one.quiesce();
            }
        }
        match side {
            _ if self.dice.throw(20) == 0 => self.one.abandon(reservation),
            None => {
                let outcome = self.one.commit(reservation, Condition::Always, now);
                assert!(outcome.is_stored());
            }
            Some(side) => {
                // It may have become too large.
                let _ = self.one.concat(reservation, Join { side, cas: None, create: false }, now);
            }
        }
    }

    /// Sends a value slowly.
    fn send(&mut self, key: u64) {
        let bytes = key.to_le_bytes();
        let Ok(item) = self.one.get(&bytes, self.one.table().hash(&bytes), self.now) else {
            return;
        };
        // Whoever has the last of them counts, whatever became of the item.
        let whole = self.one.span_all(&item);
        let pin = self.one.pin(&item).unwrap();
        let mut value = Vec::new();
        while value.len() < pin.value_bytes() {
            self.one.quiesce();
            value.extend_from_slice(self.one.pinned(&pin, value.len()));
        }
        check(key, &value);
        self.one.unpin(pin);
        self.one.quiesce();
        if let Some(span) = whole {
            check(key, span.bytes());
            self.one.give_back(span);
        }
    }
}

/// Sweeps, and gives back what the index does not need, without a rest.
struct Upkeep {
    one: Participant,
    sweep: Sweep,
    /// The most segments there ever were, and how often there were fewer than just before.
    peak: u64,
    shrunk: u64,
}

impl Upkeep {
    fn new(mut one: Participant) -> Upkeep {
        one.offline();
        let peak = one.table().figures().segments;
        Upkeep { one, sweep: Sweep::new(), peak, shrunk: 0 }
    }

    fn turn(&mut self, now: Now) {
        self.one.online();
        self.one.sweep(&mut self.sweep, now);
        let before = self.one.table().figures().segments;
        for _ in 0..8 {
            if !self.one.tend_index(64) {
                break;
            }
        }
        let after = self.one.table().figures().segments;
        self.peak = self.peak.max(before);
        self.shrunk += u64::from(after < before);
        self.one.offline();
    }

    /// Sweeps all pages, and then once more those that were open before, after a flush.
    fn clean(&mut self, now: Now) {
        self.one.online();
        self.one.flush(None, now);
        let pages = u32::try_from(self.one.table().figures().pages_total).unwrap();
        for _ in 0..4 * TURNS_PER_ROUND.min(pages) {
            self.one.sweep(&mut self.sweep, now);
        }
        while self.one.tend_index(64) {}
        self.one.offline();
    }
}

/// True when everything that moves items has moved some.
fn has_seen_everything(registry: &Registry) -> bool {
    let moved = [Metric::Promoted, Metric::GhostHits, Metric::SlabsMoved, Metric::CrawlerReclaimed];
    moved.iter().all(|metric| registry.sum(*metric) > 10) && registry.sum(Metric::Evictions) > 100
}

#[test]
fn values_are_never_torn_and_memory_comes_back() {
    let (table, registry) = (table(4 << 20, true), Registry::default());
    let clock = Clock::start();
    let shrunk = AtomicU64::new(0);
    let is_over = || {
        let uptime_s = clock.now().uptime_s();
        let is_complete = has_seen_everything(&registry) && shrunk.load(Ordering::Relaxed) > 0;
        uptime_s >= if is_complete { SECONDS } else { SECONDS_MAX }
    };
    // The index has something to give back.
    let now = clock.now();
    let mut first =
        Peer { one: table.participant(registry.counters("upkeep")), dice: Dice(1), now };
    (0..KEYS).for_each(|key| first.write(key, None));
    let mut upkeep = Upkeep::new(first.one);
    std::thread::scope(|scope| {
        for seed in 1..=4u64 {
            let one = table.participant(registry.counters("peer"));
            let dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let (mut peer, clock, is_over) = (Peer { one, dice, now: NOW }, &clock, &is_over);
            scope.spawn(move || {
                while !is_over() {
                    (0..100).for_each(|_| peer.turn(clock.now()));
                }
            });
        }
        scope.spawn(|| {
            while !is_over() {
                upkeep.turn(clock.now());
                shrunk.store(upkeep.shrunk, Ordering::Relaxed);
                std::thread::yield_now();
            }
        });
    });
    assert!(has_seen_everything(&registry));
    assert!(upkeep.shrunk > 0 && upkeep.peak > table.figures().stripes);
    upkeep.clean(clock.now());
    let figures = table.figures();
    assert_eq!(registry.sum(Metric::CurrItems), 0);
    assert_eq!(registry.sum(Metric::Bytes), 0);
    assert_eq!((figures.limbo_bytes, figures.pages_log), (0, 0));
    assert_eq!(figures.segments, figures.stripes, "an empty index is as small as at first");
    assert_eq!(table.slots_used(), 0, "no slot is lost");
    assert_eq!(table.pinned_balance(), 0, "what was pinned is not any more");
    assert_eq!(table.pages_draining(), 0, "no page is lost");
}

#[test]
fn counts_are_never_lost() {
    const ROUNDS: u64 = 20_000;
    let (table, registry) = (table(4 << 20, true), Registry::default());
    let hash = table.hash(b"n");
    let mut one = table.participant(registry.counters("first"));
    super::set(&mut one, b"n", b"0");
    one.offline();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let mut one = table.participant(registry.counters("peer"));
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    one.arithmetic(b"n", hash, &Change::by(1, Direction::Up), NOW).unwrap();
                    if round % 8 == 0 {
                        one.quiesce();
                    }
                }
            });
        }
    });
    one.online();
    let sum = one.arithmetic(b"n", hash, &Change::by(0, Direction::Up), NOW).unwrap();
    assert_eq!(sum.number, 3 * ROUNDS);
}

/// Nobody finds a key missing while its segment is being split.
#[test]
fn splits_hide_nothing() {
    const FIRST: u64 = 2000;
    let (table, registry) = (table(64 << 20, false), Registry::default());
    let mut one = table.participant(registry.counters("writer"));
    for key in 0..FIRST {
        super::set(&mut one, &key.to_le_bytes(), b"v");
    }
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let mut reader = table.participant(registry.counters("reader"));
        let done = &done;
        scope.spawn(move || {
            let mut key = 0u64;
            while done.load(Ordering::Relaxed) == 0 {
                assert!(super::get(&reader, &(key % FIRST).to_le_bytes()).is_some());
                key += 1;
                reader.quiesce();
            }
        });
        for key in FIRST..400_000u64 {
            let stored = super::store(&mut one, &key.to_le_bytes(), b"v", Condition::Always);
            assert!(stored.unwrap().is_stored());
            one.quiesce();
        }
        done.store(1, Ordering::Relaxed);
    });
    assert!(table.figures().segments > 100);
}
