//! Pages that are lent: memory of the table in which others keep what they must.
//!
//! ```text
//!   page pool <--take_back-- Loan <--lend-- page pool, or stock <--restock-- keeper
//! ```
//!
//! What connections need comes out of the same memory as items and index, so one limit bounds all
//! of it. `lend` never waits: when the pool is empty it takes from a stock, which one thread, the
//! keeper, fills again by letting go of items. All loans together have a limit of their own, so
//! that connections cannot push the items out.

use std::sync::OnceLock;
use std::thread::Thread;

use super::log::KEPT;
use super::participant::Participant;
use super::table::Table;
use crate::base::clock::Now;
use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use crate::sys::region::Loan;

/// Loans take a tenth of the memory within these bounds, but never more than a quarter.
const BYTES_MIN: u64 = 16 << 20;
const BYTES_MAX: u64 = 1 << 30;

/// What the stock holds where items make room for others.
const STOCK_BYTES: u64 = 512 << 10;

/// The stock's part of the limit where items make no room: nothing could fill it again.
const STOCK_SHARE: u32 = 4;

/// Debited pages are used again when there are this part too many of them, and more than one.
const CREDIT_SHARE: u32 = 8;

/// So many debited pages are given to the system again each time: it keeps a part of a huge page
/// that it cannot split at the moment, and may make new huge pages by itself.
const AGAIN: usize = 16;

/// Where the system refuses, as for locked memory, the page is out of use all the same.
pub(in crate::store) fn give_to_system(loan: &mut Loan) {
    let _ = loan.empty();
}

/// Bytes that may be lent of so much memory, unless the operator says how many.
pub fn lendable_bytes(memory_bytes: u64, wanted: Option<u64>) -> u64 {
    let usual = (memory_bytes / 10).clamp(BYTES_MIN, BYTES_MAX).min(memory_bytes / 4);
    wanted.map_or(usual, |wanted| wanted.min(memory_bytes / 2))
}

/// Most pages that may be lent of so many bytes.
fn limit(memory_bytes: u64, wanted_bytes: Option<u64>, page_bytes: u64) -> u32 {
    let bytes = lendable_bytes(memory_bytes, wanted_bytes);
    u32::try_from(bytes / page_bytes).unwrap_or(u32::MAX).max(1)
}

#[derive(Debug)]
pub(in crate::store) struct Loans {
    /// Most pages that may be lent.
    limit: AtomicU32,
    /// Bytes that the operator wants to be lendable, if he does.
    wanted_bytes: Option<u64>,
    page_bytes: u64,
    lent: AtomicU32,
    /// Pages that were taken out of the pool, and may be lent.
    stock: Mutex<Vec<u32>>,
    /// It holds no more than so many.
    stock_max: u32,
    /// True from when the stock was found wanting until the keeper looks.
    is_short: AtomicBool,
    keeper: OnceLock<Thread>,
    /// Pages whose memory was given back to the system: those that are debited, and those that
    /// the limit withholds.
    debits: Mutex<Debits>,
    debited: AtomicU32,
}

#[derive(Debug, Default)]
struct Debits {
    loans: Vec<Loan>,
    /// Huge pages when the loans were emptied last: a new one may have filled some of them.
    huge_pages: usize,
    /// The loan that was emptied last.
    next: usize,
}

impl Loans {
    /// For a table of so many bytes, of which `wanted_bytes` may be lent, if that is known.
    pub fn new(
        memory_bytes: u64,
        wanted_bytes: Option<u64>,
        page_bytes: u64,
        evict: bool,
    ) -> Loans {
        let ahead = u32::try_from(STOCK_BYTES.div_ceil(page_bytes)).unwrap_or(u32::MAX);
        Loans {
            limit: AtomicU32::new(limit(memory_bytes, wanted_bytes, page_bytes)),
            wanted_bytes,
            page_bytes,
            lent: AtomicU32::new(0),
            stock: Mutex::new(Vec::new()),
            stock_max: if evict { ahead } else { u32::MAX },
            is_short: AtomicBool::new(false),
            keeper: OnceLock::new(),
            debits: Mutex::new(Debits::default()),
            debited: AtomicU32::new(0),
        }
    }

    /// Most pages that may be lent.
    pub fn limit(&self) -> u32 {
        // Relaxed, here and below: numbers by themselves.
        self.limit.load(Ordering::Relaxed)
    }

    /// The table has so many bytes from now on.
    pub fn set_limit(&self, memory_bytes: u64) {
        let limit = limit(memory_bytes, self.wanted_bytes, self.page_bytes);
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Keeps a page that is empty, so that nobody uses it.
    pub fn keep_out_of_use(&self, loan: Loan) {
        self.debits.lock().loans.push(loan);
    }

    /// Takes one of the pages that nobody uses.
    pub fn take_out_of_use(&self) -> Option<Loan> {
        self.debits.lock().loans.pop()
    }

    /// Pages whose memory is in use elsewhere.
    pub fn debited(&self) -> u32 {
        self.debited.load(Ordering::Relaxed)
    }

    /// Pages that may be lent beside those that are.
    fn lendable(&self) -> u32 {
        let taken = self.lent.load(Ordering::Relaxed) + self.debited();
        self.limit().saturating_sub(taken)
    }

    /// Pages that are lent, or kept for that.
    pub fn pages(&self) -> u32 {
        // Relaxed: a figure.
        self.lent.load(Ordering::Relaxed) + self.stocked()
    }

    fn stocked(&self) -> u32 {
        u32::try_from(self.stock.lock().len()).expect("fewer than 2^32 pages")
    }

    /// How many the stock should hold.
    fn stock_wanted(&self) -> u32 {
        (self.limit() / STOCK_SHARE).max(1).min(self.stock_max)
    }

    /// How many pages the stock lacks. What may not be lent need not be kept.
    fn missing(&self) -> u32 {
        self.stock_wanted().min(self.lendable()).saturating_sub(self.stocked())
    }

    fn call_keeper(&self) {
        // Relaxed: the keeper looks at the stock under its lock.
        if let (Some(keeper), false) = (self.keeper.get(), self.is_short.load(Ordering::Relaxed)) {
            self.is_short.store(true, Ordering::Relaxed);
            keeper.unpark();
        }
    }
}

impl Table {
    /// Lends a page of memory, whose content is unspecified. `None` when as much is lent as may be,
    /// or when there is none just now: then the keeper has been told.
    pub fn lend(&self) -> Option<Loan> {
        let loans = &self.loans;
        // Relaxed: a count.
        let limit = loans.limit().saturating_sub(loans.debited());
        let one_more = |lent: u32| (lent < limit).then_some(lent + 1);
        loans.lent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        let kept = if self.evict { KEPT } else { 0 };
        let number = self.slabs.pages.take_for_others(kept).or_else(|| {
            let number = loans.stock.lock().pop();
            loans.call_keeper();
            number
        });
        let Some(number) = number else {
            loans.lent.fetch_sub(1, Ordering::Relaxed);
            return None;
        };
        let pages = &self.slabs.pages;
        Some(self.arena.lend(pages.start_of(number), pages.page_bytes()))
    }

    /// Takes a page back.
    ///
    /// # Panics
    /// If another table has lent it.
    pub fn take_back(&self, loan: Loan) {
        let (pages, number) = (&self.slabs.pages, self.page_number(&loan));
        let mut stock = self.loans.stock.lock();
        if stock.len() < self.loans.stock_wanted() as usize {
            stock.push(number);
        } else {
            pages.put_back(number);
        }
        drop(stock);
        self.loans.lent.fetch_sub(1, Ordering::Relaxed);
    }

    /// Puts pages of the stock back into the pool of which it holds too many, as the limit fell.
    pub(in crate::store) fn give_surplus_back(&self) {
        let wanted = self.loans.stock_wanted() as usize;
        let mut stock = self.loans.stock.lock();
        while stock.len() > wanted
            && let Some(number) = stock.pop()
        {
            self.slabs.pages.put_back(number);
        }
    }

    /// The number of the page that a loan is.
    pub(in crate::store) fn page_number(&self, loan: &Loan) -> u32 {
        let number = self.arena.offset_of(loan) / self.slabs.pages.page_bytes();
        u32::try_from(number).expect("fewer than 2^32 pages")
    }

    /// True when a page that begins among these bytes of the arena is out of use.
    pub(in crate::store) fn is_out_of_use(&self, start: usize, len: usize) -> bool {
        let is_there = |loan: &Loan| (start..start + len).contains(&self.arena.offset_of(loan));
        self.loans.debits.lock().loans.iter().any(is_there)
    }

    /// Bytes that may be lent beside those that are.
    pub fn lendable_bytes(&self) -> usize {
        self.loans.lendable() as usize * self.slabs.pages.page_bytes()
    }

    /// Bytes that are lent or debited beyond what may be lent.
    pub fn overdrawn_bytes(&self) -> usize {
        let taken = self.loans.lent.load(Ordering::Relaxed) + self.loans.debited();
        taken.saturating_sub(self.loans.limit()) as usize * self.slabs.pages.page_bytes()
    }

    /// Tells the keeper that more memory than before is in use elsewhere.
    pub fn call_keeper(&self) {
        self.loans.call_keeper();
    }

    /// Most bytes that may be lent.
    pub fn lendable_bytes_max(&self) -> usize {
        self.loans.limit() as usize * self.slabs.pages.page_bytes()
    }
}

impl Participant {
    /// Makes the calling thread the keeper: it is unparked when the stock runs short.
    pub fn keep_stock(&self) {
        let _ = self.table.loans.keeper.set(std::thread::current());
    }

    /// Takes pages out of use until they make up for `bytes` that are in use elsewhere; where that
    /// has become less, pages are used again, after `before_credit`. Not for every small change.
    pub fn settle(&mut self, bytes: u64, before_credit: impl FnOnce(), now: Now) {
        let page_bytes = self.table.slabs.pages.page_bytes() as u64;
        let wanted = u32::try_from(bytes.div_ceil(page_bytes)).unwrap_or(u32::MAX);
        let debited = self.table.loans.debited();
        if wanted > debited {
            self.debit(wanted - debited, now);
        } else if debited - wanted > (wanted / CREDIT_SHARE).max(1) {
            before_credit();
            self.credit(debited - wanted);
        }
        let huge_pages = self.table.huge_pages.load(Ordering::Relaxed);
        let mut debits = self.table.loans.debits.lock();
        let is_new = std::mem::replace(&mut debits.huge_pages, huge_pages) != huge_pages;
        let again = if is_new { debits.loans.len() } else { AGAIN.min(debits.loans.len()) };
        for _ in 0..again {
            debits.next = (debits.next + 1) % debits.loans.len();
            let next = debits.next;
            give_to_system(&mut debits.loans[next]);
        }
    }

    fn debit(&mut self, pages: u32, now: Now) {
        for _ in 0..pages {
            let number = self.take_page(now).or_else(|| self.table.loans.stock.lock().pop());
            let (Some(number), table) = (number, &self.table) else { return };
            let start = table.slabs.pages.start_of(number);
            let mut loan = table.arena.lend(start, table.slabs.pages.page_bytes());
            give_to_system(&mut loan);
            table.loans.keep_out_of_use(loan);
            table.loans.debited.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn credit(&mut self, pages: u32) {
        for _ in 0..pages {
            let Some(loan) = self.table.loans.take_out_of_use() else { return };
            // It counts as lent until it is back.
            self.table.loans.lent.fetch_add(1, Ordering::Relaxed);
            self.table.loans.debited.fetch_sub(1, Ordering::Relaxed);
            self.table.take_back(loan);
        }
    }

    /// Fills the stock as far as there is something to let go of, and says by how many pages.
    pub fn restock(&mut self, now: Now) -> u32 {
        self.table.loans.is_short.store(false, Ordering::Relaxed);
        let mut taken = 0;
        while self.table.loans.missing() > 0 {
            let Some(number) = self.take_page(now) else {
                // It is in vain to call: the keeper tries again by itself.
                self.table.loans.is_short.store(true, Ordering::Relaxed);
                break;
            };
            self.table.loans.stock.lock().push(number);
            taken += 1;
        }
        taken
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::base::metrics::Registry;
    use crate::store::Condition;
    use crate::store::tests::{NOW, get, set, store, table};

    const MIB: u64 = 1 << 20;

    #[test]
    fn loans_are_a_tenth_within_bounds_and_never_more_than_a_quarter() {
        let limit =
            |memory_bytes, page_bytes| Loans::new(memory_bytes, None, page_bytes, true).limit();
        assert_eq!(limit(MIB, 64 << 10), 4);
        assert_eq!(limit(64 * MIB, 64 << 10), 256);
        assert_eq!(limit(100 * MIB, 64 << 10), 256);
        assert_eq!(limit(1024 * MIB, 512 << 10), 204);
        assert_eq!(limit(64 << 30, 2 << 20), 512);
        assert_eq!(lendable_bytes(64 * MIB, Some(20 * MIB)), 20 * MIB);
        assert_eq!(lendable_bytes(64 * MIB, Some(33 * MIB)), 32 * MIB);
    }

    #[test]
    fn what_is_lent_is_bounded_and_comes_back() {
        let table = table(4 * MIB, true);
        let all = table.figures();
        let loans: Vec<_> = std::iter::from_fn(|| table.lend()).collect();
        assert_eq!(loans.len() as u64, table.lendable_bytes_max() as u64 / all.page_bytes);
        assert_eq!(table.lendable_bytes(), 0);
        let figures = table.figures();
        assert_eq!(figures.pages_lent, loans.len() as u64);
        assert_eq!(figures.pages_free + figures.pages_lent, all.pages_free);
        let mut places: Vec<_> = loans.iter().map(|l| table.arena.offset_of(l)).collect();
        places.dedup();
        assert_eq!(places.len(), loans.len());
        loans.into_iter().for_each(|loan| table.take_back(loan));
        let figures = table.figures();
        assert_eq!(figures.pages_free + figures.pages_lent, all.pages_free);
        assert_eq!(table.lendable_bytes(), table.lendable_bytes_max());
    }

    #[test]
    fn a_full_table_lends_what_the_keeper_has_put_by() {
        let registry = Registry::default();
        let table = table(4 * MIB, true);
        let mut one = table.participant(registry.counters("one"));
        let stocked = one.restock(NOW);
        assert!(stocked > 0);
        assert_eq!(table.figures().pages_lent, stocked.into());
        for key in 0..100_000u64 {
            set(&mut one, &key.to_le_bytes(), &[1; 100]);
            one.quiesce();
        }
        let mut loans: Vec<_> = std::iter::from_fn(|| table.lend()).collect();
        assert!(loans.len() >= stocked as usize, "{} pages", loans.len());
        for _ in 0..100 {
            one.restock(NOW);
            loans.extend(table.lend());
        }
        assert_eq!(table.lendable_bytes(), 0, "the keeper finds as many as may be lent");
        set(&mut one, b"newest", &[2; 100]);
        assert_eq!(get(&one, b"newest"), Some(vec![2; 100]));
        loans.into_iter().for_each(|loan| table.take_back(loan));
        let limit = table.loans.limit();
        assert!(table.figures().pages_free + u64::from(table.loans.stock_wanted()) >= limit.into());
    }

    #[test]
    fn what_is_used_elsewhere_is_debited_and_credited_later() {
        let registry = Registry::default();
        let table = table(4 * MIB, true);
        let mut one = table.participant(registry.counters("one"));
        for key in 0..100_000u64 {
            set(&mut one, &key.to_le_bytes(), &[1; 100]);
            one.quiesce();
        }
        let settle = |one: &mut Participant, bytes| {
            let mut credited = false;
            one.settle(bytes, || credited = true, NOW);
            (table.figures().pages_debited, credited)
        };
        let page_bytes = table.figures().page_bytes;
        let limit = table.lendable_bytes_max() as u64 / page_bytes;
        assert_eq!(settle(&mut one, 1), (1, false));
        assert_eq!(settle(&mut one, 8 * page_bytes - 9), (8, false));
        let left = (limit - 8) * page_bytes;
        assert_eq!(table.lendable_bytes() as u64, left);
        assert_eq!(table.overdrawn_bytes(), 0);
        assert_eq!(settle(&mut one, 7 * page_bytes - 9), (8, false), "a little less is no reason");
        let more = (limit + 1) * page_bytes;
        assert_eq!(settle(&mut one, more - 9), (limit + 1, false), "the truth has no limit");
        assert_eq!(table.overdrawn_bytes() as u64, page_bytes);
        assert!(table.lend().is_none());
        assert_eq!(settle(&mut one, 2 * page_bytes - 9), (2, true));
        assert_eq!(settle(&mut one, 0), (0, true));
        let figures = table.figures();
        assert!(figures.pages_free + figures.pages_lent >= 6, "{figures:?}");
        assert_eq!(table.lendable_bytes(), table.lendable_bytes_max());
        set(&mut one, b"newest", &[2; 100]);
    }

    #[test]
    fn a_table_that_lets_nothing_go_lends_what_it_has_kept() {
        let registry = Registry::default();
        let table = table(4 * MIB, false);
        let mut one = table.participant(registry.counters("one"));
        assert!(one.restock(NOW) > 0);
        let mut key = 0u64;
        while store(&mut one, &key.to_le_bytes(), &[1; 100], Condition::Always).is_ok() {
            key += 1;
        }
        let loan = table.lend().unwrap();
        let others = std::iter::from_fn(|| table.lend()).count();
        assert_eq!(one.restock(NOW), 0, "there is nothing to let go of");
        table.take_back(loan);
        assert!(table.lend().is_some(), "what comes back is kept");
        assert_eq!(others as u64 + 1, table.figures().pages_lent);
    }
}
