//! What its keys have left behind goes before any of them.

use super::{NOW, get, pattern, set, store, table};
use crate::base::metrics::{Metric, Registry};
use crate::store::{Condition, Participant};

fn has(one: &Participant, key: u64) -> bool {
    get(one, &key.to_le_bytes()).is_some()
}

fn delete(one: &mut Participant, key: u64) {
    assert!(one.delete(&key.to_le_bytes(), one.table().hash(&key.to_le_bytes()), NOW));
}

/// Stores values of keys by chance, again and again.
fn overwrite(one: &mut Participant, keys: u64, times: u64, bytes: usize) {
    let (mut state, value) = (1u64, pattern(2, bytes));
    for _ in 0..times {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let stored = store(one, &((state >> 33) % keys).to_le_bytes(), &value, Condition::Always);
        assert!(stored.unwrap().is_stored());
        one.quiesce();
    }
}

/// They are the oldest of all.
#[test]
fn items_that_nobody_asks_for_stay_while_others_are_overwritten() {
    for in_turn in [true, false] {
        let registry = Registry::default();
        let mut one = table(8 << 20, true).participant(registry.counters("one"));
        let cold = 1 << 32..(1 << 32) + 2500u64;
        cold.clone().for_each(|key| set(&mut one, &key.to_le_bytes(), &[1; 200]));
        if in_turn {
            for key in (0..600u64).cycle().take(30_000) {
                set(&mut one, &key.to_le_bytes(), &[2; 1000]);
                one.quiesce();
            }
        } else {
            overwrite(&mut one, 600, 30_000, 1000);
        }
        assert_eq!(registry.sum(Metric::Evictions), 0, "in turn: {in_turn}");
        assert!({ cold }.all(|key| has(&one, key)));
    }
}

/// They are among the others, as many to a page as it takes to keep it half full.
#[test]
fn items_among_those_that_are_overwritten_move_out_of_their_way() {
    let registry = Registry::default();
    let mut one = table(8 << 20, true).participant(registry.counters("one"));
    for key in 0..2000u64 {
        set(&mut one, &(key << 32 | 1 << 31).to_le_bytes(), &pattern(key, 700));
        set(&mut one, &key.to_le_bytes(), &[1; 1000]);
    }
    overwrite(&mut one, 2000, 60_000, 1000);
    assert_eq!(registry.sum(Metric::Evictions), 0);
    assert!(registry.sum(Metric::MovesWithinLru) > 2000);
    for key in 0..2000u64 {
        assert_eq!(get(&one, &(key << 32 | 1 << 31).to_le_bytes()).unwrap(), pattern(key, 700));
    }
}

/// They lie in pieces, in several pages.
#[test]
fn large_items_stay_while_half_of_the_memory_is_dead() {
    let registry = Registry::default();
    let mut one = table(64 << 20, true).participant(registry.counters("one"));
    let keys = 900u64;
    (0..keys).for_each(|key| set(&mut one, &key.to_le_bytes(), &pattern(key, 35_000)));
    overwrite(&mut one, keys, 9000, 35_000);
    assert_eq!(registry.sum(Metric::Evictions), 0);
    assert!((0..keys).all(|key| has(&one, key)));
}

/// Nobody needs memory, and no sweep has come by.
#[test]
fn a_page_in_which_nothing_is_left_leaves_the_log_at_once() {
    let registry = Registry::default();
    let mut one = table(8 << 20, true).participant(registry.counters("one"));
    (0..3000u64).for_each(|key| set(&mut one, &key.to_le_bytes(), &[1; 1000]));
    let before = one.table().figures().pages_log;
    (0..2000u64).for_each(|key| delete(&mut one, key));
    one.quiesce();
    let figures = one.table().figures();
    assert!(figures.pages_log * 2 < before && before > 40, "{} of {before}", figures.pages_log);
    (2000..3000u64).for_each(|key| delete(&mut one, key));
    one.quiesce();
    assert!(one.table().figures().pages_log <= 1);
    let large = pattern(1, 300_000);
    (0..10u64).for_each(|key| set(&mut one, &key.to_le_bytes(), &large));
    (0..10u64).for_each(|key| delete(&mut one, key));
    one.quiesce();
    assert!(one.table().figures().pages_log <= 1);
    assert_eq!(one.table().pages_draining(), 0);
}
