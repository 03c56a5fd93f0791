//! Size classes at work: which slots are free, and where the CLOCK hand stands.
//!
//! Invariants, for whoever holds the lock of a class: the free slots of its pages are those that
//! `take` may hand out, and `free` counts them; a page is in `partial` exactly while it has one; a
//! page that drains is in no list, and goes to the pool with its last slot. A page that is empty
//! otherwise stays until somebody takes it out.

use super::Favor;
use super::arena::{Arena, Keeper, Reclaimable, Ref, Slot, State};
use super::epochs::Epochs;
use super::pages::{Holder, Pages};
use super::sizes::Sizes;
use crate::base::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use crate::base::sync::{Mutex, MutexGuard};

/// A class that was granted more pages than it has taken gets no more.
const GRANTS_MAX: u32 = 2;

/// More slots than this nobody takes within one grace period.
const RESERVE_MAX: u64 = 32;

/// What the lock of a class guards.
#[derive(Debug, Default)]
struct Slab {
    /// In the order in which the hand goes round.
    pages: Vec<u32>,
    partial: Vec<u32>,
    free: u64,
    /// Where the hand stands: an index into `pages`, and a slot.
    hand: (usize, u32),
    /// Slots evicted since the class last asked whether another makes less of its pages.
    churn: u32,
    /// Slots to be kept free, so that nobody waits for grace.
    reserve: u64,
    /// Pages that were taken from others for this class, and that it may take from the pool.
    grants: u32,
    /// A page that is being emptied, and the slot at which that stands.
    departing: Option<(u32, u32)>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Class {
    slab: Mutex<Slab>,
    /// Copies of what `slab` knows, for who compares classes without their locks.
    pages: AtomicU32,
    free: AtomicU64,
    /// Useful touches: hits on items that were cold, and stores of keys that had just gone.
    value: AtomicU64,
    is_departing: AtomicBool,
}

#[derive(Debug)]
pub(in crate::store) struct Slabs {
    sizes: Sizes,
    pub pages: Pages,
    classes: Box<[Class]>,
    /// What a touch of each class counts for.
    weights: Box<[u32]>,
    /// Classes of which a page is on its way out.
    departing: AtomicU32,
    /// Gets since the values last faded.
    requests: AtomicU64,
    /// Of all classes, and of the log; negative for as long as who took an item out has said so
    /// before the one who put it in.
    items: AtomicI64,
}

/// A class as others see it.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Standing {
    pub class: u8,
    pub pages: u32,
    pub free: u64,
    pub value: u64,
    /// True when one of its pages is on its way out.
    pub is_departing: bool,
}

impl Slabs {
    pub fn new(page_bytes: usize, pages: u32, favor: Favor) -> Slabs {
        let sizes = Sizes::new(page_bytes);
        let classes = (0..sizes.classes()).map(|_| Class::default()).collect();
        let class = |class| u8::try_from(class).expect("at most 128 classes");
        let weight = |each| favor.weight(sizes.slot_bytes(class(each)));
        Slabs {
            weights: (0..sizes.classes()).map(weight).collect(),
            sizes,
            pages: Pages::new(page_bytes, pages),
            classes,
            departing: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            items: AtomicI64::new(0),
        }
    }

    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    pub fn lock<'s>(&'s self, arena: &'s Arena, class: u8) -> ClassGuard<'s> {
        let slab = self.classes[usize::from(class)].slab.lock();
        ClassGuard { slabs: self, arena, class, slab }
    }

    /// Counts useful touches of a class.
    pub fn count_touches(&self, class: usize, touches: u64) {
        let value = touches * u64::from(self.weights[class]);
        self.classes[class].value.fetch_add(value, Ordering::Relaxed);
    }

    /// Counts requests, and items that came, or went if they are negative; after one request for
    /// each item the past counts for half.
    pub fn count_requests(&self, requests: u64, items: i64) {
        let items = self.items.fetch_add(items, Ordering::Relaxed) + items;
        let sum = self.requests.fetch_add(requests, Ordering::Relaxed) + requests;
        let is_due = sum > items.max(0).cast_unsigned();
        if is_due && self.requests.swap(0, Ordering::Relaxed) >= sum {
            for class in &self.classes {
                // Others may be at it, too: what is taken off is half of what is there.
                let half = |value: u64| Some(value - value / 2);
                let _ = class.value.fetch_update(Ordering::Relaxed, Ordering::Relaxed, half);
            }
        }
    }

    /// Items as far as they have been counted.
    #[cfg(test)]
    #[cfg(not(loom))]
    pub fn items(&self) -> i64 {
        self.items.load(Ordering::Relaxed)
    }

    pub fn standing(&self, class: u8) -> Standing {
        let each = &self.classes[usize::from(class)];
        Standing {
            class,
            pages: each.pages.load(Ordering::Relaxed),
            free: each.free.load(Ordering::Relaxed),
            value: each.value.load(Ordering::Relaxed),
            is_departing: each.is_departing.load(Ordering::Relaxed),
        }
    }

    /// True when a page is on its way out of its class.
    pub fn is_departing(&self) -> bool {
        self.departing.load(Ordering::Relaxed) > 0
    }

    /// True when no class has a page.
    pub fn has_no_pages(&self) -> bool {
        self.classes.iter().all(|each| each.pages.load(Ordering::Relaxed) == 0)
    }

    pub fn standings(&self) -> impl Iterator<Item = Standing> {
        (0..self.classes.len())
            .map(|class| self.standing(u8::try_from(class).expect("at most 128 classes")))
    }

    /// Bytes that this structure takes beside the pages.
    pub fn bytes(&self) -> usize {
        self.classes.len() * size_of::<Class>() + self.pages.bytes()
    }
}

/// A class, locked. While it lives, no slot of the class becomes free but through it.
#[derive(Debug)]
pub(in crate::store) struct ClassGuard<'s> {
    slabs: &'s Slabs,
    arena: &'s Arena,
    class: u8,
    slab: MutexGuard<'s, Slab>,
}

impl Keeper for ClassGuard<'_> {}

impl ClassGuard<'_> {
    fn slots_per_page(&self) -> u32 {
        self.slabs.sizes.slots_per_page(self.class)
    }

    fn slot(&self, page: u32, index: u32) -> Ref {
        let offset = index as usize * self.slabs.sizes.slot_bytes(self.class);
        Ref::from_offset(self.slabs.pages.start_of(page) + offset)
    }

    fn count_free(&mut self, free: u64) {
        self.slab.free = free;
        self.slabs.classes[usize::from(self.class)].free.store(free, Ordering::Relaxed);
    }

    fn count_pages(&self) {
        let pages = u32::try_from(self.slab.pages.len()).expect("fewer than 2^32 pages");
        self.slabs.classes[usize::from(self.class)].pages.store(pages, Ordering::Relaxed);
    }

    /// Takes a free slot, if there is one.
    pub fn take(&mut self) -> Option<Slot> {
        let number = *self.slab.partial.last()?;
        let page = self.slabs.pages.page(number);
        let free = page.free();
        let slot = if free == Ref::NONE {
            let index = page.bump();
            page.set_bump(index + 1);
            self.arena.claim_first(self.slot(number, index))
        } else {
            page.set_free(self.arena.free_link(free));
            self.arena.claim(free)
        };
        page.set_used(page.used() + 1);
        if page.used() == self.slots_per_page() {
            self.slab.partial.pop();
        }
        self.count_free(self.slab.free - 1);
        Some(slot)
    }

    /// Frees all slots of an item of this class.
    pub fn put(&mut self, item: Reclaimable) {
        let arena = self.arena;
        arena.release(item, |at| self.put_slot(at));
    }

    fn put_slot(&mut self, at: Ref) {
        let number = self.slabs.pages.number_of(at);
        let page = self.slabs.pages.page(number);
        assert!(page.holder() == Holder::Class(self.class));
        page.set_used(page.used() - 1);
        if page.is_draining() {
            if page.used() == 0 {
                self.slabs.pages.put(number);
            }
            return;
        }
        self.arena.set_free_link(at, page.free());
        page.set_free(at);
        if page.used() + 1 == self.slots_per_page() {
            self.slab.partial.push(number);
        }
        self.count_free(self.slab.free + 1);
    }

    /// Adds a page from the pool.
    pub fn add_page(&mut self, number: u32) {
        self.slabs.pages.page(number).begin(self.class);
        self.slabs.pages.page(number).see(self.slabs.pages.second());
        self.slab.grants = self.slab.grants.saturating_sub(1);
        self.slab.pages.push(number);
        self.slab.partial.push(number);
        self.count_pages();
        self.count_free(self.slab.free + u64::from(self.slots_per_page()));
    }

    /// Moves the CLOCK hand by one slot, and names the slot it stood at.
    pub fn advance_hand(&mut self) -> Option<Ref> {
        // To leave a page is a step, and so is to begin anew: the page it stands at is met last.
        for _ in 0..self.slab.pages.len() + 2 {
            let (index, slot) = self.slab.hand;
            let Some(&number) = self.slab.pages.get(index) else {
                self.slab.hand = (0, 0);
                continue;
            };
            if slot == 0 {
                self.slabs.pages.page(number).see(self.slabs.pages.second());
            }
            if slot < self.slabs.pages.page(number).bump() {
                self.slab.hand.1 += 1;
                return Some(self.slot(number, slot));
            }
            self.slab.hand = (index + 1, 0);
        }
        None
    }

    /// When what the hand meets next was seen to; `None` when there are no pages.
    pub fn seen_s(&self) -> Option<u32> {
        let (index, _) = self.slab.hand;
        let number = self.slab.pages.get(index + 1).or_else(|| self.slab.pages.first())?;
        Some(self.slabs.pages.page(*number).seen_s())
    }

    pub fn count_evicted(&mut self, slots: u32) {
        self.slab.churn = self.slab.churn.saturating_add(slots);
    }

    /// True when a quarter of a page has been evicted since this was last true.
    pub fn is_check_due(&mut self) -> bool {
        let is_due = self.slab.churn >= self.slots_per_page().div_ceil(4);
        if is_due {
            self.slab.churn = 0;
        }
        is_due
    }

    /// The class may take one more page from the pool, where it is or will soon be.
    pub fn grant_page(&mut self) {
        self.slab.grants = (self.slab.grants + 1).min(GRANTS_MAX);
    }

    pub fn has_grant(&self) -> bool {
        self.slab.grants > 0
    }

    pub fn free(&self) -> u64 {
        self.slab.free
    }

    /// How many free slots the class has too few.
    pub fn missing(&self) -> u64 {
        self.slab.reserve.saturating_sub(self.slab.free)
    }

    /// Somebody had to wait: keeps more slots free from now on. Returns how many.
    pub fn raise_reserve(&mut self) -> u64 {
        let slots = self.slab.pages.len() as u64 * u64::from(self.slots_per_page());
        self.slab.reserve = (self.slab.reserve * 2).max(4).min(slots / 64).min(RESERVE_MAX);
        self.slab.reserve
    }

    /// Takes a page from the class of which nothing is being filled or sent: the emptiest, or if
    /// there is little free anywhere, the next one under the hand. It drains: the caller lets go of
    /// the items in the slots that `departing` names. False when there is none.
    pub fn detach_page(&mut self) -> bool {
        if self.slab.departing.is_some() {
            return true;
        }
        let Some(index) = self.spare_page() else { return false };
        let number = self.leave_page(index);
        let page = self.slabs.pages.page(number);
        page.set_draining();
        // It is not free before the last slot has been named.
        page.set_used(page.used() + 1);
        self.set_departing(Some((number, 0)));
        true
    }

    /// Takes a page, by its index, out of the lists of the class.
    fn leave_page(&mut self, index: usize) -> u32 {
        let number = self.slab.pages.remove(index);
        let (page, slot) = self.slab.hand;
        self.slab.hand = match index.cmp(&page) {
            std::cmp::Ordering::Less => (page - 1, slot),
            std::cmp::Ordering::Equal => (page, 0),
            std::cmp::Ordering::Greater => (page, slot),
        };
        self.slab.partial.retain(|other| *other != number);
        let used = self.slabs.pages.page(number).used();
        self.count_pages();
        self.count_free(self.slab.free - u64::from(self.slots_per_page() - used));
        number
    }

    /// Puts a page of which all slots are free back into the pool. False when there is none.
    pub fn put_empty_page_back(&mut self) -> bool {
        let pages = &self.slabs.pages;
        let is_empty = |number: &u32| pages.page(*number).used() == 0;
        let Some(index) = self.slab.pages.iter().position(is_empty) else { return false };
        let number = self.leave_page(index);
        pages.put(number);
        true
    }

    /// The page that has least in it, but something, and from now on is the last of which slots are
    /// taken.
    pub fn emptiest_page(&mut self) -> Option<u32> {
        let used = |number: &u32| self.slabs.pages.page(*number).used();
        let in_use = self.slab.pages.iter().copied().filter(|number| used(number) > 0);
        let number = in_use.min_by_key(used)?;
        if let Some(index) = self.slab.partial.iter().position(|other| *other == number) {
            self.slab.partial.remove(index);
            self.slab.partial.insert(0, number);
        }
        Some(number)
    }

    /// Takes so many free slots, if pages other than the one that `emptiest_page` has named have
    /// them.
    pub fn take_beside(&mut self, number: u32, count: usize) -> Option<(Slot, Vec<Slot>)> {
        let here = self.slots_per_page() - self.slabs.pages.page(number).used();
        if self.slab.free < u64::from(here) + count as u64 {
            return None;
        }
        let first = self.take()?;
        Some((first, (1..count).filter_map(|_| self.take()).collect()))
    }

    fn set_departing(&mut self, departing: Option<(u32, u32)>) {
        self.slab.departing = departing;
        let is_departing = &self.slabs.classes[usize::from(self.class)].is_departing;
        let was = is_departing.swap(departing.is_some(), Ordering::Relaxed);
        match (was, departing.is_some()) {
            (false, true) => self.slabs.departing.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.slabs.departing.fetch_sub(1, Ordering::Relaxed),
            (true, true) | (false, false) => 0,
        };
    }

    /// The next slot that is not free of the page that leaves; `None` when it has been emptied, or
    /// there is no such page.
    pub fn departing(&mut self, epochs: &Epochs) -> Option<Ref> {
        let (number, mut index) = self.slab.departing?;
        let page = self.slabs.pages.page(number);
        while index < page.bump() {
            let at = self.slot(number, index);
            index += 1;
            if self.arena.look(at).state() != State::Free {
                self.set_departing(Some((number, index)));
                return Some(at);
            }
        }
        self.set_departing(None);
        self.slabs.pages.expect(number, epochs);
        page.set_used(page.used() - 1);
        if page.used() == 0 {
            self.slabs.pages.put(number);
        }
        None
    }

    /// The page that the class can do without best, as an index into its list.
    fn spare_page(&self) -> Option<usize> {
        let len = self.slab.pages.len();
        let is_movable = |index: &usize| {
            self.slots_of(self.slab.pages[*index]).all(|at| self.arena.is_movable(at))
        };
        if self.slab.free >= u64::from(self.slots_per_page() / 4) {
            let used = |index: &usize| self.slabs.pages.page(self.slab.pages[*index]).used();
            let emptiest = (0..len).min_by_key(used).filter(is_movable);
            if emptiest.is_some() {
                return emptiest;
            }
        }
        let start = self.slab.hand.0;
        (0..len).map(|step| (start + step) % len).find(is_movable)
    }

    /// A slot of a page of this class, if it has one of that number and was ever used.
    pub fn slot_of(&self, number: u32, index: u32) -> Option<Ref> {
        let page = self.slabs.pages.page(number);
        let is_mine = page.holder() == Holder::Class(self.class) && !page.is_draining();
        (is_mine && index < page.bump()).then(|| self.slot(number, index))
    }

    fn slots_of(&self, number: u32) -> impl Iterator<Item = Ref> {
        let bump = self.slabs.pages.page(number).bump();
        (0..bump).map(move |index| self.slot(number, index))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::base::metrics::Registry;
    use crate::store::tests::{set, table};

    #[test]
    fn the_hand_comes_round_where_there_is_one_page() {
        let (table, registry) = (table(1 << 20, false), Registry::default());
        let mut one = table.participant(registry.counters("one"));
        (0..3u8).for_each(|key| set(&mut one, &[key], &[1; 100]));
        let standing = table.slabs.standings().find(|each| each.pages > 0).unwrap();
        assert_eq!(standing.pages, 1);
        let mut guard = table.slabs.lock(&table.arena, standing.class);
        let met: Vec<_> = (0..7).map(|_| guard.advance_hand()).collect();
        assert!(met.iter().all(Option::is_some), "{met:?}");
        assert!(met[0] == met[3] && met[3] == met[6], "{met:?}");
    }
}
