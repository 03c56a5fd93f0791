//! What is known of a value beside itself, and who chooses its cas.

use super::{NOW, get, pattern, set, table};
use crate::base::clock::{Expiry, Now};
use crate::base::hash::KeyHash;
use crate::base::metrics::Registry;
use crate::store::{
    Change, Condition, Deletion, Direction, Emptying, ItemHead, Join, Marks, Miss, Outcome,
    Participant, Refusal, Side, Staling,
};

const STALE: Marks = Marks::STALE;
const STALE_WON: Marks = Marks::ALL;

fn one() -> Participant {
    table(8 << 20, true).participant(Registry::default().counters("one"))
}

fn hash(one: &Participant) -> KeyHash {
    one.table().hash(b"k")
}

fn store(
    one: &mut Participant,
    value: &[u8],
    cas: Option<u64>,
    condition: Condition,
) -> Result<Outcome, Refusal> {
    let (hash, expiry) = (hash(one), Expiry::at_tick(NOW.ticks + 50));
    let head = ItemHead { key: b"k", hash, flags: 7, expiry, value_bytes: value.len(), cas };
    if let Some(outcome) = one.put(&head, value, condition, NOW) {
        return Ok(outcome);
    }
    let mut reservation = one.reserve(head, NOW)?;
    one.fill(&mut reservation, value, NOW)?;
    Ok(one.commit(reservation, condition, NOW))
}

fn cas_of(one: &Participant) -> u64 {
    one.peek(b"k", hash(one), NOW).unwrap().settled().1
}

fn marks_of(one: &Participant) -> Marks {
    one.peek(b"k", hash(one), NOW).unwrap().marks()
}

fn win(one: &Participant) -> Option<bool> {
    one.peek(b"k", hash(one), NOW).unwrap().win()
}

fn stored(outcome: Result<Outcome, Refusal>) -> u64 {
    match outcome {
        Ok(Outcome::Stored { cas, .. }) => cas,
        other => panic!("{other:?}"),
    }
}

fn mark_stale(one: &mut Participant, staling: Staling) -> Result<Outcome, Refusal> {
    one.mark_stale(b"k", hash(one), staling, NOW)
}

#[test]
fn a_peer_chooses_the_cas_of_values_of_all_sizes() {
    let mut one = one();
    for (number, size) in [0, 1, 100, 5000, 70_000, 700_000].into_iter().enumerate() {
        let (value, cas) = (pattern(3, size), u64::MAX - number as u64);
        assert_eq!(stored(store(&mut one, &value, Some(cas), Condition::Always)), cas);
        assert_eq!((cas_of(&one), get(&one, b"k").unwrap()), (cas, value));
        let item = one.peek(b"k", hash(&one), NOW).unwrap();
        assert_eq!((item.flags(), item.key()), (7, &b"k"[..]));
        assert_eq!(store(&mut one, b"", None, Condition::Cas(cas - 1)), Ok(Outcome::Exists));
        let own = stored(store(&mut one, b"own", None, Condition::Cas(cas)));
        assert_eq!((cas_of(&one), own < 1 << 40), (own, true));
    }
}

/// Two who give the same cas are told apart all the same.
#[test]
fn a_chosen_cas_loses_no_update() {
    const ROUNDS: u64 = 20_000;
    let (table, registry) = (table(4 << 20, true), Registry::default());
    let hash = table.hash(b"n");
    let mut first = table.participant(registry.counters("first"));
    set(&mut first, b"n", b"0");
    first.offline();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let mut one = table.participant(registry.counters("peer"));
            scope.spawn(move || {
                let change = Change { new_cas: Some(7), ..Change::by(1, Direction::Up) };
                for _ in 0..ROUNDS {
                    assert_eq!(one.arithmetic(b"n", hash, &change, NOW).unwrap().cas, 7);
                    one.quiesce();
                }
            });
        }
    });
    first.online();
    assert_eq!(get(&first, b"n").unwrap(), (2 * ROUNDS).to_string().into_bytes());
}

#[test]
fn one_wins_until_a_value_is_stored_or_marked_as_stale() {
    let mut one = one();
    let old = stored(store(&mut one, b"v", None, Condition::Always));
    assert_eq!((win(&one), win(&one), cas_of(&one)), (Some(true), Some(false), old));
    let marked = stored(mark_stale(&mut one, Staling::default()));
    assert!(marked > old && cas_of(&one) == marked);
    assert_eq!((marks_of(&one), get(&one, b"k").unwrap()), (STALE, b"v".to_vec()));
    assert_eq!((win(&one), win(&one), marks_of(&one)), (Some(true), Some(false), STALE_WON));
    assert_eq!(store(&mut one, b"w", None, Condition::Cas(old)), Ok(Outcome::Exists));
    stored(store(&mut one, b"w", None, Condition::Cas(marked)));
    assert_eq!((marks_of(&one), win(&one)), (Marks::NONE, Some(true)));
}

#[test]
fn who_wants_to_win_an_item_that_was_replaced_looks_again() {
    let table = table(8 << 20, true);
    let mut one = table.participant(Registry::default().counters("one"));
    let mut two = table.participant(Registry::default().counters("two"));
    set(&mut one, b"k", b"v");
    let old = one.peek(b"k", table.hash(b"k"), NOW).unwrap();
    set(&mut two, b"k", b"w");
    // As it was found, it could be won; but the one that is there now is another.
    assert_eq!((old.marks(), old.win()), (Marks::NONE, None));
}

#[test]
fn stale_items_keep_their_exptime_or_get_another() {
    let mut one = one();
    stored(store(&mut one, b"v", None, Condition::Always));
    let later = Now { ticks: NOW.ticks + 60, ..NOW };
    let other = Staling { cas: Some(1 << 39), ..Staling::default() };
    assert_eq!(mark_stale(&mut one, other), Ok(Outcome::Exists));
    stored(mark_stale(&mut one, Staling::default()));
    assert_eq!(one.peek(b"k", hash(&one), later).unwrap_err(), Miss::Expired);
    let outcome = one.mark_stale(b"k", hash(&one), Staling::default(), later);
    assert_eq!(outcome, Ok(Outcome::NotFound));
    for new_cas in [None, Some(9)] {
        stored(store(&mut one, b"v", None, Condition::Always));
        let expiry = Some(Expiry::at_tick(NOW.ticks + 70));
        stored(mark_stale(&mut one, Staling { expiry, new_cas, ..Staling::default() }));
        assert_eq!(one.peek(b"k", hash(&one), later).unwrap().marks(), STALE);
    }
}

#[test]
fn flushed_items_are_not_marked() {
    let mut one = one();
    let cas = stored(store(&mut one, b"v", Some(1 << 50), Condition::Always));
    one.flush(None, NOW);
    let staling = Staling { cas: Some(cas), ..Staling::default() };
    assert_eq!(mark_stale(&mut one, staling), Ok(Outcome::NotFound));
    // Flushes go by the version, whatever a peer says.
    stored(store(&mut one, b"v", Some(0), Condition::Always));
    assert_eq!(get(&one, b"k").unwrap(), b"v");
    stored(mark_stale(&mut one, Staling::default()));
    one.flush(None, NOW);
    assert_eq!(one.peek(b"k", hash(&one), NOW).unwrap_err(), Miss::Flushed);
}

/// Where no peer has chosen a cas there is no place for one: the item is copied.
#[test]
fn stale_items_get_the_cas_that_a_peer_chooses() {
    let mut one = one();
    for size in [0, 100, 700_000] {
        let value = pattern(5, size);
        stored(store(&mut one, &value, None, Condition::Always));
        drop(get(&one, b"k"));
        for new_cas in [Some(5), Some(4), None, Some(u64::MAX)] {
            let cas = stored(mark_stale(&mut one, Staling { new_cas, ..Staling::default() }));
            assert!(new_cas.is_none_or(|wanted| wanted == cas));
            let item = one.peek(b"k", hash(&one), NOW).unwrap();
            assert_eq!((item.cas(), item.marks(), item.flags()), (cas, STALE, 7));
            assert!(item.is_fetched());
            assert_eq!(item.expiry(), Expiry::at_tick(NOW.ticks + 50));
            assert_eq!(get(&one, b"k").unwrap(), value);
            assert_eq!(win(&one), Some(true));
        }
    }
}

#[test]
fn what_was_made_from_an_older_value_is_taken_as_stale() {
    let mut one = one();
    let old = stored(store(&mut one, b"old", None, Condition::Always));
    stored(mark_stale(&mut one, Staling::default()));
    assert_eq!(win(&one), Some(true));
    let soon = Expiry::at_tick(NOW.ticks + 20);
    one.touch(b"k", hash(&one), soon, NOW).unwrap();
    let older = Condition::CasOrOlder(old);
    let cas = stored(store(&mut one, b"older", None, older));
    let item = one.peek(b"k", hash(&one), NOW).unwrap();
    assert_eq!((item.marks(), item.expiry(), item.cas()), (STALE_WON, soon, cas));
    assert_eq!(store(&mut one, b"", None, Condition::CasOrOlder(cas + 1)), Ok(Outcome::Exists));
    stored(store(&mut one, b"newest", None, Condition::CasOrOlder(cas)));
    assert_eq!((marks_of(&one), get(&one, b"k").unwrap()), (Marks::NONE, b"newest".to_vec()));
    one.delete(b"k", hash(&one), NOW);
    assert_eq!(store(&mut one, b"", None, older), Ok(Outcome::NotFound));
}

#[test]
fn a_missing_item_is_made_for_one_to_fill() {
    let mut one = one();
    let soon = Expiry::at_tick(NOW.ticks + 5);
    for cas in [None, Some(3)] {
        let made = stored(one.vivify(b"k", hash(&one), (soon, cas), NOW));
        assert!(cas.is_none_or(|cas| cas == made));
        assert_eq!(marks_of(&one), Marks::WON);
        assert_eq!((win(&one), get(&one, b"k").unwrap()), (Some(false), Vec::new()));
        let again = one.vivify(b"k", hash(&one), (soon, None), NOW);
        assert_eq!(again, Ok(Outcome::NotStored));
        let later = Now { ticks: NOW.ticks + 5, ..NOW };
        stored(one.vivify(b"k", hash(&one), (Expiry::NEVER, None), later));
        one.delete(b"k", hash(&one), NOW);
    }
}

#[test]
fn a_value_is_taken_from_its_item() {
    let mut one = one();
    let emptying =
        Emptying { cas: None, new_cas: None, flags: 1, expiry: Expiry::NEVER, stale: false };
    let take = |one: &mut Participant, how| one.take_value(b"k", hash(one), how, NOW);
    assert_eq!(take(&mut one, emptying), Ok(Outcome::NotFound));
    let old = stored(store(&mut one, b"value", None, Condition::Always));
    let other = Emptying { cas: Some(old + 1), ..emptying };
    assert_eq!(take(&mut one, other), Ok(Outcome::Exists));
    assert_eq!(stored(take(&mut one, emptying)), old);
    let item = one.peek(b"k", hash(&one), NOW).unwrap();
    assert_eq!((item.cas(), item.flags(), item.value_bytes()), (old, 1, 0));
    assert_eq!((item.marks(), item.expiry()), (Marks::NONE, Expiry::NEVER));
    let stale = Emptying { stale: true, ..emptying };
    assert!(stored(take(&mut one, stale)) > old);
    assert_eq!(marks_of(&one), STALE);
    assert_eq!(stored(take(&mut one, Emptying { new_cas: Some(99), ..stale })), 99);
}

#[test]
fn items_are_deleted_if_they_have_the_cas() {
    let mut one = one();
    let delete = |one: &mut Participant, cas| one.delete_if(b"k", hash(one), Some(cas), NOW);
    assert_eq!(delete(&mut one, 1), Deletion::NotFound);
    let cas = stored(store(&mut one, b"v", Some(5), Condition::Always));
    assert_eq!(delete(&mut one, cas + 1), Deletion::Exists);
    assert_eq!(get(&one, b"k").unwrap(), b"v");
    assert_eq!(delete(&mut one, cas), Deletion::Deleted);
    assert_eq!(get(&one, b"k"), None);
}

#[test]
fn numbers_keep_marks_and_get_exptimes() {
    let mut one = one();
    stored(store(&mut one, b"9", None, Condition::Always));
    stored(mark_stale(&mut one, Staling::default()));
    assert_eq!(win(&one), Some(true));
    let (old, soon) = (Expiry::at_tick(NOW.ticks + 50), Expiry::at_tick(NOW.ticks + 9));
    let change = Change { expiry: Some(soon), ..Change::by(1, Direction::Up) };
    let changed = one.arithmetic(b"k", hash(&one), &change, NOW).unwrap();
    assert_eq!((changed.number, changed.expiry), (10, Some(old)));
    let item = one.peek(b"k", hash(&one), NOW).unwrap();
    assert_eq!((item.marks(), item.expiry(), item.cas()), (STALE_WON, soon, changed.cas));
    let change = Change { cas: Some(changed.cas + 1), ..change };
    assert!(one.arithmetic(b"k", hash(&one), &change, NOW).is_err());
    one.delete(b"k", hash(&one), NOW);
    let change = Change { initial: Some((7, soon)), ..change };
    let changed = one.arithmetic(b"k", hash(&one), &change, NOW).unwrap();
    assert_eq!((changed.number, changed.expiry), (7, None));
    assert_eq!(get(&one, b"k").unwrap(), b"7");
}

#[test]
fn what_is_joined_may_be_made() {
    let mut one = one();
    let join = |one: &mut Participant, cas, create, chosen| {
        let head = ItemHead {
            key: b"k",
            hash: hash(one),
            flags: 2,
            expiry: Expiry::at_tick(NOW.ticks + 20),
            value_bytes: 3,
            cas: chosen,
        };
        let mut addition = one.reserve(head, NOW).unwrap();
        one.fill(&mut addition, b"new", NOW).unwrap();
        one.concat(addition, Join { side: Side::Append, cas, create }, NOW).unwrap()
    };
    assert_eq!(join(&mut one, None, false, None), Outcome::NotStored);
    assert_eq!(join(&mut one, Some(1), false, None), Outcome::NotStored);
    let outcome = join(&mut one, Some(1), true, Some(6));
    assert_eq!(outcome, Outcome::Stored { cas: 6, value_bytes: 3 });
    let item = one.peek(b"k", hash(&one), NOW).unwrap();
    assert_eq!((item.flags(), item.expiry()), (2, Expiry::at_tick(NOW.ticks + 20)));
    assert_eq!(join(&mut one, Some(5), true, None), Outcome::Exists);
    let outcome = join(&mut one, Some(6), true, Some(6));
    assert_eq!(outcome, Outcome::Stored { cas: 6, value_bytes: 6 });
    assert_eq!(get(&one, b"k").unwrap(), b"newnew");
}

/// What is stored again where somebody had asked for the old value is new.
#[test]
fn a_new_value_has_not_been_asked_for() {
    let mut one = one();
    set(&mut one, b"k", b"v");
    (0..9).for_each(|_| drop(get(&one, b"k")));
    assert!(one.peek(b"k", hash(&one), NOW).unwrap().is_fetched());
    set(&mut one, b"k", b"w");
    assert!(!one.peek(b"k", hash(&one), NOW).unwrap().is_fetched());
    drop(get(&one, b"k"));
    assert!(one.peek(b"k", hash(&one), NOW).unwrap().is_fetched());
}
