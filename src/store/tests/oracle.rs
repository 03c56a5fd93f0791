//! The table against a map, under random operations, times and sizes.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::{NOW, pattern, table};
use crate::base::clock::{Expiry, Now};
use crate::base::metrics::{Metric, Registry};
use crate::store::{
    ArithmeticError, Condition, Direction, ItemHead, Miss, Outcome, Participant, Refusal,
    Reservation, Side, Table,
};

#[derive(Clone, Debug)]
enum Action {
    Get,
    Touch(u8),
    Set { flags: u32, ttl: u8, size: usize, condition: u8 },
    Number(u64),
    Join { size: usize, append: bool },
    Arithmetic { delta: u64, up: bool },
    Delete,
    Flush(u8),
    Abandon { size: usize, arrived: usize },
    Pass(u8),
}

fn action(size_max: usize) -> impl Strategy<Value = Action> {
    let size = prop_oneof![6 => 0..200usize, 2 => 0..10_000usize, 1 => 0..size_max];
    prop_oneof![
        6 => Just(Action::Get),
        1 => (0..40u8).prop_map(Action::Touch),
        8 => (0..3u32, 0..40u8, size.clone(), 0..6u8).prop_map(|(flags, ttl, size, condition)| {
            Action::Set { flags, ttl, size, condition }
        }),
        1 => prop_oneof![any::<u64>(), 0..12u64].prop_map(Action::Number),
        2 => (size.clone(), any::<bool>()).prop_map(|(size, append)| Action::Join { size, append }),
        2 => (prop_oneof![any::<u64>(), 0..12u64], any::<bool>())
            .prop_map(|(delta, up)| Action::Arithmetic { delta, up }),
        2 => Just(Action::Delete),
        1 => (0..30u8).prop_map(Action::Flush),
        1 => (size, any::<prop::sample::Index>()).prop_map(|(size, cut)| {
            Action::Abandon { size, arrived: cut.index(size + 1) }
        }),
        2 => (0..10u8).prop_map(Action::Pass),
    ]
}

#[derive(Clone, Debug)]
struct Known {
    value: Vec<u8>,
    flags: u32,
    expiry: Expiry,
    /// 0 when it has not been looked at since it was stored.
    cas: u64,
}

struct World {
    table: Arc<Table>,
    registry: Registry,
    participants: Vec<Participant>,
    known: BTreeMap<Vec<u8>, Known>,
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
                let last = self.cas_seen.insert(key.into(), item.cas()).unwrap_or(0);
                if known.cas == 0 {
                    assert!(item.cas() > last, "a cas that was there before");
                    known.cas = item.cas();
                }
                assert_eq!(item.cas(), known.cas);
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
        ItemHead { key, hash, flags: 0, expiry, value_bytes }
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
            }
            Action::Touch(ttl) => {
                let expiry = self.expiry(ttl);
                let there = self.participants[who].touch(key, hash, expiry, now).is_ok();
                assert_eq!(there, self.known.contains_key(key));
                self.known.get_mut(key).into_iter().for_each(|known| known.expiry = expiry);
            }
            Action::Set { flags, ttl, size, condition } => {
                let value = self.value(size);
                let head = self.head(key, size);
                let head = ItemHead { flags, expiry: self.expiry(ttl), ..head };
                self.set(who, head, value, condition);
            }
            Action::Number(number) => {
                let value = number.to_string().into_bytes();
                self.set(who, self.head(key, value.len()), value, 0);
            }
            Action::Join { size, append } => self.join(who, key, size, append),
            Action::Arithmetic { delta, up } => self.arithmetic(who, key, delta, up),
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
        assert_eq!(outcome, expected);
        self.note(outcome, head, value);
    }

    /// As `set`, at once. False when that is not possible.
    fn put(&mut self, who: usize, head: ItemHead<'_>, value: &[u8], condition: u8) -> bool {
        self.look(who, head.key);
        let (condition, expected) = self.expect(head, condition);
        let outcome = self.participants[who].put(&head, value, condition, self.now);
        assert!(outcome.is_none_or(|outcome| outcome == expected), "{outcome:?} {expected:?}");
        outcome.is_some_and(|outcome| {
            self.note(outcome, head, value.to_vec());
            true
        })
    }

    /// A condition by its number, and what comes of it.
    fn expect(&self, head: ItemHead<'_>, condition: u8) -> (Condition, Outcome) {
        let known = self.known.get(head.key);
        let cas = known.map_or(77, |known| known.cas);
        match (condition, known) {
            (0..=2, _) => (Condition::Always, Outcome::Stored),
            (3, None) => (Condition::Absent, Outcome::Stored),
            (3, Some(_)) => (Condition::Absent, Outcome::NotStored),
            (4, None) => (Condition::Present, Outcome::NotStored),
            (4, Some(_)) => (Condition::Present, Outcome::Stored),
            (_, None) => (Condition::Cas(cas), Outcome::NotFound),
            (_, Some(_)) if head.value_bytes.is_multiple_of(2) => {
                (Condition::Cas(cas), Outcome::Stored)
            }
            (_, Some(_)) => (Condition::Cas(cas + 1), Outcome::Exists),
        }
    }

    fn note(&mut self, outcome: Outcome, head: ItemHead<'_>, value: Vec<u8>) {
        let ItemHead { key, flags, expiry, .. } = head;
        if outcome == Outcome::Stored {
            self.known.insert(key.into(), Known { value, flags, expiry, cas: 0 });
        }
    }

    fn join(&mut self, who: usize, key: &[u8], size: usize, append: bool) {
        let value = self.value(size);
        let reserved = self.reserve(who, self.head(key, size), &value);
        self.look(who, key);
        let side = if append { Side::Append } else { Side::Prepend };
        let reservation = reserved.expect("something can be evicted");
        let one = &mut self.participants[who];
        let outcome = one.concat(reservation, side, Condition::Always, self.now).unwrap();
        let Some(known) = self.known.get_mut(key) else {
            return assert_eq!(outcome, Outcome::NotStored);
        };
        let sum = known.value.len() + value.len() + key.len() + 20;
        if sum > 1 << 20 {
            return assert_eq!(outcome, Outcome::NoMemory);
        }
        if outcome == Outcome::NotStored {
            // Making room for the new value can have cost the old one its place.
            return;
        }
        assert_eq!(outcome, Outcome::Stored);
        let old = std::mem::take(&mut known.value);
        known.value = if append { [old, value].concat() } else { [value, old].concat() };
        known.cas = 0;
    }

    fn arithmetic(&mut self, who: usize, key: &[u8], delta: u64, up: bool) {
        let hash = self.table.hash(key);
        let direction = if up { Direction::Up } else { Direction::Down };
        let result = self.participants[who].arithmetic(key, hash, delta, direction, self.now);
        let Some(known) = self.known.get_mut(key) else {
            return assert_eq!(result, Err(ArithmeticError::NotFound));
        };
        let text = std::str::from_utf8(&known.value).ok().map(str::trim_end);
        let digits = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let old = digits.filter(|_| known.value.len() <= 20).and_then(|text| text.parse().ok());
        let Some(old) = old else {
            return assert_eq!(result, Err(ArithmeticError::NonNumeric));
        };
        let new: u64 = if up { delta.wrapping_add(old) } else { old.saturating_sub(delta) };
        if result == Err(ArithmeticError::NotFound) {
            return;
        }
        assert_eq!(result, Ok(new));
        known.value = format!("{new:<width$}", width = known.value.len()).into_bytes();
        known.cas = 0;
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
