//! Deleting what begins alike, by a walk.
//!
//! What is deleted is what was stored before a mark: the versions of all stripes at one moment, by
//! which flushes go, too. So whatever is stored while the walk goes on stays.

use super::arena::{Item, VERSION_BITS};
use super::participant::Participant;
use super::table::Table;
use super::walk::{Cursor, Visitor};
use crate::base::clock::Now;

/// A moment, by the version of the item that was stored last in each stripe.
#[derive(Clone, Debug)]
pub struct Mark(Box<[u64]>);

impl Mark {
    /// True of an item of this stripe that was stored no later.
    pub(in crate::store) fn is_before(&self, stripe: usize, version: u64) -> bool {
        let age = self.0[stripe].wrapping_sub(version) % (1 << VERSION_BITS);
        age < 1 << (VERSION_BITS - 1)
    }
}

impl Table {
    /// This moment. It locks every stripe, one after the other.
    pub fn mark(&self) -> Mark {
        let version = |number| self.stripe_at(number).map(|stripe| stripe.lock().version());
        Mark((0..).map_while(version).collect())
    }
}

/// What one step has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sorted {
    /// Keys that were looked at.
    pub seen: u32,
    pub deleted: u32,
}

/// Deletes what it is shown, if it begins right and is old enough.
struct Deleter<'a, F> {
    one: &'a Participant,
    prefix: &'a [u8],
    mark: &'a Mark,
    left: u32,
    sorted: Sorted,
    each: F,
}

impl<F: FnMut(&Item<'_>)> Visitor for Deleter<'_, F> {
    fn takes_more(&mut self) -> bool {
        let takes = self.sorted.seen < self.left;
        self.sorted.seen += u32::from(takes);
        takes
    }

    fn visit(&mut self, item: &Item<'_>) {
        if item.key().starts_with(self.prefix) && self.one.delete_before(item, self.mark) {
            self.sorted.deleted += 1;
            (self.each)(item);
        }
    }
}

impl Participant {
    /// One step of a walk that deletes what was stored before `mark`, and whose key begins with
    /// `prefix`. It looks at `keys` of them at most; `each` is shown what is deleted. The walk is
    /// at its end when `Table::is_at_end` says so.
    pub fn delete_by_prefix(
        &mut self,
        cursor: &mut Cursor,
        (prefix, mark): (&[u8], &Mark),
        keys: u32,
        each: impl FnMut(&Item<'_>),
        now: Now,
    ) -> Sorted {
        if self.has_retired_much() {
            self.quiesce();
        }
        let sorted = Sorted::default();
        let mut deleter = Deleter { one: self, prefix, mark, left: keys, sorted, each };
        self.walk(cursor, now, &mut deleter);
        deleter.sorted
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::base::metrics::{Metric, Registry};
    use crate::store::tests::{NOW, get, set, table};

    /// Deletes all of a prefix, a few keys at a time; `between` happens after each step.
    fn delete(
        one: &mut Participant,
        prefix: &[u8],
        mark: &Mark,
        mut between: impl FnMut(&mut Participant),
    ) -> u32 {
        let (mut cursor, mut deleted) = (Cursor::default(), 0);
        while !one.table().is_at_end(&cursor) {
            let mut shown = 0;
            let what = (prefix, mark);
            let sorted = one.delete_by_prefix(&mut cursor, what, 100, |_| shown += 1, NOW);
            assert!(sorted.seen <= 100 && sorted.deleted == shown);
            deleted += sorted.deleted;
            one.quiesce();
            between(one);
        }
        deleted
    }

    #[test]
    fn what_begins_right_goes_and_what_comes_later_stays() {
        let (table, registry) = (table(16 << 20, true), Registry::default());
        let mut one = table.participant(registry.counters("one"));
        let key = |name: &str, number: u32| format!("{name}:{number}").into_bytes();
        for number in 0..5000 {
            ["user", "users", "use"]
                .iter()
                .for_each(|name| set(&mut one, &key(name, number), b"old"));
        }
        let has = |one: &Participant, name, number| get(one, &key(name, number)).is_some();
        let mark = table.mark();
        set(&mut one, &key("user", 7), b"new");
        set(&mut one, &key("user", 9999), b"new");
        let mut number = 0;
        let deleted = delete(&mut one, b"user:", &mark, |one| {
            // What is asked for moves, and what is stored again is another one.
            number += 10;
            has(one, "user", number);
            set(one, &key("user", 10_000 + number), b"new");
            set(one, &key("user", 4999), b"new");
        });
        let stays = |number: &u32| [7, 4999, 9999].contains(number);
        assert!((0..5000).filter(|number| !stays(number)).all(|each| !has(&one, "user", each)));
        assert!([7, 4999, 9999].into_iter().all(|each| has(&one, "user", each)));
        assert!((1..=number / 10).all(|each| has(&one, "user", 10_000 + each * 10)));
        assert!((0..5000).all(|each| has(&one, "users", each) && has(&one, "use", each)));
        // 4999 may have been seen before it was stored again.
        assert!((4998..=4999).contains(&deleted), "{deleted}");
        let left = registry.sum(Metric::CurrItems);
        assert_eq!(delete(&mut one, b"nobody", &table.mark(), |_| {}), 0);
        assert_eq!(registry.sum(Metric::CurrItems), left);
        assert_eq!(u64::from(delete(&mut one, b"u", &table.mark(), |_| {})), left);
        assert_eq!((registry.sum(Metric::CurrItems), registry.sum(Metric::Bytes)), (0, 0));
    }

    /// An item moves from the log to its class while it is looked at: it is the same still.
    #[test]
    fn what_moves_meanwhile_goes_all_the_same() {
        let (table, registry) = (table(2 << 20, true), Registry::default());
        let mut one = table.participant(registry.counters("one"));
        let mut two = table.participant(registry.counters("two"));
        for number in 0..3000u32 {
            set(&mut one, format!("user:{number}").as_bytes(), &[1; 200]);
            get(&one, format!("user:{number}").as_bytes());
        }
        one.quiesce();
        let (mark, promoted) = (table.mark(), registry.sum(Metric::Promoted));
        two.offline();
        let mut other = 0u32;
        delete(&mut one, b"user:", &mark, |one| {
            one.offline();
            two.online();
            for _ in 0..100 {
                other += 1;
                set(&mut two, format!("other:{other}").as_bytes(), &[1; 200]);
            }
            two.offline();
            one.online();
        });
        assert!(registry.sum(Metric::Promoted) > promoted, "some have moved");
        assert!((0..3000u32).all(|each| get(&one, format!("user:{each}").as_bytes()).is_none()));
    }
}
