//! Values that somebody else writes into memory that is lent for them.

use super::{NOW, get, table};
use crate::base::clock::Expiry;
use crate::base::metrics::Registry;
use crate::store::{Condition, ItemHead, Participant, Reservation};

const VALUE_BYTES: usize = 300_000;

fn begin(one: &mut Participant, key: &[u8]) -> Reservation {
    let (hash, expiry) = (one.table().hash(key), Expiry::NEVER);
    let head = ItemHead { key, hash, flags: 0, expiry, value_bytes: VALUE_BYTES, cas: None };
    one.reserve_ahead(head, NOW).unwrap()
}

/// What is lent is never more than a slot, what has come is kept, and the rest is lent again.
#[test]
fn a_value_comes_in_loans_and_by_hand_in_turn() {
    let registry = Registry::default();
    let table = table(16 << 20, true);
    let mut one = table.participant(registry.counters("one"));
    let mut upload = begin(&mut one, b"key");
    let slot_bytes = upload.held_bytes();
    let mut loans = 0;
    while upload.missing() > 0 {
        let missing = upload.missing();
        let loan = one.lend_for_value(&mut upload, NOW).unwrap();
        assert!(loan.len() <= slot_bytes && loan.len() <= missing);
        // A part of it came, and what is there already stays as it was: zeros of a new arena.
        let came = loan.len().div_ceil(2);
        one.take_value_back(&mut upload, loan, came);
        assert_eq!(upload.missing(), missing - came);
        let byte = [7].repeat(upload.missing().min(1));
        one.fill(&mut upload, &byte, NOW).unwrap();
        loans += 1;
    }
    assert!(loans > 3);
    assert!(one.commit(upload, Condition::Always, NOW).is_stored());
    assert_eq!(get(&one, b"key").map(|value| value.len()), Some(VALUE_BYTES));
}

/// A peer that sends nothing holds what was lent for it, and that counts.
#[test]
fn memory_that_is_lent_counts_at_once() {
    let registry = Registry::default();
    let table = table(16 << 20, true);
    let mut one = table.participant(registry.counters("one"));
    let mut upload = begin(&mut one, b"key");
    let slot_bytes = upload.held_bytes();
    let loan = one.lend_for_value(&mut upload, NOW).unwrap();
    let first = loan.len();
    one.take_value_back(&mut upload, loan, first);
    let next = one.lend_for_value(&mut upload, NOW).unwrap();
    assert!(upload.held_bytes() >= 2 * slot_bytes);
    one.take_value_back(&mut upload, next, 0);
    one.abandon(upload);
    assert_eq!(table.arrivals.in_classes(), 0);
}

#[test]
#[should_panic(expected = "!reservation.lent")]
fn who_has_lent_memory_cannot_give_it_up() {
    let registry = Registry::default();
    let table = table(16 << 20, true);
    let mut one = table.participant(registry.counters("one"));
    let mut upload = begin(&mut one, b"key");
    let _loan = one.lend_for_value(&mut upload, NOW).unwrap();
    one.abandon(upload);
}

#[test]
#[should_panic(expected = "!reservation.lent")]
fn who_has_lent_memory_cannot_fill_it() {
    let registry = Registry::default();
    let table = table(16 << 20, true);
    let mut one = table.participant(registry.counters("one"));
    let mut upload = begin(&mut one, b"key");
    let _loan = one.lend_for_value(&mut upload, NOW).unwrap();
    let _ = one.fill(&mut upload, b"x", NOW);
}
