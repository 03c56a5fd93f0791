//! Size classes at work: which slots are free, and where the CLOCK hand stands.
//!
//! Invariants, for whoever holds the lock of a class: the free slots of its pages are those that
//! `take` may hand out, and `free` counts them; a page is in `partial` exactly while it has one; a
//! page that drains is in no list, and goes to the pool with its last slot.

use super::arena::{Arena, Keeper, Reclaimable, Ref, Slot, State};
use super::pages::Pages;
use super::sizes::Sizes;
use crate::base::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::base::sync::{Mutex, MutexGuard};

/// What the lock of a class guards.
#[derive(Debug, Default)]
struct Slab {
    /// In the order in which the hand goes round.
    pages: Vec<u32>,
    partial: Vec<u32>,
    free: u64,
    /// Where the hand stands: an index into `pages`, and a slot.
    hand: (usize, u32),
    /// Items evicted since the class last asked for a page in vain.
    churn: u32,
    /// Slots to be kept free, so that nobody waits for grace.
    reserve: u64,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Class {
    slab: Mutex<Slab>,
    /// Copies of what `slab` knows, for who compares classes without their locks.
    pages: AtomicU32,
    free: AtomicU64,
    /// Hits on items that were cold.
    first_hits: AtomicU64,
}

#[derive(Debug)]
pub(in crate::store) struct Slabs {
    sizes: Sizes,
    pub pages: Pages,
    classes: Box<[Class]>,
    /// How often a class has asked whether another makes less of its pages.
    checks: AtomicU32,
}

/// A class as others see it.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Standing {
    pub class: u8,
    pub pages: u32,
    pub free: u64,
    pub first_hits: u64,
}

impl Slabs {
    pub fn new(page_bytes: usize, pages: u32) -> Slabs {
        let sizes = Sizes::new(page_bytes);
        let classes = (0..sizes.classes()).map(|_| Class::default()).collect();
        Slabs { sizes, pages: Pages::new(page_bytes, pages), classes, checks: AtomicU32::new(0) }
    }

    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    pub fn lock<'s>(&'s self, arena: &'s Arena, class: u8) -> ClassGuard<'s> {
        let slab = self.classes[usize::from(class)].slab.lock();
        ClassGuard { slabs: self, arena, class, slab }
    }

    /// The class that a slot belongs to. The caller holds the slot, or what keeps it from moving.
    pub fn class_of(&self, at: Ref) -> u8 {
        self.pages.page_of(at).class()
    }

    pub fn count_first_hits(&self, class: usize, hits: u64) {
        self.classes[class].first_hits.fetch_add(hits, Ordering::Relaxed);
    }

    /// A class asks whether another makes less of its pages: it has evicted a quarter of a page.
    /// When that has happened for a quarter of all pages, the past counts for half.
    pub fn count_check(&self) {
        let checks = self.checks.fetch_add(1, Ordering::Relaxed);
        if checks % self.pages.count() == self.pages.count() - 1 {
            self.fade_first_hits();
        }
    }

    fn fade_first_hits(&self) {
        for class in &self.classes {
            let hits = class.first_hits.load(Ordering::Relaxed);
            class.first_hits.fetch_sub(hits / 2, Ordering::Relaxed);
        }
    }

    pub fn standing(&self, class: u8) -> Standing {
        let each = &self.classes[usize::from(class)];
        Standing {
            class,
            pages: each.pages.load(Ordering::Relaxed),
            free: each.free.load(Ordering::Relaxed),
            first_hits: each.first_hits.load(Ordering::Relaxed),
        }
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
        assert!(page.class() == self.class);
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
        self.slab.pages.push(number);
        self.slab.partial.push(number);
        self.count_pages();
        self.count_free(self.slab.free + u64::from(self.slots_per_page()));
    }

    /// Moves the CLOCK hand by one slot, and names the slot it stood at.
    pub fn advance_hand(&mut self) -> Option<Ref> {
        for _ in 0..=self.slab.pages.len() {
            let (index, slot) = self.slab.hand;
            let Some(&number) = self.slab.pages.get(index) else {
                self.slab.hand = (0, 0);
                continue;
            };
            if slot < self.slabs.pages.page(number).bump() {
                self.slab.hand.1 += 1;
                return Some(self.slot(number, slot));
            }
            self.slab.hand = (index + 1, 0);
        }
        None
    }

    pub fn churn(&mut self) -> &mut u32 {
        &mut self.slab.churn
    }

    /// How many free slots the class has too few.
    pub fn missing(&self) -> u64 {
        self.slab.reserve.saturating_sub(self.slab.free)
    }

    /// Somebody had to wait: keeps more slots free from now on. Returns how many.
    pub fn raise_reserve(&mut self) -> u64 {
        let slots = self.slab.pages.len() as u64 * u64::from(self.slots_per_page());
        self.slab.reserve = (self.slab.reserve * 2).max(4).min(slots / 32);
        self.slab.reserve
    }

    /// Takes a page from the class of which nothing is being filled or sent: the emptiest, or if
    /// there is little free anywhere, the next one under the hand. It drains: the caller lets go of
    /// the items whose slots are returned.
    pub fn detach_page(&mut self) -> Option<Vec<Ref>> {
        let start = self.slab.hand.0;
        let index = self.spare_page()?;
        let number = self.slab.pages.remove(index);
        self.slab.hand = (if index < start { start - 1 } else { start }, 0);
        self.slab.partial.retain(|other| *other != number);
        let page = self.slabs.pages.page(number);
        self.count_pages();
        self.count_free(self.slab.free - u64::from(self.slots_per_page() - page.used()));
        page.set_draining();
        if page.used() == 0 {
            self.slabs.pages.put(number);
            return Some(Vec::new());
        }
        let is_free = |at: &Ref| self.arena.look(*at).state() == State::Free;
        Some(self.slots_of(number).filter(|at| !is_free(at)).collect())
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

    fn slots_of(&self, number: u32) -> impl Iterator<Item = Ref> {
        let bump = self.slabs.pages.page(number).bump();
        (0..bump).map(move |index| self.slot(number, index))
    }
}
