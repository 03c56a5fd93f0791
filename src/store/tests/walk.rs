//! Walks, while everything moves.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{NOW, set, table};
use crate::base::clock::{Expiry, Now, TICKS_PER_S};
use crate::base::metrics::Registry;
use crate::base::sync::atomic::{AtomicBool, Ordering};
use crate::store::{Cursor, Item, Participant, Table, Visitor};

/// Counts how often it is shown each key, and takes so many at a time.
#[derive(Debug, Default)]
struct Seen {
    keys: BTreeMap<Vec<u8>, u32>,
    left: u64,
}

impl Visitor for Seen {
    fn takes_more(&mut self) -> bool {
        self.left > 0
    }

    fn visit(&mut self, item: &Item<'_>) {
        self.left = self.left.saturating_sub(1);
        *self.keys.entry(item.key().to_vec()).or_default() += 1;
    }
}

impl Seen {
    fn times(&self, key: u64) -> u32 {
        self.keys.get(&key.to_le_bytes()[..]).copied().unwrap_or(0)
    }
}

/// Takes one step, of so many keys at most. False at the end.
fn step(one: &mut Participant, cursor: &mut Cursor, seen: &mut Seen, keys: u64) -> bool {
    seen.left = keys;
    one.walk(cursor, NOW, seen);
    one.quiesce();
    !one.table().is_at_end(cursor)
}

fn walk(one: &mut Participant, now: Now) -> Seen {
    let (mut cursor, mut seen) = (Cursor::default(), Seen { left: u64::MAX, ..Seen::default() });
    while !one.table().is_at_end(&cursor) {
        one.walk(&mut cursor, now, &mut seen);
        one.quiesce();
    }
    seen
}

fn delete(one: &mut Participant, key: u64) -> bool {
    let key = key.to_le_bytes();
    let hash = one.table().hash(&key);
    one.delete(&key, hash, NOW)
}

#[test]
fn everything_alive_is_shown_once() {
    let (table, registry) = (table(16 << 20, true), Registry::default());
    let mut one = table.participant(registry.counters("one"));
    assert!(walk(&mut one, NOW).keys.is_empty());
    (0..20_000u64).for_each(|key| set(&mut one, &key.to_le_bytes(), b"v"));
    let hash = |key: u64| table.hash(&key.to_le_bytes());
    let second = Expiry::at_tick(NOW.ticks + TICKS_PER_S);
    for key in 0..100u64 {
        assert!(one.touch(&key.to_le_bytes(), hash(key), second, NOW).is_ok());
    }
    let seen = walk(&mut one, NOW);
    assert_eq!(seen.keys.len(), 20_000);
    assert!((0..20_000).all(|key| seen.times(key) == 1));
    let later = Now { ticks: NOW.ticks + TICKS_PER_S, ..NOW };
    assert_eq!(walk(&mut one, later).keys.len(), 19_900, "what has expired is not shown");
    one.flush(None, NOW);
    set(&mut one, b"after", b"");
    assert_eq!(walk(&mut one, NOW).keys.into_keys().collect::<Vec<_>>(), [b"after"]);
}

/// Keys that are told apart only by bits of the hash behind the tag: a walk stops between them.
#[test]
fn a_walk_stops_between_keys_with_one_tag() {
    let (table, registry) = (table(8 << 20, true), Registry::default());
    let mut one = table.participant(registry.counters("one"));
    // The stripe of a small table is told by the highest bits.
    let place = |key: &u64| {
        let hash = table.hash(&key.to_le_bytes()).0;
        (hash >> 61, hash >> 16 & 0xff_ffff)
    };
    let mut places: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    (0..200_000u64).for_each(|key| places.entry(place(&key)).or_default().push(key));
    places.retain(|_, keys| keys.len() > 1);
    let keys: Vec<u64> = places.into_values().flatten().collect();
    assert!(keys.len() > 100, "{}", keys.len());
    keys.iter().for_each(|key| set(&mut one, &key.to_le_bytes(), b""));
    let (mut cursor, mut seen) = (Cursor::default(), Seen::default());
    while step(&mut one, &mut cursor, &mut seen, 1) {}
    assert!(keys.iter().all(|key| seen.times(*key) == 1));
    assert_eq!(seen.keys.len(), keys.len());
}

/// Keys whose tags are the first of all tags that a segment is for.
#[test]
fn the_first_tag_of_each_segment_is_seen() {
    let (table, registry) = (table(16 << 20, true), Registry::default());
    let mut one = table.participant(registry.counters("one"));
    let is_edge = |key: &u64| table.hash(&key.to_le_bytes()).0 >> 16 & 0xff_ffff < 8;
    let edges: Vec<u64> = (1 << 40..(1 << 40) + (30 << 20)).filter(is_edge).collect();
    assert!(edges.len() > 5, "{}", edges.len());
    edges.iter().for_each(|key| set(&mut one, &key.to_le_bytes(), b""));
    (0..150_000u64).for_each(|key| set(&mut one, &key.to_le_bytes(), b""));
    let figures = table.figures();
    assert!(figures.segments >= 8 * figures.stripes, "{figures:?}");
    for keys in [u64::MAX, 1000] {
        let (mut cursor, mut seen) = (Cursor::default(), Seen::default());
        while step(&mut one, &mut cursor, &mut seen, keys) {}
        assert!(edges.iter().all(|key| seen.times(*key) == 1));
        assert_eq!(seen.keys.len(), 150_000 + edges.len());
    }
}

/// One piece of what happens between two steps.
#[derive(Clone, Debug)]
enum Action {
    Step(u64),
    /// So many keys that are not there come, from this one on.
    Grow(u64, u64),
    /// So many of them go.
    Shrink(u64, u64),
    /// Segments merge and move.
    Tend,
    /// Stable keys are stored again, or asked for.
    Store(u64),
}

const STABLE: u64 = 2000;
const PASSING: u64 = 30_000;

fn action() -> impl Strategy<Value = Action> {
    let keys = || (STABLE..STABLE + PASSING, 1..PASSING);
    prop_oneof![
        12 => prop_oneof![1..50u64, Just(u64::MAX)].prop_map(Action::Step),
        3 => keys().prop_map(|(first, count)| Action::Grow(first, count)),
        3 => keys().prop_map(|(first, count)| Action::Shrink(first, count)),
        2 => Just(Action::Tend),
        2 => (0..STABLE).prop_map(Action::Store),
    ]
}

fn act(
    table: &Table,
    one: &mut Participant,
    (cursor, seen): (&mut Cursor, &mut Seen),
    act: &Action,
) {
    let within = |first: u64, count: u64| {
        (first..first + count).map(|key| STABLE + (key - STABLE) % PASSING)
    };
    match *act {
        Action::Step(keys) => {
            step(one, cursor, seen, keys);
        }
        Action::Grow(first, count) => {
            within(first, count).for_each(|key| set(one, &key.to_le_bytes(), b""));
        }
        Action::Shrink(first, count) => {
            for key in within(first, count) {
                delete(one, key);
            }
        }
        Action::Tend => while one.tend_index(64) {},
        Action::Store(key) => {
            set(one, &key.to_le_bytes(), &[7; 100]);
            let other = (key + 1) % STABLE;
            let _ = one.get(&other.to_le_bytes(), table.hash(&other.to_le_bytes()), NOW);
        }
    }
    one.quiesce();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever comes and goes, and however the index grows and shrinks between two steps, which
    /// different threads take: who is there all the time is seen once, and nobody twice.
    #[test]
    fn who_stays_is_seen_exactly_once(actions in prop::collection::vec(action(), 1..120)) {
        let (table, registry) = (table(8 << 20, false), Registry::default());
        let mut both = ["one", "two"].map(|name| table.participant(registry.counters(name)));
        (0..STABLE).for_each(|key| set(&mut both[0], &key.to_le_bytes(), b"v"));
        let (mut cursor, mut seen) = (Cursor::default(), Seen::default());
        for (turn, action) in actions.iter().enumerate() {
            act(&table, &mut both[turn % 2], (&mut cursor, &mut seen), action);
            both.iter_mut().for_each(Participant::quiesce);
        }
        while step(&mut both[0], &mut cursor, &mut seen, u64::MAX) {}
        prop_assert!((0..STABLE).all(|key| seen.times(key) == 1));
        prop_assert!(seen.keys.values().all(|times| *times == 1));
        prop_assert_eq!(step(&mut both[1], &mut cursor, &mut seen, 1), false);
    }
}

/// As above, with all of it at the same time.
#[test]
fn nobody_is_missed_while_threads_store_and_upkeep_tidies() {
    const WALKS: u32 = 12;
    let (table, registry) = (table(16 << 20, false), Registry::default());
    let mut walker = table.participant(registry.counters("walker"));
    (0..STABLE).for_each(|key| set(&mut walker, &key.to_le_bytes(), b"v"));
    walker.quiesce();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (mut one, done) = (table.participant(registry.counters("writer")), &done);
            scope.spawn(move || {
                let keys = || (STABLE..STABLE + PASSING).filter(|key| key % 2 == thread);
                while !done.load(Ordering::Relaxed) {
                    for key in keys() {
                        set(&mut one, &key.to_le_bytes(), b"");
                        one.quiesce();
                    }
                    for key in (0..STABLE).filter(|key| key % 2 == thread) {
                        set(&mut one, &key.to_le_bytes(), &[3; 40]);
                        one.quiesce();
                    }
                    for key in keys() {
                        assert!(delete(&mut one, key));
                        one.quiesce();
                    }
                }
            });
        }
        let (mut upkeep, done) = (table.participant(registry.counters("upkeep")), &done);
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                upkeep.tend_index(16);
            }
        });
        for _ in 0..WALKS {
            let seen = walk(&mut walker, NOW);
            assert!((0..STABLE).all(|key| seen.times(key) == 1));
            assert!(seen.keys.values().all(|times| *times == 1));
        }
        done.store(true, Ordering::Relaxed);
    });
}
