//! What operations do to memory that threads share: a hit writes nothing and locks nothing.

use super::{NOW, get, set, table};
use crate::base::counted::{Access, Deed, trace};
use crate::base::metrics::Registry;
use crate::store::Participant;

fn writes(accesses: &[Access]) -> Vec<String> {
    let written = accesses.iter().filter(|access| access.writes() || access.deed == Deed::Fence);
    written.map(|access| format!("{:?} at {}", access.deed, access.site)).collect()
}

fn look_up(one: &Participant, key: &[u8]) -> Vec<Access> {
    let hash = one.table().hash(key);
    let (found, accesses) = trace(|| one.get(key, hash, NOW).is_ok());
    assert!(found);
    accesses
}

#[test]
fn a_hit_that_heats_nothing_writes_nothing() {
    let registry = Registry::default();
    let table = table(4 << 20, true);
    let mut one = table.participant(registry.counters("one"));
    let two = table.participant(registry.counters("two"));
    let keys: Vec<_> = (0..1000).map(|number| format!("key {number}")).collect();
    for key in &keys {
        set(&mut one, key.as_bytes(), b"value");
        // As hot as it gets.
        (0..3).for_each(|_| drop(get(&one, key.as_bytes())));
    }
    for key in &keys {
        for who in [&one, &two] {
            let accesses = look_up(who, key.as_bytes());
            assert!(accesses.len() > 2, "the index and the item are looked at: {accesses:?}");
            assert_eq!(writes(&accesses), Vec::<String>::new());
        }
    }
}

/// Heat is one update of the item's own header, a first hit of a new item too.
#[test]
fn a_hit_that_heats_writes_the_item_alone() {
    let registry = Registry::default();
    let mut one = table(4 << 20, true).participant(registry.counters("one"));
    set(&mut one, b"key", b"value");
    let mut heated = 0;
    for _ in 0..5 {
        let written = writes(&look_up(&one, b"key"));
        assert!(written.len() <= 1, "{written:?}");
        heated += written.len();
    }
    assert!((1..=3).contains(&heated), "{heated}");
}

#[test]
fn a_miss_writes_nothing() {
    let registry = Registry::default();
    let mut one = table(4 << 20, true).participant(registry.counters("one"));
    (0..1000u32).for_each(|number| set(&mut one, &number.to_le_bytes(), b"value"));
    for number in 1000..2000u32 {
        let key = number.to_le_bytes();
        let hash = one.table().hash(&key);
        let (found, accesses) = trace(|| one.get(&key, hash, NOW).is_ok());
        assert!(!found);
        assert_eq!(writes(&accesses), Vec::<String>::new());
    }
}

/// Who has let go of nothing does not ask the others whether they still look at it.
#[test]
fn a_rest_looks_at_nobody_else() {
    let rest = |others: usize| {
        let registry = Registry::default();
        let table = table(4 << 20, true);
        let all: Vec<_> = (0..others).map(|_| table.participant(registry.counters("n"))).collect();
        let mut one = table.participant(registry.counters("one"));
        set(&mut one, b"key", b"value");
        one.quiesce();
        let (_, accesses) = trace(|| {
            one.offline();
            one.online();
        });
        drop(all);
        accesses.len()
    };
    assert_eq!(rest(3), rest(0));
}
