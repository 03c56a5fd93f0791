//! The limit of the memory, moved while the server runs.
//!
//! ```text
//!   reserved at start |--------------------------------------------------|
//!   limit             |----- items, index, loans -----|---- withheld ----|
//! ```
//!
//! Below what was reserved, pages are withheld: the keeper takes them out of use, a few at a time,
//! letting go of items where it must, and gives their memory back to the system. Others store
//! meanwhile, into what is left: as much of it is kept for items as the limit has for them, for the
//! index shrinks only behind them. When the limit rises, the pages are of use again at once.

use super::loan::give_to_system;
use super::participant::Participant;
use super::table::Table;
use crate::base::clock::Now;
use crate::base::sync::atomic::{AtomicU32, Ordering};

/// So many pages are withheld at a time, before others may take some.
const PAGES_PER_STEP: u32 = 2;
/// Of the pages that the limit leaves, items have at least this part.
const ITEMS_SHARE: u32 = 4;
/// No limit is lower.
const PAGES_MIN: u32 = 16;

#[derive(Debug)]
pub(in crate::store) struct Limit {
    /// Pages that may be in use.
    pages: AtomicU32,
    /// Pages whose memory is with the system because others may not be.
    withheld: AtomicU32,
}

impl Limit {
    pub fn new(pages: u32) -> Limit {
        Limit { pages: AtomicU32::new(pages), withheld: AtomicU32::new(0) }
    }

    // Relaxed, here and below: numbers by themselves.
    pub fn pages(&self) -> u32 {
        self.pages.load(Ordering::Relaxed)
    }

    pub fn withheld(&self) -> u32 {
        self.withheld.load(Ordering::Relaxed)
    }
}

impl Table {
    /// Bytes that may be in use.
    pub fn limit_bytes(&self) -> u64 {
        u64::from(self.limit.pages()) * self.slabs.pages.page_bytes() as u64
    }

    /// Moves the limit, and tells the keeper. False, and nothing happens, when that is more than
    /// was reserved at start.
    #[must_use]
    pub fn set_limit(&self, bytes: u64) -> bool {
        let pages = &self.slabs.pages;
        let Ok(wanted) = u32::try_from(bytes / pages.page_bytes() as u64) else { return false };
        if wanted > pages.count() {
            return false;
        }
        self.limit.pages.store(wanted.max(PAGES_MIN), Ordering::Relaxed);
        self.loans.set_limit(self.limit_bytes());
        self.pinned.set_memory(self.limit_bytes());
        self.call_keeper();
        true
    }

    /// True while pages that are not withheld should be.
    pub(in crate::store) fn is_limit_falling(&self) -> bool {
        self.pages_to_withhold() > self.limit.withheld()
    }

    /// How many pages should be withheld just now.
    fn pages_to_withhold(&self) -> u32 {
        let (reserved, limit) = (self.slabs.pages.count(), self.limit.pages());
        let index_pages = self.slabs.pages.census().index_pages;
        let others = index_pages + self.loans.pages() + self.loans.debited();
        (reserved - limit).min(reserved.saturating_sub(others + limit / ITEMS_SHARE))
    }
}

impl Participant {
    /// Does a part of what it takes to keep to the limit. True when there is more to do at once.
    pub fn keep_limit(&mut self, now: Now) -> bool {
        self.table.give_surplus_back();
        let wanted = self.table.pages_to_withhold();
        let withheld = self.table.limit.withheld();
        for _ in wanted..withheld {
            self.release_page();
        }
        for _ in withheld..wanted.min(withheld.saturating_add(PAGES_PER_STEP)) {
            let Some(number) = self.take_page_if_any(now) else { return false };
            let table = &self.table;
            let start = table.slabs.pages.start_of(number);
            let mut loan = table.arena.lend(start, table.slabs.pages.page_bytes());
            give_to_system(&mut loan);
            table.loans.keep_out_of_use(loan);
            table.limit.withheld.fetch_add(1, Ordering::Relaxed);
        }
        self.table.limit.withheld() < wanted
    }

    /// Lets a page that was withheld be of use again.
    fn release_page(&self) {
        let table = &self.table;
        if let Some(loan) = table.loans.take_out_of_use() {
            table.limit.withheld.fetch_sub(1, Ordering::Relaxed);
            table.slabs.pages.put_back(table.page_number(&loan));
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::base::metrics::{Metric, Registry};
    use crate::store::Condition;
    use crate::store::tests::{NOW, get, set, store, table};

    const MIB: u64 = 1 << 20;

    /// Keeps to the limit, as keeper and upkeep do, while somebody stores. Both are offline in
    /// between, so that neither waits for the other on the one thread that there is.
    fn settle(
        one: &mut Participant,
        other: &mut Participant,
        mut each: impl FnMut(&mut Participant),
    ) {
        let table = std::sync::Arc::clone(one.table());
        for round in 0..20_000 {
            one.online();
            let has_more = one.keep_limit(NOW);
            one.offline();
            other.online();
            each(other);
            let has_tended = other.tend_index(64);
            other.offline();
            let wanted = u64::from(table.slabs.pages.count() - table.limit.pages());
            if !has_more && !has_tended && table.figures().pages_debited == wanted {
                assert!(round > 0);
                return;
            }
        }
        panic!("{:?}", table.figures());
    }

    #[test]
    fn the_limit_falls_and_rises_and_nothing_is_refused() {
        let (table, registry) = (table(16 * MIB, true), Registry::default());
        let [mut one, mut two] =
            ["one", "two"].map(|name| table.participant(registry.counters(name)));
        let mut key = 0u64;
        let mut put = |two: &mut Participant| {
            for _ in 0..50 {
                key += 1;
                let stored = store(two, &key.to_le_bytes(), &[1; 100], Condition::Always);
                assert!(stored.is_ok_and(|outcome| outcome.is_stored()));
                assert_eq!(get(two, &key.to_le_bytes()), Some(vec![1; 100]), "the newest is there");
            }
        };
        one.offline();
        for _ in 0..4000 {
            put(&mut two);
            two.quiesce();
        }
        two.offline();
        let before = registry.sum(Metric::CurrItems);
        assert!(
            table.set_limit(4 * MIB) && !table.set_limit(16 * MIB + table.figures().page_bytes)
        );
        assert_eq!((table.limit_bytes(), table.figures().limit_bytes), (4 * MIB, 4 * MIB));
        settle(&mut one, &mut two, &mut put);
        let figures = table.figures();
        assert_eq!(figures.pages_debited * figures.page_bytes, 12 * MIB, "{figures:?}");
        assert!(registry.sum(Metric::CurrItems) < before / 3);
        assert!(table.lendable_bytes_max() as u64 <= MIB);
        assert!(table.set_limit(16 * MIB));
        one.online();
        assert!(!one.keep_limit(NOW));
        let figures = table.figures();
        assert_eq!((figures.pages_debited, figures.limit_bytes), (0, 16 * MIB));
        assert!(figures.pages_free * figures.page_bytes > 11 * MIB, "{figures:?}");
        one.offline();
        two.online();
        for _ in 0..4000 {
            put(&mut two);
            two.quiesce();
        }
        assert!(registry.sum(Metric::CurrItems) > before * 9 / 10);
        assert_eq!(registry.sum(Metric::StoreNoMemory), 0);
    }

    #[test]
    fn where_nothing_goes_what_is_free_is_withheld_and_what_becomes_free() {
        let (table, registry) = (table(16 * MIB, false), Registry::default());
        let mut one = table.participant(registry.counters("one"));
        let keys = 0..80_000u64;
        keys.clone().for_each(|key| set(&mut one, &key.to_le_bytes(), &[1; 100]));
        assert!(table.set_limit(4 * MIB));
        while one.keep_limit(NOW) {}
        let figures = table.figures();
        assert!(figures.pages_free == 0 && figures.pages_debited > 0, "{figures:?}");
        assert!({ keys }.all(|key| get(&one, &key.to_le_bytes()).is_some()));
        let refused = store(&mut one, b"new", &[1; 100_000], Condition::Always);
        assert_eq!(refused, Err(crate::store::Refusal::NoMemory));
        assert_eq!(registry.sum(Metric::Evictions), 0);
        assert!(table.set_limit(16 * MIB));
        assert!(!one.keep_limit(NOW));
        set(&mut one, b"new", &[1; 100_000]);
    }

    /// The stock is a part of what may be lent, and that becomes less, too.
    #[test]
    fn a_limit_that_falls_far_takes_the_stock_along() {
        let (table, registry) = (table(16 * MIB, false), Registry::default());
        let mut one = table.participant(registry.counters("one"));
        let stocked = one.restock(NOW);
        assert!(u64::from(stocked) * table.figures().page_bytes == MIB);
        let loan = table.lend().unwrap();
        assert!(table.set_limit(MIB));
        let mut keep = || {
            for _ in 0..1000 {
                one.keep_limit(NOW);
                one.restock(NOW);
            }
            table.figures()
        };
        let figures = keep();
        assert_eq!(figures.pages_debited * figures.page_bytes, 15 * MIB, "{figures:?}");
        table.take_back(loan);
        let figures = keep();
        assert!(figures.pages_lent * figures.page_bytes <= MIB / 16, "{figures:?}");
        assert!(table.set_limit(16 * MIB));
        let figures = keep();
        assert_eq!((figures.pages_lent, figures.pages_debited), (stocked.into(), 0));
    }
}
