//! Where nothing may be evicted: pages with nothing left in them go back to the pool, for whoever
//! needs one and would be refused.
//!
//! A class keeps its pages, so that who takes and frees slots does not ask the pool each time. Who
//! finds no page takes one back of which all slots are free, of any class. When there is none, it
//! looks for items that have expired or been flushed, as the sweep does, but at once, and goes on
//! where the search stood: a part of a page in each step, so that being refused stays cheap.

use super::pages::Holder;
use super::participant::Participant;
use crate::base::clock::Now;
use crate::base::metrics::Metric;
use crate::base::sync::atomic::{AtomicU64, Ordering};

/// Slots that one step looks at, about.
const STEP_SLOTS: u32 = 1024;

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
    /// Puts a page back into the pool, or lets go of dead items, so that slots and pages become
    /// free after grace. False when it has found neither.
    #[cold]
    pub(in crate::store) fn regain(&self, now: Now) -> bool {
        self.put_empty_page_back() || self.bury_some(now)
    }

    fn put_empty_page_back(&self) -> bool {
        let slabs = &self.table.slabs;
        let per_page = |class| u64::from(slabs.sizes().slots_per_page(class));
        let is_put_back = slabs
            .standings()
            .filter(|each| each.free >= per_page(each.class))
            .any(|each| slabs.lock(&self.table.arena, each.class).put_empty_page_back());
        self.counters.add(Metric::SlabsMoved, is_put_back.into());
        is_put_back
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
