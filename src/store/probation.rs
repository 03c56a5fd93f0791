//! What becomes of the items of a page of the log that is emptied.
//!
//! ```text
//!   expired              -> unlinked
//!   untouched            -> unlinked; the ghost remembers the key for a while
//!   touched              -> copied to its size class, and to the end of the log if that is full
//!   untouched, in a page of which less than half is left -> copied to the end of the log
//!   stored again while the ghost remembers it -> its size class at once
//! ```

use super::arena::{Home, Item, ItemHead, Ref, Reservation, Shape};
use super::counting::Counted;
use super::evict::Step;
use super::log::{STEP_ITEMS, band};
use super::memory::Slots;
use super::participant::Participant;
use crate::base::by_size::OfSize;
use crate::base::clock::Now;
use crate::base::hash::KeyHash;

/// A larger item is not copied to a size class. It gets there when it is stored again.
const COPIED_BYTES_MAX: u64 = 1 << 20;
/// After so many pages of the log that gave nothing, a class must give one.
const PAGES_OF_LOG_MAX: u32 = 4;
/// Pages that were walked and could not be freed, after which one who needs a page gives up.
const WALKS_IN_VAIN_MAX: u32 = 64;

impl Participant {
    /// Does a bounded part of freeing a page of the log, or of the class that makes least of its
    /// pages, if the log has only its share.
    pub(in crate::store) fn free_page_step(&self, now: Now) -> Step {
        if !self.table.evict {
            return Step::Nothing;
        }
        let (first, second) = if self.is_log_first() { (true, false) } else { (false, true) };
        let step = |of_log| if of_log { self.walk_log(now) } else { self.steal_step(None, now) };
        match step(first) {
            Step::Nothing => step(second),
            step @ (Step::More | Step::InVain | Step::Page) => step,
        }
    }

    /// True when the log should give up a page, and not a class.
    fn is_log_first(&self) -> bool {
        let (log, slabs) = (&self.table.log, &self.table.slabs);
        let gives = log.has_sparse() || log.has_share(&slabs.pages);
        gives && !slabs.is_departing() || slabs.has_no_pages()
    }

    /// Frees a page, for who has tried so often before. False when there is nothing to let go of.
    pub(in crate::store) fn free_page(&self, tries: u32, now: Now) -> bool {
        if !self.table.evict {
            return self.regain(now);
        }
        // Items that are moved to their classes may take as many pages as they leave.
        let log_first = self.is_log_first() && tries < PAGES_OF_LOG_MAX;
        (log_first && self.free_page_of_log(now))
            || self.steal_page(None, now)
            || self.free_page_of_log(now)
    }

    /// Empties a page of the log. False when there is nothing to let go of.
    pub(in crate::store) fn free_page_of_log(&self, now: Now) -> bool {
        let mut in_vain = 0;
        while self.table.evict && in_vain < WALKS_IN_VAIN_MAX {
            if self.has_retired_much() {
                return true;
            }
            match self.walk_log(now) {
                Step::Nothing => return false,
                Step::More => {}
                Step::InVain => in_vain += 1,
                Step::Page => return true,
            }
        }
        false
    }

    /// Empties a few slots of a page of the log.
    fn walk_log(&self, now: Now) -> Step {
        let table = &self.table;
        let found = table.log.walk((&table.arena, &table.slabs.pages), &table.epochs);
        if !found.walked {
            return Step::Nothing;
        }
        let keep = self.keep();
        let mut hashes = [KeyHash(0); STEP_ITEMS];
        let found_items = || found.items.iter().flatten();
        for (at, hash) in found_items().zip(&mut hashes) {
            *hash = table.hash(table.arena.item(*at, keep).key());
            table.prefetch(*hash);
            table.prefetch_ghost(*hash);
        }
        for (at, hash) in found_items().zip(hashes) {
            self.leave_log(*at, hash, found.sparse, now);
        }
        match (found.ended, found.held) {
            (true, _) => Step::Page,
            (false, true) => Step::InVain,
            (false, false) => Step::More,
        }
    }

    fn leave_log(&self, at: Ref, hash: KeyHash, sparse: bool, now: Now) {
        let item = self.table.arena.item(at, self.keep());
        let is_dead = self.table.death(&item, hash, now).is_some();
        let is_warm = item.word0().heat() > 0;
        if !is_dead
            && (is_warm && self.promote(&item, hash, now)
                || sparse && self.keep_in_log(&item, hash, now))
        {
            return;
        }
        let gone = if is_dead {
            self.table.unlink(&item, hash)
        } else {
            self.table.unlink_to_ghost(&item, hash)
        };
        if let Some((retired, word)) = gone {
            self.count_eviction(&item, word, now);
            self.lay_out((retired, word), &item);
        }
    }

    /// Copies an item of the log to its size class; if there is no slot, to the end of the log.
    fn promote(&self, item: &Item<'_>, hash: KeyHash, now: Now) -> bool {
        if item.item_bytes() > COPIED_BYTES_MAX {
            return false;
        }
        let head = item.head(hash);
        let sizes = self.table.slabs.sizes();
        let shape = sizes.shape(&head);
        let Home::Class(class) = shape.home else { unreachable!() };
        if let Some(slots) = self.take_slots(class, shape.slots, now) {
            let copy = self.copy(item, &head, shape, slots);
            self.put_in_place_of(item, copy, (0, OfSize::Promoted));
            return true;
        }
        !shape.wide && self.keep_in_log(item, hash, now)
    }

    /// Copies an item of the log to the end of the log, if pages are left for that.
    fn keep_in_log(&self, item: &Item<'_>, hash: KeyHash, now: Now) -> bool {
        // Pieces on other pages move, too: more than half a page would not give a page.
        if item.item_bytes() > self.table.slabs.pages.page_bytes() as u64 * 9 / 16 {
            return false;
        }
        let head = item.head(hash);
        let Some(copy) = self.copy_to_log(item, &head, band(head.expiry, now)) else {
            return false;
        };
        // As warm as it was: a warm one is tried again.
        self.put_in_place_of(item, copy, (item.word0().heat(), OfSize::Kept));
        true
    }

    /// Puts a copy in the place of an item, unless that has gone. The copy is as warm as, and
    /// counts as what, the last argument says.
    fn put_in_place_of(&self, item: &Item<'_>, copy: Reservation, (heat, how): (u64, OfSize)) {
        let table = &self.table;
        table.note_expiry(copy.head(), item.expiry());
        let bytes = table.arena.draft(&copy).item_bytes();
        let is_main = matches!(copy.shape().home, Home::Class(_));
        match table.relink(item, copy, heat) {
            Ok(gone) => self.lay_out_moved(gone, item, Counted { bytes, is_main, heat }, how),
            Err(copy) => table.free(table.arena.discard(copy)),
        }
    }

    pub(in crate::store) fn copy(
        &self,
        item: &Item<'_>,
        head: &ItemHead<'_>,
        shape: Shape,
        (first, further): Slots,
    ) -> Reservation {
        let arena = &self.table.arena;
        let mut slots = further.into_iter();
        let mut copy = arena.start(first, head, shape);
        for mut run in item.runs() {
            while !run.is_empty() {
                if copy.wants_slot() {
                    arena.extend(&mut copy, slots.next().expect("as many as the shape says"));
                }
                run = &run[arena.fill(&mut copy, run)..];
            }
        }
        assert!(slots.next().is_none(), "no more than the shape says");
        copy
    }

    /// `None` when there are not enough pages.
    fn copy_to_log(&self, item: &Item<'_>, head: &ItemHead<'_>, band: u8) -> Option<Reservation> {
        let (table, arena) = (&self.table, &self.table.arena);
        let shape = table.slabs.sizes().logged_shape(head, band);
        // The pages that are kept are for this.
        let slot = self.append_to_log(head, shape, band, 0)?;
        let mut copy = arena.start(slot, head, shape);
        for mut run in item.runs() {
            while !run.is_empty() {
                if copy.wants_slot() && !arena.extend_ahead(&mut copy) {
                    let (memory, lane) = ((arena, &table.slabs.pages), self.section.cell);
                    let slots = table.log.append_fragments(memory, lane, &copy, band, 0);
                    let Some(slots) = slots else {
                        table.free(arena.discard(copy));
                        return None;
                    };
                    arena.extend_by(&mut copy, slots);
                }
                run = &run[arena.fill(&mut copy, run)..];
            }
        }
        Some(copy)
    }
}
