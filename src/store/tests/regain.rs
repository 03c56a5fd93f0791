//! Where nothing is evicted, memory that is given back is of use for any size.

use super::{NOW, get, pattern, store, table};
use crate::base::clock::{Expiry, Now, TICKS_PER_S};
use crate::base::metrics::{Metric, Registry};
use crate::store::{Condition, ItemHead, Outcome, Participant, Refusal, Reservation};

const SIZES: [usize; 7] = [10, 100, 300, 1000, 5000, 20_000, 200_000];
/// So often somebody asks until a value is stored.
const TRIES: u32 = 4;
/// So often where pages are to be emptied.
const REFUSALS_MAX: u32 = 64;

/// All that becomes of an attempt to store a value that expires then.
fn try_until(
    one: &mut Participant,
    key: &[u8],
    value: &[u8],
    expiry: Expiry,
    now: Now,
) -> Result<Outcome, Refusal> {
    let hash = one.table().hash(key);
    let head = ItemHead { key, hash, flags: 0, expiry, value_bytes: value.len(), cas: None };
    let mut reservation = one.reserve(head, now)?;
    if let Err(refusal) = one.fill(&mut reservation, value, now) {
        one.abandon(reservation);
        return Err(refusal);
    }
    Ok(one.commit(reservation, Condition::Always, now))
}

/// Stores values of one size until no more fit, and says how many do.
fn fill(one: &mut Participant, size: usize, expiry: Expiry) -> u64 {
    let value = pattern(1, size);
    let mut count = 0u64;
    let mut fits = |one: &mut Participant| {
        count += 1;
        let stored = try_until(one, &count.to_le_bytes(), &value, expiry, NOW);
        stored.is_ok_and(|outcome| outcome.is_stored())
    };
    while fits(one) {
        one.quiesce();
    }
    assert!(count * (size as u64 + 60) > 5 << 20, "{count} values of {size}");
    count - 1
}

#[track_caller]
fn assert_of_use_for(one: &mut Participant, sizes: &[usize], now: Now, after: &str) {
    for &size in sizes {
        let (key, value) = (format!("new {size}"), pattern(2, size));
        let mut is_stored = || {
            let stored = try_until(one, key.as_bytes(), &value, Expiry::NEVER, now);
            one.quiesce();
            stored.is_ok_and(|outcome| outcome.is_stored())
        };
        assert!((0..TRIES).any(|_| is_stored()), "{size} bytes {after}");
        assert_eq!(get(one, key.as_bytes()).unwrap(), value);
    }
}

#[test]
fn what_is_deleted_is_of_use_for_any_size() {
    for filled in [10, 300, 5000, 100_000, 1_000_000] {
        let registry = Registry::default();
        let mut one = table(8 << 20, false).participant(registry.counters("one"));
        for key in 1..=fill(&mut one, filled, Expiry::NEVER) {
            one.delete(&key.to_le_bytes(), one.table().hash(&key.to_le_bytes()), NOW);
        }
        one.quiesce();
        assert_of_use_for(&mut one, &SIZES, NOW, &format!("after {filled}"));
        // All of the memory is: what was stored last need not be the last that fits.
        let value = pattern(3, 100);
        let keys = 1 << 32..(1 << 32) + 15_000u64;
        for key in keys.clone() {
            assert!(store(&mut one, &key.to_le_bytes(), &value, Condition::Always).is_ok());
        }
        assert!({ keys }.all(|key| get(&one, &key.to_le_bytes()).is_some()));
        assert_eq!(registry.sum(Metric::Evictions), 0);
    }
}

/// In each page something is left.
#[test]
fn what_is_left_here_and_there_moves_out_of_the_way() {
    for (filled, part) in [(100, 50), (1000, 20), (5000, 4), (100_000, 4)] {
        let registry = Registry::default();
        let mut one = table(8 << 20, false).participant(registry.counters("one"));
        let value = pattern(1, filled);
        let count = fill(&mut one, filled, Expiry::NEVER);
        for key in (1..=count).filter(|key| key % part != 0) {
            one.delete(&key.to_le_bytes(), one.table().hash(&key.to_le_bytes()), NOW);
            one.quiesce();
        }
        // Being refused, it is asked again: a page is emptied step by step.
        for (size, keys) in [(20_000, 150), (1000, 600)] {
            for key in 0..keys {
                let key = (1 << 40 | (size as u64) << 20 | key).to_le_bytes();
                let mut is_stored = || {
                    let stored = try_until(&mut one, &key, &pattern(2, size), Expiry::NEVER, NOW);
                    one.quiesce();
                    stored.is_ok_and(|outcome| outcome.is_stored())
                };
                assert!((0..REFUSALS_MAX).any(|_| is_stored()), "{size} bytes beside {filled}");
            }
        }
        let is_there = |key: u64| get(&one, &key.to_le_bytes()).is_some_and(|is| is == value);
        assert!((1..=count).filter(|key| key % part == 0).all(is_there));
        assert_eq!(registry.sum(Metric::Evictions), 0);
    }
}

#[test]
fn what_is_flushed_or_expires_is_of_use_at_once() {
    for (filled, flushes) in
        [10, 300, 5000, 100_000, 1_000_000].into_iter().flat_map(|f| [(f, true), (f, false)])
    {
        let registry = Registry::default();
        let mut one = table(8 << 20, false).participant(registry.counters("one"));
        let expiry = if flushes { Expiry::NEVER } else { Expiry::at_tick(NOW.ticks + 1) };
        fill(&mut one, filled, expiry);
        let now = Now { ticks: NOW.ticks + TICKS_PER_S, ..NOW };
        if flushes {
            one.flush(None, now);
        }
        let after = format!("after {filled}, flushed: {flushes}");
        assert_of_use_for(&mut one, &SIZES, now, &after);
        assert_eq!(registry.sum(Metric::Evictions), 0);
    }
}

#[test]
fn uploads_that_are_given_up_leave_their_memory_for_any_size() {
    let registry = Registry::default();
    let mut one = table(8 << 20, false).participant(registry.counters("one"));
    let mut uploads: Vec<Reservation> = Vec::new();
    for key in 0..9u64 {
        let (key, expiry) = (key.to_le_bytes(), Expiry::NEVER);
        let hash = one.table().hash(&key);
        let head =
            ItemHead { key: &key, hash, flags: 0, expiry, value_bytes: 1_000_000, cas: None };
        let Ok(mut upload) = one.reserve_ahead(head, NOW) else { break };
        let _ = one.fill(&mut upload, &pattern(1, 990_000), NOW);
        uploads.push(upload);
    }
    assert!((4..9).contains(&uploads.len()), "{} found room", uploads.len());
    uploads.drain(..).for_each(|upload| one.abandon(upload));
    assert_of_use_for(&mut one, &SIZES, NOW, "after uploads");
}

#[test]
fn no_item_goes_for_the_sake_of_another() {
    let registry = Registry::default();
    let mut one = table(8 << 20, false).participant(registry.counters("one"));
    let count = fill(&mut one, 5000, Expiry::NEVER);
    let (value, mut refused) = (pattern(1, 5000), 0);
    for round in 0..3 {
        for &size in &SIZES {
            for key in 0..50u64 {
                let key = [key, round, size as u64].map(u64::to_le_bytes).concat();
                let stored = store(&mut one, &key, &pattern(4, size), Condition::Always);
                refused += u32::from(stored.is_err());
                one.quiesce();
            }
        }
        let is_there = |key: u64| get(&one, &key.to_le_bytes()).is_some_and(|is| is == value);
        assert!((1..=count).all(is_there));
    }
    assert!(refused > 0);
}
