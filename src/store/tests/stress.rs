//! Several threads at a table that is full, whose values say whose they are.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{NOW, table};
use crate::base::clock::{Clock, Expiry};
use crate::base::metrics::{Metric, Registry};
use crate::store::{Condition, Direction, ItemHead, Outcome, Participant, Refusal, Side};

const KEYS: u64 = 6000;
const SECONDS: u64 = 2;

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

fn size(dice: &mut Dice) -> usize {
    let below = match dice.throw(100) {
        0 => 200_000,
        1..=9 => 8000,
        _ => 300,
    };
    usize::try_from(dice.throw(below)).unwrap()
}

struct Peer {
    one: Participant,
    dice: Dice,
}

impl Peer {
    fn turn(&mut self) {
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
                    self.one.delete(&key.to_le_bytes(), hash, NOW);
                }
                96..=98 => {
                    let bytes = key.to_le_bytes();
                    let hash = self.one.table().hash(&bytes);
                    let expiry = Expiry::at_tick(NOW.ticks + 1 + self.dice.throw(3));
                    let _ = self.one.touch(&bytes, hash, expiry, NOW);
                }
                _ => self.send(key),
            }
        }
        if self.dice.throw(50) == 0 {
            self.one.offline();
            std::thread::yield_now();
            self.one.online();
        }
        self.one.quiesce();
    }

    fn read(&self, key: u64) {
        let bytes = key.to_le_bytes();
        if let Ok(item) = self.one.get(&bytes, self.one.table().hash(&bytes), NOW) {
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
        let value = record(key, self.dice.throw(1 << 40), size(&mut self.dice));
        let bytes = key.to_le_bytes();
        let (hash, flags) = (self.one.table().hash(&bytes), u32::from(bytes[0]));
        let (expiry, value_bytes) = (Expiry::NEVER, value.len());
        let head = ItemHead { key: &bytes, hash, flags, expiry, value_bytes };
        let mut reservation = self.one.reserve(head, NOW).expect("something can be evicted");
        for piece in value.chunks(3000) {
            self.one.fill(&mut reservation, piece, NOW).expect("something can be evicted");
            if self.dice.throw(10) == 0 {
                self.one.quiesce();
            }
        }
        match side {
            _ if self.dice.throw(20) == 0 => self.one.abandon(reservation),
            None => {
                let outcome = self.one.commit(reservation, Condition::Always, NOW);
                assert_eq!(outcome, Outcome::Stored);
            }
            Some(side) => {
                // It may have become too large.
                let _ = self.one.concat(reservation, side, Condition::Always, NOW);
            }
        }
    }

    /// Sends a value slowly.
    fn send(&mut self, key: u64) {
        let bytes = key.to_le_bytes();
        let Ok(item) = self.one.get(&bytes, self.one.table().hash(&bytes), NOW) else { return };
        let pin = self.one.pin(&item).unwrap();
        let mut value = Vec::new();
        while value.len() < pin.value_bytes() {
            self.one.quiesce();
            value.extend_from_slice(self.one.pinned(&pin, value.len()));
        }
        check(key, &value);
        self.one.unpin(pin);
    }
}

#[test]
fn values_are_never_torn_and_memory_comes_back() {
    let (table, registry) = (table(4 << 20, true), Registry::default());
    let clock = Clock::start();
    let turns = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for seed in 1..=4u64 {
            let one = table.participant(registry.counters("peer"));
            let mut peer = Peer { one, dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)) };
            let (turns, clock) = (&turns, clock.clone());
            scope.spawn(move || {
                while clock.now().uptime_s() < SECONDS {
                    peer.turn();
                    turns.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert!(turns.load(Ordering::Relaxed) > 100);
    assert!(registry.sum(Metric::Evictions) > 100);
    let mut one = table.participant(registry.counters("last"));
    for key in 0..KEYS {
        let bytes = key.to_le_bytes();
        one.delete(&bytes, table.hash(&bytes), NOW);
    }
    one.quiesce();
    assert_eq!(registry.sum(Metric::CurrItems), 0);
    assert_eq!(registry.sum(Metric::Bytes), 0);
    assert_eq!(table.figures().limbo_bytes, 0);
    assert_eq!(table.slots_used(), 0, "no slot is lost");
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
                    one.arithmetic(b"n", hash, 1, Direction::Up, NOW).unwrap();
                    if round % 8 == 0 {
                        one.quiesce();
                    }
                }
            });
        }
    });
    one.online();
    assert_eq!(one.arithmetic(b"n", hash, 0, Direction::Up, NOW), Ok(3 * ROUNDS));
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
            assert_eq!(stored, Ok::<_, Refusal>(Outcome::Stored));
            one.quiesce();
        }
        done.store(1, Ordering::Relaxed);
    });
    assert!(table.figures().segments > 100);
}
