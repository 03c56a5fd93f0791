//! Huge pages for the arena: a look-up among millions of items then misses the TLB no more.
//!
//! ```text
//!   0 ............ fresh .... + AHEAD ............................ end of the arena
//!   | huge pages now ................|  not memory yet             |
//! ```
//!
//! The thread for upkeep goes ahead of the first use of each range, so that nobody waits for it,
//! and a range that is collapsed before it is filled costs no copy. A kernel that does not do it
//! leaves small pages, which serve as well.
//!
//! A range is left out in which a page is out of use: to make it huge is to take that from the
//! system again. While the limit falls there is none ahead that will not be taken out of use.

use std::io;

use super::table::Table;
use crate::base::sync::atomic::Ordering;
use crate::sys::region::HUGE_PAGE_BYTES;

/// Ranges that are huge pages before they are used: so many are filled while the thread rests.
const AHEAD: usize = 8;

impl Table {
    /// Makes the next huge page, if one is due. True when another may be due already.
    ///
    /// One thread calls this, from time to time.
    ///
    /// # Errors
    /// EINVAL where the kernel does not do it, now or later; anything else may pass.
    pub fn make_huge_page(&self) -> io::Result<bool> {
        let Some(next) = self.next_huge_range() else { return Ok(false) };
        let collapsed = self.arena.collapse(next)?;
        if collapsed {
            // Relaxed: one writer; readers want a figure.
            self.huge_next.store(next + 1, Ordering::Relaxed);
            self.huge_pages.fetch_add(1, Ordering::Relaxed);
        }
        Ok(collapsed)
    }

    /// The range that should become a huge page next, if one is due.
    fn next_huge_range(&self) -> Option<usize> {
        if self.is_limit_falling() {
            return None;
        }
        let fresh_bytes = self.slabs.pages.fresh_bytes();
        // Who looks at a range meanwhile waits for its copy: what is full already stays as it is.
        let next = self.huge_next.load(Ordering::Relaxed).max(fresh_bytes / HUGE_PAGE_BYTES);
        let end = fresh_bytes.div_ceil(HUGE_PAGE_BYTES) + AHEAD;
        (next..end).find(|range| !self.is_out_of_use(range * HUGE_PAGE_BYTES, HUGE_PAGE_BYTES))
    }
}

impl Table {
    /// Takes one range of the arena from the system, in a huge page if there is one. Says how many
    /// bytes it is, and whether it is huge; `None` when there is no range of that number.
    ///
    /// # Errors
    /// What the system says where there is no memory.
    pub fn populate(&self, range: usize) -> io::Result<Option<(usize, bool)>> {
        let is_huge = self.arena.collapse(range).unwrap_or(false);
        if is_huge {
            // Relaxed: a figure.
            self.huge_pages.fetch_add(1, Ordering::Relaxed);
            return Ok(Some((HUGE_PAGE_BYTES, true)));
        }
        let bytes = self.arena.populate(range)?;
        Ok((bytes > 0).then_some((bytes, false)))
    }

    /// Remembers that all ranges have been taken: none is left for upkeep.
    pub fn note_populated(&self) {
        self.huge_next.store(usize::MAX / HUGE_PAGE_BYTES, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom), not(miri)))]
mod tests {
    use std::sync::Arc;

    use super::HUGE_PAGE_BYTES;
    use crate::base::hash::KeyHasher;
    use crate::base::metrics::Registry;
    use crate::store::tests::NOW;
    use crate::store::{StorePlan, Table};

    fn table(memory_bytes: u64) -> Table {
        let opened = Table::open(StorePlan {
            favor: crate::store::Favor::Objects,
            memory_bytes,
            item_bytes_max: 1 << 20,
            evict: true,
            threads: 1,
            hasher: KeyHasher::with_seed(1),
            loan_bytes: None,
        });
        opened.expect("there is memory")
    }

    #[test]
    fn only_what_is_used_soon_becomes_huge() {
        let table = table(256 << 20);
        let mut made = 0;
        while table.make_huge_page().unwrap_or(false) {
            made += 1;
            assert!(made < 20, "more than the index of an empty table and a little ahead");
        }
        let huge_bytes = table.figures().huge_bytes;
        assert!(huge_bytes == 0 || huge_bytes == made << 21, "{huge_bytes}");
    }

    #[test]
    fn what_is_out_of_use_does_not_become_huge() {
        let (table, registry) = (Arc::new(table(256 << 20)), Registry::default());
        let mut one = table.participant(registry.counters("one"));
        assert!(table.next_huge_range().is_some() && table.set_limit(67 << 20));
        one.keep_limit(NOW);
        assert_eq!(table.next_huge_range(), None, "what is free now will be withheld");
        while one.keep_limit(NOW) {}
        let figures = table.figures();
        assert_eq!(figures.pages_debited * figures.page_bytes, 189 << 20);
        // Of pages that were never used the last was withheld last.
        let last = table.slabs.pages.fresh_bytes() - table.slabs.pages.page_bytes();
        let next = table.next_huge_range().unwrap();
        assert_eq!(next, last / HUGE_PAGE_BYTES + 1);
        one.settle(8 << 20, || (), NOW);
        let next = table.next_huge_range().unwrap();
        let last = table.slabs.pages.fresh_bytes() - table.slabs.pages.page_bytes();
        assert_eq!(next, last / HUGE_PAGE_BYTES + 1, "what is debited is out of use, too");
    }

    #[test]
    fn all_of_the_arena_is_populated_once() {
        let table = table(65 << 20);
        let (mut bytes, mut huge_bytes) = (0, 0);
        for range in 0.. {
            let Some((more, is_huge)) = table.populate(range).unwrap() else { break };
            bytes += more;
            huge_bytes += if is_huge { more } else { 0 };
        }
        let figures = table.figures();
        // One page lies before the first.
        assert_eq!(bytes as u64, figures.limit_bytes + figures.page_bytes);
        assert_eq!(huge_bytes as u64, table.figures().huge_bytes);
        table.note_populated();
        assert!(!table.make_huge_page().unwrap(), "none is left");
    }
}
