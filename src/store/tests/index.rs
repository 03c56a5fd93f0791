//! The index as it grows and shrinks, and keys that collide.

use std::sync::Arc;

use super::{NOW, get, set, table};
use crate::base::clock::Expiry;
use crate::base::hash::KeyHash;
use crate::base::metrics::{Metric, Registry};
use crate::base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::store::{Condition, ItemHead, Miss, Outcome, Participant, Table};

/// Lines of a segment that are not its ghost.
const NEAR_LINES: f64 = 210.0;

fn index_bytes_an_item(table: &Table, items: u64) -> f64 {
    table.figures().index_bytes as f64 * NEAR_LINES / 256.0 / items as f64
}

#[test]
fn it_takes_as_many_bytes_an_item_at_any_number_of_items() {
    let (table, registry) = (table(128 << 20, true), Registry::default());
    let mut one = table.participant(registry.counters("one"));
    let (mut next, mut bytes, mut storm) = (200_000, Vec::new(), 0.0f64);
    let mut segments = 0;
    for key in 0..=1_000_000u64 {
        set(&mut one, &key.to_le_bytes(), b"");
        if key == next {
            bytes.push(index_bytes_an_item(&table, key));
            let split = table.figures().segments - segments;
            if segments > 0 {
                storm = storm.max(split as f64 / segments as f64);
            }
            (segments, next) = (table.figures().segments, key + key / 100);
        }
    }
    let [low, high] = [f64::min, f64::max].map(|of| bytes.iter().copied().reduce(of).unwrap());
    println!("{low:.2} to {high:.2} bytes an item, at most {storm:.3} split within 1 %");
    assert!(low > 12.5 && high < 15.5, "{low} to {high}");
    assert!(storm < 0.045, "{storm}");
}

/// Steps of upkeep, with grace in between, until there is nothing to do.
fn tend(one: &mut Participant) -> u32 {
    let mut steps = 0;
    for _ in 0..4 {
        while one.tend_index(64) {
            steps += 1;
            assert!(steps < 1_000_000);
        }
    }
    steps
}

#[test]
fn it_gives_back_what_it_does_not_need() {
    const KEYS: u64 = 600_000;
    let (table, registry) = (table(64 << 20, true), Registry::default());
    let mut one = table.participant(registry.counters("one"));
    for key in 0..KEYS {
        set(&mut one, &key.to_le_bytes(), b"");
    }
    assert_eq!(registry.sum(Metric::Evictions), 0);
    tend(&mut one);
    let full = table.figures();
    assert!(full.pages_index > 100, "{full:?}");
    let free = table.figures().pages_free;
    // First the keys of half of the stripes, whose segments lie on the pages of all.
    for all in [false, true] {
        for key in (0..KEYS).filter(|key| !key.is_multiple_of(20)).map(u64::to_le_bytes) {
            let hash = table.hash(&key);
            if all || hash.0 >> 63 == 0 {
                one.delete(&key, hash, NOW);
            }
        }
        tend(&mut one);
        let now = table.figures();
        let unused = now.pages_index * (now.page_bytes >> 14) - now.segments;
        assert!(unused < 4 + now.segments / 32 + 1, "{unused} of {} unused", now.segments);
    }
    let kept = |key: &u64| key.is_multiple_of(20);
    let small = table.figures();
    assert!(small.pages_index * 5 <= full.pages_index, "{} of {full:?}", small.pages_index);
    assert_eq!(small.pages_free - free, full.pages_index - small.pages_index);
    for key in 0..KEYS {
        assert_eq!(get(&one, &key.to_le_bytes()).is_some(), kept(&key));
    }
    assert_eq!(tend(&mut one), 0, "it is at rest");
    for key in 0..KEYS {
        set(&mut one, &key.to_le_bytes(), b"again");
    }
    let found = (0..KEYS).filter(|key| get(&one, &key.to_le_bytes()).is_some()).count() as u64;
    assert_eq!(found + registry.sum(Metric::Evictions), KEYS);
    assert!(table.figures().pages_index * 10 > full.pages_index * 9);
}

/// Readers find what nobody touches, while the index around it grows and shrinks.
#[test]
fn nothing_is_hidden_while_it_grows_and_shrinks() {
    const STABLE: u64 = 3000;
    const KEYS: u64 = 60_000;
    let (table, registry) = (table(32 << 20, false), Registry::default());
    let mut one = table.participant(registry.counters("writer"));
    (0..STABLE).for_each(|key| set(&mut one, &key.to_le_bytes(), b"v"));
    let (done, freed) = (AtomicBool::new(false), AtomicU64::new(0));
    let most = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for start in 0..2 {
            let (mut reader, done) = (table.participant(registry.counters("reader")), &done);
            scope.spawn(move || {
                let mut key = start * STABLE / 2;
                while !done.load(Ordering::Relaxed) {
                    assert!(get(&reader, &(key % STABLE).to_le_bytes()).is_some(), "{key}");
                    key += 1;
                    if key.is_multiple_of(8) {
                        reader.quiesce();
                    }
                }
            });
        }
        let mut upkeep = table.participant(registry.counters("upkeep"));
        let (table, done, freed, most) = (&table, &done, &freed, &most);
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                let before = table.figures().segments;
                most.fetch_max(before, Ordering::Relaxed);
                upkeep.tend_index(16);
                let after = table.figures().segments;
                freed.fetch_add(before.saturating_sub(after), Ordering::Relaxed);
            }
        });
        for round in 0..6 {
            for key in STABLE..KEYS {
                set(&mut one, &key.to_le_bytes(), b"v");
                one.quiesce();
            }
            for key in STABLE..KEYS {
                let key = key.to_le_bytes();
                assert!(one.delete(&key, table.hash(&key), NOW), "{round}");
                one.quiesce();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let first = table.figures().segments;
    tend(&mut one);
    let last = table.figures().segments;
    println!("{first} to {last} segments, at most {most:?}; {freed:?} freed on the way");
    assert!(last < 40 && freed.load(Ordering::Relaxed) > 30, "{last} {freed:?}");
    assert_eq!(registry.sum(Metric::CurrItems), STABLE);
}

fn set_with(one: &mut Participant, key: u64, hash: KeyHash) -> Outcome {
    let key = key.to_le_bytes();
    let head =
        ItemHead { key: &key, hash, flags: 0, expiry: Expiry::NEVER, value_bytes: 0, cas: None };
    let reservation = one.reserve(head, NOW).unwrap();
    one.commit(reservation, Condition::Always, NOW)
}

#[test]
fn keys_that_collide_take_each_others_places() {
    let (table, registry) = (table(64 << 20, true), Registry::default());
    let mut one = table.participant(registry.counters("one"));
    let innocent: Vec<u64> = (0..20_000).map(|key| key << 32).collect();
    innocent.iter().for_each(|key| set(&mut one, &key.to_le_bytes(), b""));
    let segments = table.figures().segments;
    let found = |one: &Participant| {
        innocent.iter().filter(|key| get(one, &key.to_le_bytes()).is_some()).count()
    };
    // One hash for all: they cannot be told apart but by their keys.
    for key in 0..10_000 {
        assert!(set_with(&mut one, key, KeyHash(0x1234_5678_9abc_def0)).is_stored());
    }
    assert_eq!(table.figures().segments, segments, "to split would not help");
    let evicted = registry.sum(Metric::Evictions);
    assert!((9800..=10_000).contains(&evicted), "{evicted}");
    assert!(found(&one) + 14 >= innocent.len(), "{}", found(&one));
    // One home and one stripe, but tags of their own.
    for key in 0..10_000u64 {
        let hash = KeyHash(0x1234_5600_0000_0000 | (key * 0x9e_3779 % (1 << 24)) << 16 | 0xdef0);
        assert!(set_with(&mut one, 1 << 20 | key, hash).is_stored());
    }
    assert!(table.figures().segments < segments + 40);
    assert!(found(&one) + 100 >= innocent.len(), "{}", found(&one));
}

/// Where the index cannot grow, a new key takes the place of a neighbour, whose home may be another
/// one: nothing of it stays behind there.
#[test]
fn who_yields_to_a_neighbour_leaves_no_trace() {
    let (table, registry) = (table(64 << 20, true), Registry::default());
    let mut one = table.participant(registry.counters("one"));
    set(&mut one, b"opens the page in which all others lie", b"");
    while table.slabs.pages.take_segment().is_some() {}
    // More than one segment has places for.
    let of_first_stripe = |key: &u64| table.hash(&key.to_le_bytes()).0 >> 57 == 0;
    let keys: Vec<u64> = (0..).filter(of_first_stripe).take(2000).collect();
    keys.iter().for_each(|key| set(&mut one, &key.to_le_bytes(), b""));
    assert!(registry.sum(Metric::Evictions) > 500);
    let delete = |key: &&u64| one.delete(&key.to_le_bytes(), table.hash(&key.to_le_bytes()), NOW);
    let deleted = keys.iter().filter(delete).count();
    assert_eq!(registry.sum(Metric::CurrItems), 1, "{deleted} were found and deleted");
}

#[test]
fn the_ghost_answers_for_the_table() {
    let (table, registry) = (table(16 << 20, true), Registry::default());
    let mut one = table.participant(registry.counters("one"));
    (0..20_000u64).for_each(|key| set(&mut one, &key.to_le_bytes(), b""));
    let hash = |table: &Arc<Table>, key: u64| table.hash(&key.to_le_bytes());
    for key in 100_000..110_000 {
        let _stripe = table.lock(hash(&table, key));
        table.ghost_add(hash(&table, key));
    }
    table.prefetch_ghost(hash(&table, 100_000));
    let known =
        |keys: std::ops::Range<u64>| keys.filter(|key| table.ghost_has(hash(&table, *key))).count();
    assert!(known(100_000..110_000) > 9900);
    assert!(known(200_000..210_000) < 30);
    for key in 100_000..110_000 {
        let _stripe = table.lock(hash(&table, key));
        table.ghost_remove(hash(&table, key));
    }
    assert!(known(100_000..110_000) < 30);
}

/// A seek finds what a get finds, wherever the entry is, and nothing that has another key.
#[test]
fn what_is_sought_is_what_is_there() {
    const KEYS: u64 = 20_000;
    let (table, registry) = (table(16 << 20, true), Registry::default());
    let mut one = table.participant(registry.counters("one"));
    for key in 0..KEYS {
        set(&mut one, &key.to_le_bytes(), &key.to_be_bytes());
    }
    for key in 0..KEYS + 1000 {
        let mut seek = one.seek(table.hash(&key.to_le_bytes()));
        seek.sight();
        seek.sight_away();
        let found = seek.get(&key.to_le_bytes(), NOW).ok().and_then(|item| item.value());
        let wanted = (key < KEYS).then(|| key.to_be_bytes());
        assert_eq!(found, wanted.as_ref().map(|value| &value[..]), "{key}");
        let other = seek.get(&(key + 1).to_le_bytes(), NOW);
        assert_eq!(other.map(|item| item.value_bytes()), Err(Miss::Absent), "{key}");
    }
    assert_eq!(registry.sum(Metric::CurrItems), KEYS);
}

/// What was seen stays what it was, but for its death.
#[test]
fn what_was_seen_stays_until_the_thread_quiesces() {
    let (table, registry) = (table(16 << 20, true), Registry::default());
    let mut one = table.participant(registry.counters("one"));
    let mut two = table.participant(registry.counters("two"));
    set(&mut one, b"key", b"old");
    let mut seek = one.seek(table.hash(b"key"));
    seek.sight();
    seek.sight_away();
    set(&mut two, b"key", b"new");
    two.quiesce();
    let value = seek.get(b"key", NOW).map(|item| item.value().map(<[u8]>::to_vec));
    assert_eq!(value, Ok(Some(b"old".to_vec())));
    table.flush_now();
    assert_eq!(seek.get(b"key", NOW).map(|item| item.cas()), Err(Miss::Flushed));
}
