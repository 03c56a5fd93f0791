//! Values that are sent from where they are, whatever becomes of their items meanwhile.

use super::{NOW, get, set, store, table};
use crate::base::metrics::{Metric, Registry};
use crate::store::{Condition, Participant};

fn fill_up(one: &mut Participant, from: u32) {
    for number in from..from + 3000 {
        let _ = store(one, &number.to_le_bytes(), &[9; 3000], Condition::Always);
        one.quiesce();
    }
}

#[test]
fn a_span_stays_what_it_was_until_it_is_given_back() {
    let registry = Registry::default();
    let table = table(4 << 20, true);
    let mut one = table.participant(registry.counters("one"));
    set(&mut one, b"small", &[7; 3000]);
    let large: Vec<u8> = (0..100_000u32).map(|at| (at % 251).to_le_bytes()[0]).collect();
    set(&mut one, b"large", &large);
    let item = |key: &[u8]| one.get(key, table.hash(key), NOW).unwrap();
    let whole = one.span_all(&item(b"small")).unwrap();
    assert!(one.span_all(&item(b"large")).is_none(), "it lies in pieces");
    let pin = one.pin(&item(b"large")).unwrap();
    let (mut spans, mut offset) = (Vec::new(), 0);
    while let Some(span) = one.span_of(&pin, offset) {
        offset += span.len();
        spans.push(span);
    }
    assert_eq!(offset, 100_000);
    assert_eq!(registry.sum(Metric::Spans), 1 + spans.len() as u64);
    assert_eq!(registry.sum(Metric::SpannedBytes), 103_000);
    assert_eq!((one.outdated_bytes(&whole), one.outdated_bytes(&spans[0])), (0, 0));
    one.unpin(pin);
    set(&mut one, b"small", &[8; 3000]);
    assert!(one.delete(b"large", table.hash(b"large"), NOW));
    fill_up(&mut one, 0);
    one.flush(None, NOW);
    fill_up(&mut one, 5000);
    assert_eq!(whole.bytes(), [7; 3000]);
    let bytes: Vec<u8> = spans.iter().flat_map(|span| span.bytes().to_vec()).collect();
    assert!(bytes == large);
    assert_eq!((one.outdated_bytes(&whole), one.outdated_bytes(&spans[0])), (3000, 100_000));
    assert!((103_000..104_000).contains(&table.outdated_bytes()), "{}", table.outdated_bytes());
    one.give_back(whole);
    let last = spans.pop().unwrap();
    spans.into_iter().for_each(|span| one.give_back(span));
    (0..3).for_each(|_| one.quiesce());
    assert!(table.outdated_bytes() > 100_000, "one span keeps all of its item");
    one.give_back(last);
    one.quiesce();
    assert_eq!((table.outdated_bytes(), table.figures().limbo_bytes), (0, 0));
}

#[test]
fn an_item_of_which_too_much_is_spanned_can_still_be_pinned() {
    let registry = Registry::default();
    let table = table(4 << 20, true);
    let mut one = table.participant(registry.counters("one"));
    set(&mut one, b"k", &[7; 3000]);
    let item = one.get(b"k", table.hash(b"k"), NOW).unwrap();
    let spans: Vec<_> = std::iter::from_fn(|| one.span_all(&item)).collect();
    assert_eq!(spans.len(), 1023);
    let pins: Vec<_> = std::iter::from_fn(|| one.pin(&item)).collect();
    assert_eq!(pins.len(), 1024);
    spans.into_iter().for_each(|span| one.give_back(span));
    pins.into_iter().for_each(|pin| one.unpin(pin));
    let again = one.span_all(&one.get(b"k", table.hash(b"k"), NOW).unwrap());
    one.give_back(again.unwrap());
}

/// Thousands of items that are gone and are being sent cost those who go on next to nothing.
#[test]
fn what_is_being_sent_is_looked_at_only_when_something_has_been_sent() {
    let registry = Registry::default();
    let table = table(64 << 20, true);
    let mut one = table.participant(registry.counters("one"));
    let mut spans = Vec::new();
    for number in 0..5000u32 {
        let key = number.to_le_bytes();
        set(&mut one, &key, &[1; 2000]);
        spans.extend(one.span_all(&one.get(&key, table.hash(&key), NOW).unwrap()));
        assert!(one.delete(&key, table.hash(&key), NOW));
    }
    // Each is looked at once more, a few at a time.
    (0..30).for_each(|_| one.quiesce());
    let unseen = |one: &Participant| one.limbo.borrow().unseen();
    assert_eq!((spans.len(), unseen(&one)), (5000, 0));
    let before = table.outdated_bytes();
    assert!(before > 5000 * 2000);
    one.give_back(spans.swap_remove(2500));
    one.quiesce();
    assert!((1..5000).contains(&unseen(&one)), "it takes turns");
    (0..30).for_each(|_| one.quiesce());
    assert_eq!((unseen(&one), table.outdated_bytes() < before), (0, true));
    // What a thread leaves behind when it sleeps is found by others.
    one.offline();
    spans.into_iter().for_each(|span| one.give_back(span));
    let mut two = table.participant(registry.counters("two"));
    (0..30).for_each(|_| two.quiesce());
    assert_eq!((table.outdated_bytes(), table.figures().limbo_bytes), (0, 0));
    set(&mut two, b"k", b"v");
    assert_eq!(get(&two, b"k"), Some(b"v".to_vec()));
}
