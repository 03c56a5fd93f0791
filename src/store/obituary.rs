//! What a thread has evicted, for those who watch.

use std::cell::{Cell, RefCell};

use super::arena::{Item, Word0};
use super::participant::Participant;
use crate::base::clock::Now;

/// More than so many are not kept until they are asked for.
const EVICTIONS_MAX: usize = 1024;

/// An item that made room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    pub key: Box<[u8]>,
    /// True when somebody had asked for it.
    pub is_fetched: bool,
    /// Seconds that it had left; `None` is for ever.
    pub ttl_s: Option<u64>,
    /// Seconds since somebody had asked for it, about.
    pub idle_s: u64,
    /// The number of its size class.
    pub class: u8,
    pub value_bytes: u64,
}

#[derive(Debug, Default)]
pub(in crate::store) struct Obituary {
    is_wanted: Cell<bool>,
    evictions: RefCell<Vec<Eviction>>,
}

impl Obituary {
    /// True when evictions are to be told.
    #[inline]
    pub fn is_wanted(&self) -> bool {
        self.is_wanted.get()
    }
}

impl Participant {
    /// Remembers what it evicts from now on, or does not.
    pub fn tell_evictions(&mut self, wanted: bool) {
        self.obituary.is_wanted.set(wanted);
        self.obituary.evictions.get_mut().clear();
    }

    /// What it has evicted since this was called last, as far as there was room to remember it.
    pub fn take_evictions(&mut self) -> Vec<Eviction> {
        std::mem::take(self.obituary.evictions.get_mut())
    }

    #[cold]
    pub(in crate::store) fn note_eviction(&self, item: &Item<'_>, word: Word0, now: Now) {
        let mut evictions = self.obituary.evictions.borrow_mut();
        if evictions.len() < EVICTIONS_MAX {
            evictions.push(Eviction {
                key: item.key().into(),
                is_fetched: word.is_fetched(),
                ttl_s: word.expiry().left_s(now),
                idle_s: self.table.idle_s(item, now),
                class: self.table.class_of(item),
                value_bytes: item.value_bytes() as u64,
            });
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::base::metrics::{Metric, Registry};
    use crate::store::tests::{set, table};

    #[test]
    fn what_makes_room_is_remembered_where_that_is_wanted() {
        let (table, registry) = (table(1 << 20, true), Registry::default());
        let mut one = table.participant(registry.counters("one"));
        let fill = |one: &mut Participant, keys: std::ops::Range<u64>| {
            for key in keys {
                set(one, &key.to_le_bytes(), &[7; 500]);
                one.quiesce();
            }
        };
        fill(&mut one, 0..5000);
        assert!(registry.sum(Metric::Evictions) > 1000 && one.take_evictions().is_empty());
        one.tell_evictions(true);
        let before = registry.sum(Metric::Evictions);
        fill(&mut one, 5000..5100);
        let evicted = registry.sum(Metric::Evictions) - before;
        let told = one.take_evictions();
        assert!(evicted > 0 && told.len() as u64 == evicted, "{evicted} {}", told.len());
        let Eviction { key, is_fetched, ttl_s, value_bytes, .. } = &told[0];
        assert!(u64::from_le_bytes(key[..].try_into().unwrap()) < 5000);
        assert_eq!((*is_fetched, *ttl_s, *value_bytes), (false, None, 500));
        fill(&mut one, 5100..9000);
        assert_eq!(one.take_evictions().len(), EVICTIONS_MAX, "no more are kept");
        fill(&mut one, 9000..9100);
        one.tell_evictions(false);
        assert!(one.take_evictions().is_empty());
    }
}
