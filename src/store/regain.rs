//! Where nothing may be evicted: pages with nothing left in them go back to the pool, for whoever
//! needs one and would be refused.
//!
//! A class keeps its pages, so that who takes and frees slots does not ask the pool each time. Who
//! finds no page takes one back of which all slots are free, of any class. When there is none, it
//! looks for items that have expired or been flushed, as the sweep does, but at once, and goes on
//! where the search stood: a part of a page in each step, so that being refused stays cheap. When
//! it finds none either, what is left in the emptiest page of a class moves to its other pages, if
//! they have slots for all of it.

use super::arena::{Keep, Ref, State};
use super::pages::Holder;
use super::participant::Participant;
use super::slabs::ClassGuard;
use crate::base::clock::Now;
use crate::base::metrics::Metric;
use crate::base::sync::atomic::{AtomicU64, Ordering};

/// Slots that one step looks at, about.
const STEP_SLOTS: u32 = 1024;

/// Items that one step moves.
const STEP_MOVES: u32 = 256;
/// A larger item is not moved, because its class is locked meanwhile.
const MOVED_BYTES_MAX: u64 = 1 << 20;

/// Where the search for what is dead stands: a page, and a slot of it.
#[derive(Debug, Default)]
pub(in crate::store) struct Search(AtomicU64);

impl Search {
    fn get(&self) -> (u32, u32) {
        // Relaxed, here and below: a guess; whoever searches beside us looks at the same.
        let [a, b, c, d, e, f, g, h] = self.0.load(Ordering::Relaxed).to_le_bytes();
        (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
    }

    fn set(&self, (page, slot): (u32, u32)) {
        self.0.store(u64::from(page) | (u64::from(slot) << 32), Ordering::Relaxed);
    }
}

impl Participant {
    /// Puts a page back into the pool, or lets go of dead items, or moves some off a page, so that
    /// slots and pages become free after grace. False when it has found none of that to do.
    #[cold]
    pub(in crate::store) fn regain(&self, now: Now) -> bool {
        self.put_empty_page_back() || self.bury_some(now) || self.gather_some()
    }

    fn put_empty_page_back(&self) -> bool {
        let is_put_back = self.any_with_a_free_page(|guard| guard.put_empty_page_back());
        self.counters.add(Metric::SlabsMoved, is_put_back.into());
        is_put_back
    }

    /// Tries it with each class that has as many free slots as a page, until one says that it did.
    fn any_with_a_free_page(&self, mut try_it: impl FnMut(&mut ClassGuard<'_>) -> bool) -> bool {
        let slabs = &self.table.slabs;
        let per_page = |class| u64::from(slabs.sizes().slots_per_page(class));
        slabs
            .standings()
            .filter(|each| each.free >= per_page(each.class))
            .any(|each| try_it(&mut slabs.lock(&self.table.arena, each.class)))
    }

    /// Moves a few items off the emptiest page of a class. False when there are none to move.
    fn gather_some(&self) -> bool {
        self.any_with_a_free_page(|guard| {
            let Some(number) = guard.emptiest_page() else { return false };
            let (mut index, mut moved) = (0, 0);
            while let Some(at) = guard.slot_of(number, index)
                && moved < STEP_MOVES
                && !self.has_retired_much()
            {
                moved += u32::from(self.move_off(guard, number, at));
                index += 1;
            }
            moved > 0
        })
    }

    /// Moves the item of a slot to other pages than this one.
    fn move_off(&self, guard: &mut ClassGuard<'_>, number: u32, at: Ref) -> bool {
        let arena = &self.table.arena;
        let at = match arena.look(at).state() {
            State::Live => at,
            State::Fragment => arena.head_of(at),
            State::Free | State::Reserved | State::Retired | State::Hole | State::FragmentHole => {
                return false;
            }
        };
        let word = arena.look(at);
        if word.state() != State::Live {
            return false;
        }
        let item = arena.item(at, Keep::by(guard));
        if item.item_bytes() > MOVED_BYTES_MAX {
            return false;
        }
        let slots = item.runs().count().max(1);
        let Some(slots) = guard.take_beside(number, slots) else { return false };
        self.move_within(guard, at, slots, word.heat());
        true
    }

    /// Looks for dead items up to the end of the first page that has any. False when it has not
    /// come to one.
    fn bury_some(&self, now: Now) -> bool {
        let table = &self.table;
        let pages = &table.slabs.pages;
        let (mut number, mut slot) = table.search.get();
        let (mut looked_at, mut buried, mut is_over) = (0, 0, false);
        for _ in 0..=pages.count() {
            if number == 0 || number > pages.count() {
                (number, slot) = (1, 0);
            }
            let page = pages.page(number);
            let may_have = page.has_expired(now) || table.has_flushed_items();
            while let Holder::Class(class) = page.holder()
                && may_have
                && !is_over
            {
                let Some(swept) = self.sweep_slots((number, class), slot, now) else { break };
                looked_at += swept.next - slot;
                slot = swept.next;
                buried += swept.buried;
                is_over = looked_at >= STEP_SLOTS || self.has_retired_much();
            }
            if is_over {
                break;
            }
            (number, slot) = (number + 1, 0);
            if buried > 0 {
                break;
            }
        }
        table.search.set((number, slot));
        buried > 0
    }
}
