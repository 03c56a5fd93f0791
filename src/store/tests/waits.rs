//! Who may not wait for memory, beside a thread that does not come on.

use super::{NOW, get, head, set, store, table};
use crate::base::clock::{Now, TICKS_PER_S};
use crate::base::metrics::{Metric, Registry};
use crate::store::memory::Then;
use crate::store::{
    ArithmeticError, Change, Condition, Direction, Join, Participant, Pin, Refusal, Reservation,
    Side,
};

const MEMORY_BYTES: u64 = 4 << 20;
const VALUE: &[u8] = &[7; 5000];

const APPEND: Join = Join { side: Side::Append, cas: None, create: false };

fn try_to_set(one: &mut Participant, now: Now) -> Result<(), Refusal> {
    let key = b"wanted";
    let head = head(one, key, VALUE.len());
    one.reserve(head, now).map(|reservation| one.abandon(reservation))
}

/// Sets until one would have to wait; `two` does not come on meanwhile.
fn use_up(one: &mut Participant) {
    for number in 0..10_000u32 {
        match store(one, &number.to_le_bytes(), VALUE, Condition::Always) {
            Ok(outcome) => assert!(outcome.is_stored()),
            Err(refusal) => return assert_eq!(refusal, Refusal::WouldWait),
        }
    }
    panic!("memory never ends");
}

/// Two threads at a table, of which the first does not wait.
fn two_threads() -> (Participant, Participant) {
    let (registry, table) = (Registry::default(), table(MEMORY_BYTES, true));
    let mut one = table.participant(registry.counters("one"));
    one.defer_waits();
    (one, table.participant(registry.counters("two")))
}

#[test]
fn who_defers_is_not_refused_while_another_does_not_come_on() {
    let (mut one, mut two) = two_threads();
    use_up(&mut one);
    let looks = one.looks.get();
    for _ in 0..1000 {
        assert_eq!(try_to_set(&mut one, NOW), Err(Refusal::WouldWait));
    }
    assert!(one.looks.get() - looks <= 1000 * 80, "it waits all the same");
    let evicted = one.counters.get(Metric::Evictions);
    assert!(evicted < 400, "{evicted} items had to go for one that asked again and again");
    let comes = (0..8).any(|_| {
        two.quiesce();
        try_to_set(&mut one, NOW).is_ok()
    });
    assert!(comes, "the other thread has come on, and there is no memory");
}

#[test]
fn a_thread_that_hangs_is_waited_for_for_a_while() {
    let (mut one, _two) = two_threads();
    use_up(&mut one);
    let at = |ticks| Now { ticks: NOW.ticks + ticks, ..NOW };
    for ticks in 0..=16 {
        assert_eq!(try_to_set(&mut one, at(ticks)), Err(Refusal::WouldWait), "tick {ticks}");
    }
    assert_eq!(try_to_set(&mut one, at(17)), Err(Refusal::NoMemory));
    assert_eq!(try_to_set(&mut one, at(17)), Err(Refusal::WouldWait), "another one may wait, too");
    assert_eq!(try_to_set(&mut one, at(900)), Err(Refusal::WouldWait), "it has not asked again");
}

/// Others may be faster each time, as while the limit falls.
#[test]
fn who_still_lets_go_of_something_is_not_refused_for_what_others_took_of_it() {
    let (mut one, mut two) = two_threads();
    let mut wait = |lets_go, ticks| {
        two.quiesce();
        let now = Now { ticks: NOW.ticks + ticks, ..NOW };
        one.wait_for(None, |_| None::<()>, |_, _| Some(lets_go), Then::Refused, now)
    };
    for ticks in 0..=2 * TICKS_PER_S {
        assert_eq!(wait(true, ticks), Err(Refusal::WouldWait), "tick {ticks}");
    }
    assert_eq!(wait(true, 2 * TICKS_PER_S + 1), Err(Refusal::NoMemory), "not for ever");
    let refused = (0..).find(|_| wait(false, 500) == Err(Refusal::NoMemory));
    assert!(refused.is_some_and(|asked| asked < 20), "it has nothing: {refused:?}");
}

/// Fills the table with what cannot go.
fn pin_all(one: &mut Participant) -> Vec<Pin> {
    (0..10_000u32)
        .map_while(|number| {
            let key = number.to_le_bytes();
            let _ = store(one, &key, VALUE, Condition::Always).ok()?;
            one.quiesce();
            Some(one.pin(&one.get(&key, one.table().hash(&key), NOW).unwrap()).unwrap())
        })
        .collect()
}

#[test]
fn who_finds_nothing_waits_for_what_others_have_let_go_of_and_not_told() {
    let (mut one, mut two) = two_threads();
    let key = |number: u32| (1 << 20 | number).to_le_bytes();
    (0..200).for_each(|number| set(&mut one, &key(number), VALUE));
    for number in 0..200 {
        assert!(two.delete(&key(number), two.table().hash(&key(number)), NOW));
    }
    let pins = pin_all(&mut one);
    for _ in 0..1000 {
        assert_eq!(try_to_set(&mut one, NOW), Err(Refusal::WouldWait));
    }
    let comes = (0..8).any(|_| {
        two.quiesce();
        try_to_set(&mut one, NOW).is_ok()
    });
    assert!(comes, "what the other thread let go of is nowhere");
    pins.into_iter().for_each(|pin| one.unpin(pin));
}

#[test]
fn what_cannot_go_is_refused_when_all_have_had_their_say() {
    let (mut one, mut two) = two_threads();
    two.offline();
    let pins = pin_all(&mut one);
    two.online();
    let mut graces = 0;
    while try_to_set(&mut one, NOW) == Err(Refusal::WouldWait) {
        two.quiesce();
        graces += 1;
        assert!(graces < 1000, "nobody says that there is nothing");
    }
    assert!(graces >= 4, "after {graces} graces nothing is certain");
    pins.into_iter().for_each(|pin| one.unpin(pin));
}

#[test]
fn a_value_that_has_come_in_part_goes_on_later() {
    let (mut one, mut two) = two_threads();
    let value = super::pattern(1, 400_000);
    let head = head(&one, b"large", value.len());
    let mut upload: Reservation = one.reserve_ahead(head, NOW).unwrap();
    one.fill(&mut upload, &value[..1000], NOW).unwrap();
    use_up(&mut one);
    let mut waits = 0;
    while upload.missing() > 0 {
        let filled = value.len() - upload.missing();
        match one.fill(&mut upload, &value[filled..], NOW) {
            Ok(()) => {}
            Err(refusal) => {
                assert_eq!(refusal, Refusal::WouldWait);
                waits += 1;
                assert!(waits < 1000);
                two.quiesce();
            }
        }
    }
    assert!(waits > 0, "there was no need to wait");
    assert!(one.commit(upload, Condition::Always, NOW).is_stored());
    assert!(get(&one, b"large").unwrap() == value);
}

#[test]
fn changes_that_would_have_to_wait_change_nothing() {
    let (mut one, mut two) = two_threads();
    set(&mut one, b"text", &VALUE[..4000]);
    set(&mut one, b"number", b"9");
    // They are wanted, so that they stay.
    (0..4).for_each(|_| drop((get(&one, b"text"), get(&one, b"number"))));
    let head = head(&one, b"text", 4000);
    let mut addition = one.reserve(head, NOW).unwrap();
    one.fill(&mut addition, &VALUE[..4000], NOW).unwrap();
    use_up(&mut one);
    // Small ones find a place for longer.
    let hash = one.table().hash(b"number");
    let mut number = 9;
    let count_up = |one: &mut Participant| {
        let changed = one.arithmetic(b"number", hash, &Change::by(1, Direction::Up), NOW)?;
        Ok(changed.number)
    };
    while let Ok(next) = count_up(&mut one) {
        number += 1;
        assert!(next == number && number < 1 << 20);
    }
    assert_eq!(count_up(&mut one), Err(ArithmeticError::WouldWait));
    let mut addition = Some(addition);
    for round in 0.. {
        assert!(round < 1000);
        let outcome = one.concat(addition.take().unwrap(), APPEND, NOW);
        match outcome {
            Ok(outcome) => {
                assert!(outcome.is_stored());
                break;
            }
            Err(kept) => addition = Some(kept),
        }
        assert_eq!(get(&one, b"text").unwrap(), VALUE[..4000]);
        assert_eq!(get(&one, b"number").unwrap(), number.to_string().into_bytes());
        if round > 2 {
            two.quiesce();
        }
    }
    assert!(addition.is_none());
    assert_eq!(get(&one, b"text").unwrap(), [&VALUE[..4000]; 2].concat());
}

/// A page may have tens of thousands of slots, and others wait to be served meanwhile.
#[test]
fn a_page_of_a_class_is_emptied_a_part_at_a_time() {
    let (registry, table) = (Registry::default(), table(2 << 20, true));
    let mut one = table.participant(registry.counters("one"));
    // What is asked for while it is new goes to its class.
    for key in 0..120_000u32 {
        set(&mut one, &key.to_le_bytes(), b"");
        get(&one, &key.to_le_bytes());
        one.quiesce();
    }
    let gone = || registry.sum(Metric::Evictions) + registry.sum(Metric::SlabReassignRescues);
    let page_ends = |one: &mut Participant| {
        let moved = registry.sum(Metric::SlabsMoved);
        (0..100).position(|_| {
            one.quiesce();
            assert!(one.steal_page(None, NOW));
            registry.sum(Metric::SlabsMoved) > moved
        })
    };
    while table.slabs.is_departing() {
        assert!(page_ends(&mut one).is_some());
    }
    let before = gone();
    assert!(one.steal_page(None, NOW));
    let first = gone() - before;
    assert!((1..400).contains(&first), "{first} of 1024");
    assert!(page_ends(&mut one).is_some_and(|calls| calls < 8), "it is gone on with");
    // What has been retired does not get its grace meanwhile.
    (0..100).for_each(|_| assert!(one.steal_page(None, NOW)));
    let (retired, most) = (one.limbo.borrow().fresh(), table.limbo_items_max());
    assert!(retired <= most + 256, "{retired} of {most} retired");
}
