//! The table against a map, under random operations, times and sizes.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::{NOW, pattern, table};
use crate::base::clock::{Expiry, Now};
use crate::base::metrics::{Metric, Registry};
use crate::store::{
    ArithmeticError, Change, Condition, Direction, Emptying, ItemHead, Join, Marks, Miss, Outcome,
    Participant, Refusal, Reservation, Side, Staling, Table,
};

#[derive(Clone, Debug)]
enum Action {
    Get,
    Touch(u8),
    Set { flags: u32, ttl: u8, size: usize, condition: u8, chosen: Option<u64> },
    Number(u64),
    Join { size: usize, append: bool, create: bool, chosen: Option<u64> },
    Arithmetic { delta: u64, up: bool, ttl: Option<u8>, initial: Option<u64>, chosen: Option<u64> },
    Mark(Mark),
    Delete,
    Flush(u8),
    Abandon { size: usize, arrived: usize },
    Pass(u8),
}

#[derive(Clone, Copy, Debug)]
enum Mark {
    Stale { ttl: Option<u8>, chosen: Option<u64> },
    TakeValue { ttl: u8, stale: bool, chosen: Option<u64> },
    Vivify(u8),
    Win,
}

fn action(size_max: usize) -> impl Strategy<Value = Action> {
    let size = prop_oneof![6 => 0..200usize, 2 => 0..10_000usize, 1 => 0..size_max];
    prop_oneof![
        6 => Just(Action::Get),
        1 => (0..40u8).prop_map(Action::Touch),
        8 => (0..3u32, 0..40u8, size.clone(), 0..8u8, chosen()).prop_map(
            |(flags, ttl, size, condition, chosen)| {
                Action::Set { flags, ttl, size, condition, chosen }
            }
        ),
        1 => prop_oneof![any::<u64>(), 0..12u64].prop_map(Action::Number),
        2 => (size.clone(), any::<bool>(), any::<bool>(), chosen()).prop_map(
            |(size, append, create, chosen)| Action::Join { size, append, create, chosen }
        ),
        2 => arithmetic(),
        5 => mark().prop_map(Action::Mark),
        2 => Just(Action::Delete),
        1 => (0..30u8).prop_map(Action::Flush),
        1 => (size, any::<prop::sample::Index>()).prop_map(|(size, cut)| {
            Action::Abandon { size, arrived: cut.index(size + 1) }
        }),
        2 => (0..10u8).prop_map(Action::Pass),
    ]
}

fn mark() -> impl Strategy<Value = Mark> {
    prop_oneof![
        2 => (prop::option::of(0..40u8), chosen())
            .prop_map(|(ttl, chosen)| Mark::Stale { ttl, chosen }),
        1 => (0..40u8, any::<bool>(), chosen())
            .prop_map(|(ttl, stale, chosen)| Mark::TakeValue { ttl, stale, chosen }),
        1 => (0..40u8).prop_map(Mark::Vivify),
        1 => Just(Mark::Win),
    ]
}

fn arithmetic() -> impl Strategy<Value = Action> {
    let number = || prop_oneof![any::<u64>(), 0..12u64];
    let options = (prop::option::of(0..40u8), prop::option::of(number()), chosen());
    (number(), any::<bool>(), options).prop_map(|(delta, up, (ttl, initial, chosen))| {
        Action::Arithmetic { delta, up, ttl, initial, chosen }
    })
}

/// The cas that a peer wants, if any.
fn chosen() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![3 => Just(None), 1 => any::<u64>().prop_map(Some), 1 => (0..9u64).prop_map(Some)]
}

#[derive(Clone, Debug)]
struct Known {
    value: Vec<u8>,
    flags: u32,
    expiry: Expiry,
    cas: u64,
    marks: Marks,
    fetched: bool,
}

impl Known {
    fn new(value: Vec<u8>, flags: u32, expiry: Expiry) -> Known {
        Known { value, flags, expiry, cas: 0, marks: Marks::NONE, fetched: false }
    }
}

struct World {
    table: Arc<Table>,
    registry: Registry,
    participants: Vec<Participant>,
    known: BTreeMap<Vec<u8>, Known>,
    /// The last one that the table chose.
    cas_seen: BTreeMap<Vec<u8>, u64>,
    now: Now,
    flush: Option<Expiry>,
    /// Items that were there and are not, without anybody having asked for it.
    vanished: u64,
    serial: u64,
}

impl World {
    fn new(memory_bytes: u64) -> World {
        let (table, registry) = (table(memory_bytes, true), Registry::default());
        let participants = (0..2).map(|_| table.participant(registry.counters("one"))).collect();
        let (known, cas_seen) = (BTreeMap::new(), BTreeMap::new());
        let (flush, vanished, serial) = (None, 0, 0);
        World { table, registry, participants, known, cas_seen, now: NOW, flush, vanished, serial }
    }

    /// The other participants look at nothing, so that this one gets memory when it needs it.
    fn run(&mut self, who: usize, key: u8, action: &Action) {
        for (index, each) in self.participants.iter_mut().enumerate() {
            if index == who { each.online() } else { each.offline() }
        }
        self.participants[who].begin(self.now);
        if self.flush.is_some_and(|due| due.is_due(self.now)) {
            self.flush = None;
            self.known.clear();
        }
        let key = vec![b'k'; usize::from(key) + 1];
        self.look(who, &key);
        self.act(who, &key, action);
        self.look(who, &key);
        self.participants[who].quiesce();
    }

    /// Compares what the table has with what is known.
    fn look(&mut self, who: usize, key: &[u8]) {
        let hash = self.table.hash(key);
        let known = self.known.get_mut(key).filter(|known| !known.expiry.is_due(self.now));
        match (self.participants[who].peek(key, hash, self.now), known) {
            (Ok(item), Some(known)) => {
                let value = item.runs().collect::<Vec<_>>().concat();
                assert_eq!(item.key(), key);
                assert!(value == known.value, "{} bytes, not {}", value.len(), known.value.len());
                assert_eq!((item.flags(), item.expiry()), (known.flags, known.expiry));
                assert_eq!((item.cas(), item.marks()), (known.cas, known.marks));
                assert_eq!(item.is_fetched(), known.fetched);
                assert_eq!(item.settled().1, known.cas);
            }
            (Ok(item), None) => panic!("{} bytes from the dead", item.value_bytes()),
            (Err(_), None) => drop(self.known.remove(key)),
            (Err(miss), Some(_)) => {
                assert_eq!(miss, Miss::Absent, "nothing else explains it");
                self.vanished += 1;
                self.known.remove(key);
            }
        }
    }

    fn value(&mut self, size: usize) -> Vec<u8> {
        self.serial += 1;
        pattern(self.serial, size)
    }

    fn head<'k>(&self, key: &'k [u8], value_bytes: usize) -> ItemHead<'k> {
        let (hash, expiry) = (self.table.hash(key), Expiry::NEVER);
        ItemHead { key, hash, flags: 0, expiry, value_bytes, cas: None }
    }

    /// What is known of a key whose item has this cas by now.
    fn changed(&mut self, key: &[u8], cas: u64, chosen: Option<u64>) -> Option<&mut Known> {
        match chosen {
            Some(chosen) => assert_eq!(cas, chosen),
            None => {
                let last = self.cas_seen.insert(key.into(), cas).unwrap_or(0);
                assert!(cas > last, "a cas that was there before");
            }
        }
        let known = self.known.get_mut(key)?;
        known.cas = cas;
        Some(known)
    }

    fn expiry(&self, ttl: u8) -> Expiry {
        if ttl == 0 { Expiry::NEVER } else { Expiry::at_tick(self.now.ticks + u64::from(ttl) - 1) }
    }

    fn act(&mut self, who: usize, key: &[u8], action: &Action) {
        let (hash, now) = (self.table.hash(key), self.now);
        match *action {
            Action::Get => {
                let there = self.participants[who].get(key, hash, now).is_ok();
                assert_eq!(there, self.known.contains_key(key));
                self.known.get_mut(key).into_iter().for_each(|known| known.fetched = true);
            }
            Action::Touch(ttl) => {
                let expiry = self.expiry(ttl);
                let there = self.participants[who].touch(key, hash, expiry, now).is_ok();
                assert_eq!(there, self.known.contains_key(key));
                self.known.get_mut(key).into_iter().for_each(|known| {
                    known.expiry = expiry;
                    known.fetched = true;
                });
            }
            Action::Set { flags, ttl, size, condition, chosen } => {
                let value = self.value(size);
                let head = self.head(key, size);
                let head = ItemHead { flags, expiry: self.expiry(ttl), cas: chosen, ..head };
                self.set(who, head, value, condition);
            }
            Action::Number(number) => {
                let value = number.to_string().into_bytes();
                self.set(who, self.head(key, value.len()), value, 0);
            }
            Action::Join { size, append, create, chosen } => {
                self.join(who, ItemHead { cas: chosen, ..self.head(key, size) }, append, create);
            }
            Action::Arithmetic { delta, up, ttl, initial, chosen } => {
                let direction = if up { Direction::Up } else { Direction::Down };
                let change = Change {
                    new_cas: chosen,
                    expiry: ttl.map(|ttl| self.expiry(ttl)),
                    initial: initial.map(|number| (number, self.expiry(30))),
                    ..Change::by(delta, direction)
                };
                self.arithmetic(who, key, &change);
            }
            Action::Mark(mark) => self.mark(who, key, mark),
            Action::Delete => {
                let there = self.participants[who].delete(key, hash, now);
                assert_eq!(there, self.known.remove(key).is_some());
            }
            Action::Flush(later) => {
                let due = Expiry::at_tick(now.ticks + u64::from(later));
                self.participants[who].flush((later > 0).then_some(due), now);
                self.flush = (later > 0).then_some(due);
                if later == 0 {
                    self.known.clear();
                }
            }
            Action::Abandon { size, arrived } => {
                let value = self.value(arrived);
                let reserved = self.reserve(who, self.head(key, size), &value);
                if let Ok(reservation) = reserved {
                    self.participants[who].abandon(reservation);
                }
            }
            Action::Pass(ticks) => self.now.ticks += u64::from(ticks),
        }
    }

    fn mark(&mut self, who: usize, key: &[u8], mark: Mark) {
        let (hash, now) = (self.table.hash(key), self.now);
        match mark {
            Mark::Stale { ttl, chosen } => {
                let expiry = ttl.map(|ttl| self.expiry(ttl));
                self.mark_stale(who, key, Staling { cas: None, new_cas: chosen, expiry });
            }
            Mark::TakeValue { ttl, stale, chosen } => {
                let (expiry, new_cas) = (self.expiry(ttl), chosen);
                self.take_value(who, key, Emptying { cas: None, new_cas, flags: 3, expiry, stale });
            }
            Mark::Vivify(ttl) => self.vivify(who, key, self.expiry(ttl)),
            Mark::Win => {
                let item = self.participants[who].peek(key, hash, now);
                if let (Ok(item), Some(known)) = (item, self.known.get_mut(key)) {
                    assert_eq!(item.win(), Some(!known.marks.is_won()));
                    known.marks = known.marks.or(Marks::WON);
                }
            }
        }
    }

    fn reserve(
        &mut self,
        who: usize,
        head: ItemHead<'_>,
        value: &[u8],
    ) -> Result<Reservation, Refusal> {
        let one = &mut self.participants[who];
        let mut reservation = one.reserve(head, self.now)?;
        for piece in value.chunks(1 + value.len() / 3) {
            one.fill(&mut reservation, piece, self.now).expect("something can be evicted");
        }
        Ok(reservation)
    }

    fn set(&mut self, who: usize, head: ItemHead<'_>, value: Vec<u8>, condition: u8) {
        if !value.len().is_multiple_of(3) && self.put(who, head, &value, condition) {
            return;
        }
        let reserved = self.reserve(who, head, &value);
        self.look(who, head.key);
        let (condition, expected) = self.expect(head, condition);
        let reservation = reserved.expect("something can be evicted");
        let outcome = self.participants[who].commit(reservation, condition, self.now);
        assert_eq!(outcome.is_stored(), expected.is_none());
        assert!(expected.is_none_or(|expected| outcome == expected));
        self.note((outcome, condition), head, value);
    }

    /// As `set`, at once. False when that is not possible.
    fn put(&mut self, who: usize, head: ItemHead<'_>, value: &[u8], condition: u8) -> bool {
        self.look(who, head.key);
        let (condition, expected) = self.expect(head, condition);
        let outcome = self.participants[who].put(&head, value, condition, self.now);
        let Some(outcome) = outcome else { return false };
        assert_eq!(outcome.is_stored(), expected.is_none());
        assert!(expected.is_none_or(|expected| outcome == expected));
        self.note((outcome, condition), head, value.to_vec());
        true
    }

    /// A condition by its number, and why nothing is stored.
    fn expect(&self, head: ItemHead<'_>, condition: u8) -> (Condition, Option<Outcome>) {
        let known = self.known.get(head.key);
        let cas = known.map_or(77, |known| known.cas);
        match (condition, known) {
            (0..=2, _) => (Condition::Always, None),
            (3, None) => (Condition::Absent, None),
            (3, Some(_)) => (Condition::Absent, Some(Outcome::NotStored)),
            (4, None) => (Condition::Present, Some(Outcome::NotStored)),
            (4, Some(_)) => (Condition::Present, None),
            (5, None) => (Condition::Cas(cas), Some(Outcome::NotFound)),
            (5, Some(_)) if head.value_bytes.is_multiple_of(2) => (Condition::Cas(cas), None),
            (5, Some(_)) => (Condition::Cas(cas.wrapping_add(1)), Some(Outcome::Exists)),
            (_, None) => (Condition::CasOrOlder(cas), Some(Outcome::NotFound)),
            (6, Some(_)) => (Condition::CasOrOlder(cas.saturating_sub(1)), None),
            (_, Some(_)) => match cas.checked_add(1) {
                Some(newer) => (Condition::CasOrOlder(newer), Some(Outcome::Exists)),
                None => (Condition::CasOrOlder(cas), None),
            },
        }
    }

    fn note(
        &mut self,
        (outcome, condition): (Outcome, Condition),
        head: ItemHead<'_>,
        value: Vec<u8>,
    ) {
        let ItemHead { key, flags, expiry, .. } = head;
        let Outcome::Stored { cas, value_bytes } = outcome else { return };
        assert_eq!(value_bytes, value.len());
        let mut known = Known::new(value, flags, expiry);
        if let (Condition::CasOrOlder(wanted), Some(old)) = (condition, self.known.get(key))
            && wanted < old.cas
        {
            known.expiry = old.expiry;
            known.marks = Marks::STALE.or(old.marks.and(Marks::WON));
        }
        self.known.insert(key.into(), known);
        self.changed(key, cas, head.cas);
    }

    fn join(&mut self, who: usize, head: ItemHead<'_>, append: bool, create: bool) {
        let key = head.key;
        let value = self.value(head.value_bytes);
        let reserved = self.reserve(who, head, &value);
        self.look(who, key);
        let side = if append { Side::Append } else { Side::Prepend };
        let reservation = reserved.expect("something can be evicted");
        let join = Join { side, cas: None, create };
        let outcome = self.participants[who].concat(reservation, join, self.now).unwrap();
        let Some(known) = self.known.get_mut(key) else {
            if !create {
                return assert_eq!(outcome, Outcome::NotStored);
            }
            assert!(outcome.is_stored());
            return self.note((outcome, Condition::Absent), head, value);
        };
        let sum = known.value.len() + value.len() + key.len() + 28;
        if sum > 1 << 20 {
            return assert_eq!(outcome, Outcome::NoMemory);
        }
        if outcome == Outcome::NoMemory {
            // There has to be room for both parts and the whole.
            return assert!(2 * sum as u64 > self.table.limit_bytes() / 4 * 3, "{sum} bytes");
        }
        let Outcome::Stored { cas, value_bytes } = outcome else {
            // Making room for the new value can have cost the old one its place.
            return assert_eq!(outcome, Outcome::NotStored);
        };
        if value_bytes == value.len() && create && !known.value.is_empty() {
            // That, too.
            self.known.remove(key);
            return self.note((outcome, Condition::Absent), head, value);
        }
        let old = std::mem::take(&mut known.value);
        let value = if append { [old, value].concat() } else { [value, old].concat() };
        assert_eq!(value_bytes, value.len());
        *known = Known::new(value, known.flags, known.expiry);
        self.changed(key, cas, head.cas);
    }

    fn arithmetic(&mut self, who: usize, key: &[u8], change: &Change) {
        let hash = self.table.hash(key);
        let result = self.participants[who].arithmetic(key, hash, change, self.now);
        let created = matches!(result, Ok(changed) if changed.expiry.is_none());
        let known = self.known.get_mut(key).filter(|_| !created);
        let (Some(known), Ok(_) | Err(ArithmeticError::NonNumeric)) = (known, result) else {
            self.known.remove(key);
            let Some((number, expiry)) = change.initial else {
                return assert_eq!(result, Err(ArithmeticError::NotFound));
            };
            let changed = result.unwrap();
            assert_eq!((changed.number, changed.expiry), (number, None));
            let value = number.to_string().into_bytes();
            self.known.insert(key.into(), Known::new(value, 0, expiry));
            self.changed(key, changed.cas, change.new_cas);
            return;
        };
        let text = std::str::from_utf8(&known.value).ok().map(str::trim_end);
        let digits = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let old = digits.filter(|_| known.value.len() <= 20).and_then(|text| text.parse().ok());
        let Some(old) = old else {
            return assert_eq!(result, Err(ArithmeticError::NonNumeric));
        };
        let new: u64 = match change.direction {
            Direction::Up => change.delta.wrapping_add(old),
            Direction::Down => old.saturating_sub(change.delta),
        };
        let changed = result.unwrap();
        assert_eq!((changed.number, changed.expiry), (new, Some(known.expiry)));
        known.value = format!("{new:<width$}", width = known.value.len()).into_bytes();
        known.expiry = change.expiry.unwrap_or(known.expiry);
        self.changed(key, changed.cas, change.new_cas);
    }

    fn mark_stale(&mut self, who: usize, key: &[u8], staling: Staling) {
        let hash = self.table.hash(key);
        let outcome = self.participants[who].mark_stale(key, hash, staling, self.now);
        let outcome = outcome.expect("something can be evicted");
        let Outcome::Stored { cas, value_bytes } = outcome else {
            assert_eq!(outcome, Outcome::NotFound);
            return self.look(who, key);
        };
        let known = self.changed(key, cas, staling.new_cas).expect("it was there");
        assert_eq!(value_bytes, known.value.len());
        known.expiry = staling.expiry.unwrap_or(known.expiry);
        known.marks = Marks::STALE;
    }

    fn take_value(&mut self, who: usize, key: &[u8], emptying: Emptying) {
        let hash = self.table.hash(key);
        let old = self.known.get(key).map(|known| known.cas);
        let outcome = self.participants[who].take_value(key, hash, emptying, self.now);
        let Outcome::Stored { cas, value_bytes: 0 } = outcome.unwrap() else {
            return self.look(who, key);
        };
        let Emptying { flags, expiry, stale, new_cas, .. } = emptying;
        let kept = old.filter(|_| !stale);
        let marks = if stale { Marks::STALE } else { Marks::NONE };
        self.known.insert(key.into(), Known { marks, ..Known::new(Vec::new(), flags, expiry) });
        self.changed(key, cas, new_cas.or(kept));
    }

    fn vivify(&mut self, who: usize, key: &[u8], expiry: Expiry) {
        let hash = self.table.hash(key);
        let outcome = self.participants[who].vivify(key, hash, (expiry, None), self.now).unwrap();
        let Outcome::Stored { cas, value_bytes: 0 } = outcome else {
            assert_eq!(outcome, Outcome::NotStored);
            return assert!(self.known.contains_key(key));
        };
        let marks = Marks::WON;
        self.known.insert(key.into(), Known { marks, ..Known::new(Vec::new(), 0, expiry) });
        self.changed(key, cas, None);
    }

    /// What must be true in the end.
    fn close(mut self) {
        self.participants.iter_mut().for_each(Participant::offline);
        self.participants.iter_mut().for_each(Participant::online);
        self.participants.iter_mut().for_each(Participant::offline);
        assert_eq!(self.table.figures().limbo_bytes, 0);
        let one = &mut self.participants[0];
        one.online();
        for length in 1..=256 {
            let key = vec![b'k'; length];
            one.delete(&key, self.table.hash(&key), self.now);
        }
        super::counting::assert_counted(&mut self.participants[0], &self.registry);
        assert_eq!(self.registry.sum(Metric::CurrItems), 0);
        assert_eq!(self.registry.sum(Metric::Bytes), 0);
    }
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn with_room_nothing_is_ever_lost(
        actions in prop::collection::vec((0..2usize, 0..40u8, action(20_000)), 1..400),
    ) {
        let mut world = World::new(16 << 20);
        for (who, key, action) in &actions {
            world.run(*who, *key, action);
        }
        prop_assert_eq!(world.vanished, 0);
        world.close();
    }

    #[test]
    fn without_room_nothing_is_ever_wrong(
        actions in prop::collection::vec((0..2usize, 0..200u8, action(250_000)), 1..600),
    ) {
        let mut world = World::new(1 << 20);
        for (who, key, action) in &actions {
            world.run(*who, *key, action);
        }
        world.close();
    }
}
