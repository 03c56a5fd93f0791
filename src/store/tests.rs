//! The table from outside.
#![cfg(not(loom))]

mod counting;
mod direct;
mod index;
mod marks;
mod oracle;
mod overwrite;
mod policy;
mod regain;
mod shared;
mod spans;
mod stress;
mod uploads;
mod waits;
mod walk;

use super::*;
use crate::base::clock::{Expiry, Now, TICKS_PER_S};
use crate::base::metrics::{Metric, Registry};
use std::sync::Arc;

pub const NOW: Now = Now { ticks: 1000 * TICKS_PER_S, epoch_unix_s: 1_700_000_000 };

pub fn table(memory_bytes: u64, evict: bool) -> Arc<Table> {
    let hasher = KeyHasher::with_seed(7);
    let (item_bytes_max, favor) = (1 << 20, Favor::default());
    Arc::new(
        Table::open(StorePlan {
            memory_bytes,
            item_bytes_max,
            evict,
            threads: 4,
            hasher,
            favor,
            loan_bytes: None,
        })
        .unwrap(),
    )
}

/// For an item without flags that stays.
pub fn head<'k>(one: &Participant, key: &'k [u8], value_bytes: usize) -> ItemHead<'k> {
    ItemHead {
        key,
        hash: one.table().hash(key),
        flags: 0,
        expiry: Expiry::NEVER,
        value_bytes,
        cas: None,
    }
}

pub fn store(
    participant: &mut Participant,
    key: &[u8],
    value: &[u8],
    condition: Condition,
) -> Result<Outcome, Refusal> {
    let head = ItemHead { flags: 5, ..head(participant, key, value.len()) };
    let mut reservation = participant.reserve(head, NOW)?;
    for piece in value.chunks(1000) {
        if let Err(refusal) = participant.fill(&mut reservation, piece, NOW) {
            participant.abandon(reservation);
            return Err(refusal);
        }
    }
    Ok(participant.commit(reservation, condition, NOW))
}

pub fn set(participant: &mut Participant, key: &[u8], value: &[u8]) {
    assert!(store(participant, key, value, Condition::Always).unwrap().is_stored());
}

pub fn get(participant: &Participant, key: &[u8]) -> Option<Vec<u8>> {
    let item = participant.get(key, participant.table().hash(key), NOW).ok()?;
    assert_eq!(item.key(), key);
    let value = item.runs().collect::<Vec<_>>().concat();
    assert_eq!(value.len(), item.value_bytes());
    Some(value)
}

#[test]
fn nobody_waits_for_what_is_being_sent() {
    for sleeps in [false, true] {
        let registry = Registry::default();
        let table = table(1 << 20, false);
        let mut one = table.participant(registry.counters("one"));
        let mut two = table.participant(registry.counters("two"));
        set(&mut one, b"k", &[7; 100_000]);
        let pin = one.pin(&one.get(b"k", table.hash(b"k"), NOW).unwrap()).unwrap();
        assert!(one.delete(b"k", table.hash(b"k"), NOW));
        two.offline();
        if sleeps {
            one.offline();
        } else {
            one.quiesce();
        }
        two.online();
        let mut number = 0u32;
        while store(&mut two, &number.to_le_bytes(), &[1; 5000], Condition::Always).is_ok() {
            number += 1;
            one.quiesce();
        }
        let looks = two.looks.get();
        for _ in 0..20 {
            let refused = store(&mut two, b"no room", &[1; 5000], Condition::Always);
            assert_eq!(refused, Err(Refusal::NoMemory));
        }
        assert_eq!(two.looks.get() - looks, 20, "one look tells that there is nothing");
        one.unpin(pin);
    }
}

/// The last page of the arena ends with a small item, behind which there is nothing.
#[test]
fn the_last_item_of_the_arena_may_be_asked_for() {
    let registry = Registry::default();
    let mut one = table(1 << 20, false).participant(registry.counters("one"));
    let mut key = 0u64;
    while store(&mut one, &key.to_le_bytes(), &[1; 8], Condition::Always).is_ok() {
        key += 1;
    }
    for key in 0..key {
        let hash = one.table().hash(&key.to_le_bytes());
        one.prefetch(hash);
        one.prefetch_stored(hash);
    }
}

#[test]
fn who_is_refused_does_not_hold_others_up() {
    let registry = Registry::default();
    let table = table(4 << 20, true);
    let mut one = table.participant(registry.counters("one"));
    // All of the memory is being sent.
    let pins: Vec<_> = (0..10_000u32)
        .map_while(|number| {
            let key = number.to_le_bytes();
            let _ = store(&mut one, &key, &[1; 9000], Condition::Always).ok()?;
            one.quiesce();
            Some(one.pin(&one.get(&key, table.hash(&key), NOW).unwrap()).unwrap())
        })
        .collect();
    assert_eq!(one.starved_bytes(), 1 << 20);
    let refuse = |one: &mut Participant| {
        let looks = one.looks.get();
        let refused = store(one, b"no room", &[1; 9000], Condition::Always);
        assert_eq!(refused, Err(Refusal::NoMemory));
        one.looks.get() - looks
    };
    // What is left to let go of goes, and does not come back either.
    let mut goes = || {
        let before = table.slabs.pages.coming();
        refuse(&mut one);
        table.slabs.pages.coming() > before
    };
    let mut still = 0;
    for _ in 0..1000 {
        still = if goes() { 0 } else { still + 1 };
        if still == 5 {
            break;
        }
    }
    assert_eq!(still, 5, "there is no end to it");
    let looks: u32 = (0..200).map(|_| refuse(&mut one)).sum();
    assert!(looks <= 200 * 10, "{looks} looks, nearly all of which others waited for");
    assert_eq!(one.starved_bytes(), 1 << 20);
    pins.into_iter().for_each(|pin| one.unpin(pin));
    assert!(store(&mut one, b"room", &[1; 9000], Condition::Always).unwrap().is_stored());
    one.quiesce();
    assert_eq!(one.starved_bytes(), 0);
}

#[test]
fn what_was_stored_is_found() {
    let registry = Registry::default();
    let mut one = table(4 << 20, true).participant(registry.counters("one"));
    assert_eq!(get(&one, b"k"), None);
    set(&mut one, b"k", b"value");
    assert_eq!(get(&one, b"k").unwrap(), b"value");
    set(&mut one, b"k", b"other");
    assert_eq!(get(&one, b"k").unwrap(), b"other");
    assert_eq!(registry.sum(Metric::CurrItems), 1);
    let hash = one.table().hash(b"k");
    assert!(one.delete(b"k", hash, NOW));
    assert!(!one.delete(b"k", hash, NOW));
    assert_eq!(get(&one, b"k"), None);
    assert_eq!(registry.sum(Metric::CurrItems), 0);
    assert_eq!(registry.sum(Metric::Bytes), 0);
}

/// Bytes that only this key and length have.
pub fn pattern(key: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i * 31 + key * 7 + (i >> 8)).to_le_bytes()[0]).collect()
}

#[test]
fn values_of_all_sizes_come_back() {
    let registry = Registry::default();
    let mut one = table(16 << 20, true).participant(registry.counters("one"));
    let sizes = (0..300).chain([4095, 8100, 8143, 8144, 8192, 9000, 65_536, 70_000, 1_000_000]);
    for size in sizes {
        let key = format!("key of {size}");
        let value = pattern(size as u64, size);
        set(&mut one, key.as_bytes(), &value);
        assert_eq!(get(&one, key.as_bytes()).unwrap(), value);
        one.quiesce();
    }
    let key = b"key of 1000000";
    let item = one.get(key, one.table().hash(key), NOW).unwrap();
    assert_eq!((item.flags(), item.value()), (5, None));
    let pin = one.pin(&item).unwrap();
    set(&mut one, key, b"new");
    one.quiesce();
    let (mut bytes, mut offset) = (Vec::new(), 0);
    while offset < pin.value_bytes() {
        let run = one.pinned(&pin, offset);
        bytes.extend_from_slice(run);
        offset += run.len();
    }
    assert_eq!(bytes, pattern(1_000_000, 1_000_000));
    assert_eq!(one.pinned(&pin, 999_999), &bytes[999_999..]);
    assert_eq!(one.pinned(&pin, 0)[..100], bytes[..100]);
    assert!(one.table().figures().limbo_bytes > 1_000_000);
    one.unpin(pin);
    one.quiesce();
    assert_eq!(one.table().figures().limbo_bytes, 0);
}

#[test]
fn conditions() {
    let registry = Registry::default();
    let mut one = table(4 << 20, true).participant(registry.counters("one"));
    let try_store = |one: &mut Participant, condition| store(one, b"k", b"v", condition).unwrap();
    assert_eq!(try_store(&mut one, Condition::Present), Outcome::NotStored);
    assert_eq!(try_store(&mut one, Condition::Cas(1)), Outcome::NotFound);
    assert!(try_store(&mut one, Condition::Absent).is_stored());
    assert_eq!(try_store(&mut one, Condition::Absent), Outcome::NotStored);
    let cas = one.get(b"k", one.table().hash(b"k"), NOW).unwrap().cas();
    assert_eq!(try_store(&mut one, Condition::Cas(cas + 1)), Outcome::Exists);
    assert!(try_store(&mut one, Condition::Cas(cas)).is_stored());
    assert_eq!(try_store(&mut one, Condition::Cas(cas)), Outcome::Exists);
    assert!(try_store(&mut one, Condition::Present).is_stored());
}

#[test]
fn time_kills_and_touch_revives() {
    let registry = Registry::default();
    let mut one = table(4 << 20, true).participant(registry.counters("one"));
    let later = Now { ticks: NOW.ticks + 100, ..NOW };
    let hash = one.table().hash(b"k");
    set(&mut one, b"k", b"v");
    let item = one.touch(b"k", hash, Expiry::at_tick(NOW.ticks + 100), NOW).unwrap();
    assert_eq!(item.expiry(), Expiry::at_tick(NOW.ticks + 100));
    assert!(one.get(b"k", hash, NOW).is_ok());
    assert_eq!(one.get(b"k", hash, later).unwrap_err(), Miss::Expired);
    assert_eq!(one.get(b"k", hash, NOW).unwrap_err(), Miss::Absent, "it was taken out");
    assert_eq!(registry.sum(Metric::CurrItems), 0);
    set(&mut one, b"k", b"v");
    assert!(one.touch(b"k", hash, Expiry::at_tick(NOW.ticks + 200), NOW).is_ok());
    assert!(one.peek(b"k", hash, later).is_ok());
}

#[test]
fn flushes_now_and_later() {
    let registry = Registry::default();
    let mut one = table(4 << 20, true).participant(registry.counters("one"));
    let hash = one.table().hash(b"k");
    set(&mut one, b"k", b"v");
    one.flush(None, NOW);
    assert_eq!(one.get(b"k", hash, NOW).unwrap_err(), Miss::Flushed);
    set(&mut one, b"k", b"v");
    assert!(one.get(b"k", hash, NOW).is_ok());
    one.flush(Some(Expiry::at_tick(NOW.ticks + 10)), NOW);
    one.begin(NOW);
    assert!(one.get(b"k", hash, NOW).is_ok());
    let later = Now { ticks: NOW.ticks + 10, ..NOW };
    one.begin(later);
    assert_eq!(one.get(b"k", hash, later).unwrap_err(), Miss::Flushed);
    set(&mut one, b"k", b"v");
    one.begin(later);
    assert!(one.get(b"k", hash, later).is_ok(), "it happens once");
}

/// An item keeps 40 bits of its cas. A counter that is stored a million times a second needs 12
/// days to use them up.
#[test]
fn flushes_kill_what_is_older_and_nothing_else_when_cas_begins_anew() {
    let registry = Registry::default();
    let mut one = table(4 << 20, true).participant(registry.counters("one"));
    let hash = one.table().hash(b"k");
    for flushes in [false, true] {
        for step in 0..9 {
            one.table().lock(hash).skip((1 << 37) + 1);
            set(&mut one, b"k", b"v");
            assert!(one.get(b"k", hash, NOW).is_ok(), "step {step}");
            one.table().lock(hash).skip(1 << 37);
            assert!(one.get(b"k", hash, NOW).is_ok(), "step {step}, not stored again");
            if flushes {
                one.flush(None, NOW);
                assert_eq!(one.peek(b"k", hash, NOW).unwrap_err(), Miss::Flushed, "step {step}");
            }
        }
    }
}

fn concat(one: &mut Participant, key: &[u8], value: &[u8], side: Side) -> Outcome {
    let hash = one.table().hash(key);
    let head =
        ItemHead { key, hash, flags: 9, expiry: Expiry::PAST, value_bytes: value.len(), cas: None };
    let mut reservation = one.reserve(head, NOW).unwrap();
    one.fill(&mut reservation, value, NOW).unwrap();
    let join = Join { side, cas: None, create: false };
    one.concat(reservation, join, NOW).unwrap()
}

#[test]
fn values_are_joined_and_counted() {
    let registry = Registry::default();
    let mut one = table(8 << 20, true).participant(registry.counters("one"));
    assert_eq!(concat(&mut one, b"k", b"x", Side::Append), Outcome::NotStored);
    set(&mut one, b"k", b"1");
    assert!(concat(&mut one, b"k", b"2", Side::Append).is_stored());
    assert!(concat(&mut one, b"k", b"0", Side::Prepend).is_stored());
    let hash = one.table().hash(b"k");
    let item = one.get(b"k", hash, NOW).unwrap();
    assert_eq!((item.value(), item.flags()), (Some(&b"012"[..]), 5));
    assert_eq!(item.expiry(), Expiry::NEVER, "kept");
    let change = |one: &mut Participant, delta, direction| {
        let change = Change::by(delta, direction);
        one.arithmetic(b"k", hash, &change, NOW).map(|changed| changed.number)
    };
    assert_eq!(change(&mut one, 990, Direction::Up), Ok(1002));
    assert_eq!(change(&mut one, 5, Direction::Down), Ok(997));
    assert_eq!(get(&one, b"k").unwrap(), b"997 ");
    assert_eq!(change(&mut one, 1000, Direction::Down), Ok(0));
    assert_eq!(get(&one, b"k").unwrap(), b"0   ");
    set(&mut one, b"k", b"ten");
    assert_eq!(change(&mut one, 1, Direction::Up), Err(ArithmeticError::NonNumeric));
    one.delete(b"k", hash, NOW);
    assert_eq!(change(&mut one, 1, Direction::Up), Err(ArithmeticError::NotFound));
    let large = pattern(1, 300_000);
    set(&mut one, b"k", &large);
    assert!(concat(&mut one, b"k", &large, Side::Append).is_stored());
    assert_eq!(get(&one, b"k").unwrap(), [large.clone(), large].concat());
    one.quiesce();
    assert_eq!(registry.sum(Metric::CurrItems), 1);
    assert_eq!(one.table().figures().limbo_bytes, 0);
}

#[test]
fn without_eviction_the_table_fills_up_and_deletes_make_room() {
    let registry = Registry::default();
    let mut one = table(1 << 20, false).participant(registry.counters("one"));
    let mut stored = 0u64;
    while store(&mut one, &stored.to_le_bytes(), &[1; 100], Condition::Always).is_ok() {
        stored += 1;
        assert!(stored < 20_000);
    }
    assert!(stored > 5000, "{stored}");
    assert_eq!(registry.sum(Metric::Evictions), 0);
    for key in 0..stored {
        assert_eq!(get(&one, &key.to_le_bytes()).unwrap(), [1; 100]);
    }
    let key = 0u64.to_le_bytes();
    assert!(one.delete(&key, one.table().hash(&key), NOW));
    set(&mut one, &stored.to_le_bytes(), &[1; 100]);
}

#[test]
fn too_large_is_refused() {
    let registry = Registry::default();
    let mut one = table(1 << 20, true).participant(registry.counters("one"));
    for value_bytes in [1 << 20, usize::MAX] {
        let (hash, expiry) = (one.table().hash(b"k"), Expiry::NEVER);
        let head = ItemHead { key: b"k", hash, flags: 0, expiry, value_bytes, cas: None };
        assert_eq!(one.reserve(head, NOW).unwrap_err(), Refusal::TooLarge);
    }
}

#[test]
fn a_million_items_in_a_growing_index() {
    let registry = Registry::default();
    let mut one = table(128 << 20, true).participant(registry.counters("one"));
    for key in 0..1_000_000u64 {
        set(&mut one, &key.to_le_bytes(), &key.to_be_bytes());
    }
    let found = (0..1_000_000u64).filter(|key| {
        get(&one, &key.to_le_bytes()).is_some_and(|value| value == key.to_be_bytes())
    });
    assert_eq!(found.count(), 1_000_000);
    let figures = one.table().figures();
    assert!(figures.index_bytes < 20_000_000, "{figures:?}");
    assert_eq!(registry.sum(Metric::CurrItems), 1_000_000);
}

#[test]
fn a_full_table_evicts_cold_items_and_keeps_hot_ones() {
    let registry = Registry::default();
    let mut one = table(4 << 20, true).participant(registry.counters("one"));
    let hot: Vec<u64> = (1 << 40..(1 << 40) + 1000).collect();
    for key in &hot {
        set(&mut one, &key.to_le_bytes(), &[7; 100]);
    }
    for key in 0..200_000u64 {
        set(&mut one, &key.to_le_bytes(), &[1; 100]);
        get(&one, &hot[usize::try_from(key % 1000).unwrap()].to_le_bytes());
        one.quiesce();
    }
    let kept = hot.iter().filter(|key| get(&one, &key.to_le_bytes()).is_some()).count();
    assert!(kept > 990, "{kept}");
    assert!(registry.sum(Metric::Evictions) > 150_000);
    assert!(registry.sum(Metric::CurrItems) > 20_000, "{}", registry.sum(Metric::CurrItems));
    assert!(registry.sum(Metric::Bytes) < 4 << 20);
}

/// Small values fill everything; then large ones come, from several threads.
#[test]
fn pages_follow_a_change_of_sizes() {
    const TRIES: u32 = 1000;
    let registry = Registry::default();
    let table = table(64 << 20, true);
    let mut one = table.participant(registry.counters("one"));
    for key in 0..80_000u64 {
        set(&mut one, &key.to_le_bytes(), &[1; 1024]);
        one.quiesce();
    }
    one.offline();
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let mut each = table.participant(registry.counters("other"));
            scope.spawn(move || {
                let mut large = pattern(thread, 700_000);
                for round in 0..534 {
                    let key = (thread * 534 + round).to_le_bytes();
                    large[350_000..][..8].copy_from_slice(&key);
                    // Whoever lost its core for long keeps what others wait for.
                    let stored = (0..TRIES)
                        .any(|_| store(&mut each, &key, &large, Condition::Always).is_ok());
                    assert!(stored);
                    if let Some(value) = get(&each, &key) {
                        assert!(value == large);
                    }
                    each.quiesce();
                }
            });
        }
    });
    one.online();
    let large = (0..1602u64).filter(|key| get(&one, &key.to_le_bytes()).is_some()).count();
    // 64 MiB hold 90 of them: what waits for grace must not make others go.
    assert!(large > 60, "{large}");
}
