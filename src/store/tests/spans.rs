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

/// Whoever takes the first pin and whoever takes the last one back, wherever the item has gone.
#[test]
fn an_item_counts_as_pinned_from_its_first_pin_to_its_last() {
    let registry = Registry::default();
    let table = table(4 << 20, true);
    let page_bytes = i64::try_from(table.figures().page_bytes).unwrap();
    let mut one = table.participant(registry.counters("one"));
    let mut two = table.participant(registry.counters("two"));
    let balance = |one: &mut Participant, two: &mut Participant| {
        one.quiesce();
        two.quiesce();
        table.pinned_balance()
    };
    set(&mut one, b"k", &[7; 100_000]);
    let item = |one: &Participant| one.get(b"k", table.hash(b"k"), NOW).unwrap().item_bytes();
    let kept = i64::try_from(item(&one)).unwrap() + page_bytes;
    let first = one.pin(&one.get(b"k", table.hash(b"k"), NOW).unwrap()).unwrap();
    let second = two.pin(&two.get(b"k", table.hash(b"k"), NOW).unwrap()).unwrap();
    let span = two.span_of(&second, 0).unwrap();
    assert_eq!(balance(&mut one, &mut two), kept, "a new item is in the log, and keeps its page");
    two.unpin(first);
    set(&mut one, b"k", &[8; 5000]);
    fill_up(&mut one, 0);
    assert_eq!(balance(&mut one, &mut two), kept, "what is gone counts as before");
    one.unpin(second);
    assert_eq!(balance(&mut one, &mut two), kept);
    one.give_back(span);
    assert_eq!(balance(&mut one, &mut two), 0);
    // What was asked for has a class, and the other items of its pages can go.
    (0..2).for_each(|_| set(&mut one, b"warm", &[9; 1000]));
    for number in 0..2000u32 {
        let _ = get(&one, b"warm");
        set(&mut one, &number.to_le_bytes(), &[1; 3000]);
        one.quiesce();
        two.quiesce();
    }
    let warm = one.get(b"warm", table.hash(b"warm"), NOW).unwrap();
    assert!(warm.word0().is_main());
    let kept = i64::try_from(warm.item_bytes()).unwrap();
    let span = one.span_all(&warm).unwrap();
    assert_eq!(balance(&mut one, &mut two), kept);
    // A thread that is gone has told what it counted.
    two.give_back(span);
    drop((one, two));
    assert_eq!(table.pinned_balance(), 0);
}

#[test]
fn no_more_is_pinned_than_may_be_but_for_the_last_item() {
    let registry = Registry::default();
    let table = table(4 << 20, true);
    let mut one = table.participant(registry.counters("one"));
    let mut two = table.participant(registry.counters("two"));
    let key = |number: u32| number.to_le_bytes();
    (0..20).for_each(|number| set(&mut one, &key(number), &[7; 100_000]));
    let mut pins = Vec::new();
    let mut pin = |by: &Participant, number| {
        let item = by.get(&key(number), table.hash(&key(number)), NOW).unwrap();
        let may = by.may_pin(&item);
        pins.extend(may.then(|| by.pin(&item).unwrap()));
        may
    };
    let (max, each) = (table.pinned_bytes_max(), 100_000 + table.figures().page_bytes);
    let count = u32::try_from(max / each).unwrap();
    assert_eq!(max, (4 << 20) / 8);
    // Each of the two knows what the other has told.
    for number in 0..count {
        assert!(pin(if number % 2 == 0 { &one } else { &two }, number), "{number}");
    }
    assert!(pin(&one, count), "the last one may be too much");
    assert!(!pin(&one, count + 1) && !pin(&two, count + 1));
    assert!(pin(&one, 0) && pin(&two, 1), "what is pinned already is no more than it was");
    assert!(!one.may_pin_more() && !two.may_pin_more());
    assert!((max..max + 2 * each).contains(&table.pinned_bytes()));
    // One is given back by the thread that did not pin it; the others know at once.
    let last = pins.remove(usize::try_from(count).unwrap());
    two.unpin(last);
    assert!(two.may_pin_more() && one.may_pin_more());
    pins.into_iter().for_each(|pin| one.unpin(pin));
    one.quiesce();
    two.quiesce();
    assert_eq!((table.pinned_balance(), table.figures().pinned_bytes), (0, 0));
}

/// An item larger than all that may be pinned can be sent while nothing else is too much.
#[test]
fn an_item_larger_than_what_may_be_pinned_may_be_pinned() {
    let registry = Registry::default();
    let table = table(4 << 20, true);
    let mut one = table.participant(registry.counters("one"));
    for key in [b"1", b"2"] {
        set(&mut one, key, &[7; 700_000]);
    }
    let item = |key: &[u8]| one.get(key, table.hash(key), NOW).unwrap();
    let (first, second) = (item(b"1"), item(b"2"));
    assert!(700_000 > table.pinned_bytes_max() && one.may_pin(&first));
    let pin = one.pin(&first).unwrap();
    assert!(!one.may_pin(&second));
    one.unpin(pin);
    assert!(one.may_pin(&one.get(b"2", table.hash(b"2"), NOW).unwrap()));
}

/// Where nothing makes room for anything, what is being sent is in nobody's way.
#[test]
fn without_eviction_everything_may_be_pinned() {
    let registry = Registry::default();
    let table = table(4 << 20, false);
    let mut one = table.participant(registry.counters("one"));
    for number in 0..20u32 {
        let key = number.to_le_bytes();
        set(&mut one, &key, &[7; 100_000]);
        let item = one.get(&key, table.hash(&key), NOW).unwrap();
        assert!(one.may_pin(&item));
        let _kept = one.pin(&item).unwrap();
    }
}
