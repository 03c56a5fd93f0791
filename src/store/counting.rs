//! What a thread counts of the items that it meets, by size class.
//!
//! An item counts for the class of its size wherever it lies: in the log, in a slot of that class,
//! or where there was room. It is hot in the log, and in a class of slots warm while it has heat,
//! and cold without.
//!
//! A first hit, cooling down and letting go each change the header in one atomic step, so `Warm`
//! is exact: what was warmed before is seen in the last header, and nothing is warmed after it.

use super::arena::{Item, ItemHead, Retired, Word0, to_usize};
use super::participant::Participant;
use super::sizes::{SHORT_UNITS, units};
use super::{Condition, Refusal};
use crate::base::by_size::{OfSize, SizeClass};
use crate::base::clock::{Expiry, Now};

/// An item as it counts.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Counted {
    pub bytes: u64,
    pub is_main: bool,
    pub heat: u64,
}

impl Counted {
    /// An item whose header was `word` in the end.
    #[inline]
    fn gone(item: &Item<'_>, word: Word0) -> Counted {
        Counted { bytes: item.item_bytes(), is_main: word.is_main(), heat: word.heat() }
    }
}

impl Participant {
    /// The class for which an item counts.
    #[inline(always)]
    pub(in crate::store) fn size_of(&self, item: &Item<'_>) -> SizeClass {
        self.class_for(to_usize(item.item_bytes()))
    }

    /// The class for which an item of so many bytes counts.
    #[inline(always)]
    fn class_for(&self, bytes: usize) -> SizeClass {
        match self.short.get(units(bytes)) {
            Some(class) => *class,
            None => self.table.slabs.sizes().counted_as(bytes),
        }
    }

    /// As `class_for`, for fewer than 16 KiB.
    #[inline(always)]
    pub(in crate::store) fn class_for_short(&self, bytes: usize) -> SizeClass {
        debug_assert!(units(bytes) < SHORT_UNITS);
        // The remainder is what it was; that there are no units beyond need not be asked.
        self.short[units(bytes) % SHORT_UNITS]
    }

    /// Counts something of an item.
    #[inline]
    pub fn count_of(&self, item: &Item<'_>, what: OfSize) {
        self.counters.add_of_size(self.size_of(item), what, 1);
    }

    /// Counts a get that has found an item.
    #[inline(never)]
    pub fn count_hit(&self, item: &Item<'_>) {
        self.counters.count_hit(self.size_of(item), item.word0().warmth());
    }

    /// As `count_hit`, or a touch that has found an item.
    #[cold]
    pub fn count_found(&self, item: &Item<'_>, is_get: bool) {
        match is_get {
            true => self.count_hit(item),
            false => self.count_of(item, OfSize::TouchHits),
        }
    }

    /// As `count_hit`, for an item whose value lies in one piece of so many bytes; fewer than
    /// 15 KiB.
    #[inline(always)]
    pub fn count_short_hit(&self, item: &Item<'_>, value_bytes: usize) {
        let class = self.class_for_short(item.head_bytes() + value_bytes);
        self.counters.count_hit(class, item.word0().warmth());
    }

    /// Counts a request for an item that was not there, and was made for it: a touch, or a get.
    pub fn count_made(&self, head: &ItemHead<'_>, is_touch: bool) {
        let class = self.class_for(head.bytes(false));
        match is_touch {
            true => self.counters.add_of_size(class, OfSize::TouchHits, 1),
            // New items come to the log, without heat; and if not, are cold.
            false => self.counters.count_hit(class, 0),
        }
    }

    /// Counts a storage command for a value that may not have come yet; `put` does so itself.
    pub fn count_set(&self, head: &ItemHead<'_>) {
        let class = self.class_for(head.bytes(false) + head.value_bytes);
        self.counters.add_of_size(class, OfSize::CmdSet, 1);
    }

    /// Counts that the item which is there had not the cas that a peer wanted.
    #[cold]
    pub(in crate::store) fn count_bad_cas(&self, condition: Condition, there: Option<&Item<'_>>) {
        if let (Condition::Cas(_) | Condition::CasOrOlder(_), Some(item)) = (condition, there) {
            self.count_of(item, OfSize::CasBadval);
        }
    }

    /// Counts that the item which was there, and is replaced, had the cas that a peer wanted.
    #[cold]
    pub(in crate::store) fn count_good_cas(&self, condition: Condition, item: &Item<'_>) {
        if matches!(condition, Condition::Cas(_) | Condition::CasOrOlder(_)) {
            self.count_of(item, OfSize::CasHits);
        }
    }

    /// Counts an item that has come to the index.
    pub(in crate::store) fn count_stored(&self, new: Counted) {
        self.count_items(1);
        let class = self.count_come(new);
        self.counters.add_of_size(class, OfSize::Stored, 1);
    }

    /// Counts an item that was put in the log by a storage command, in the place of none.
    #[inline]
    pub(in crate::store) fn count_put(&self, class: SizeClass, bytes: usize) {
        self.count_items(1);
        self.counters.add_of_size(class, OfSize::Put, 1);
        self.counters.add_of_size(class, OfSize::InLog, 1);
        self.counters.add_of_size(class, OfSize::Bytes, bytes as u64);
    }

    /// Lets an item wait for grace in whose place one of this class and of so many bytes was put in
    /// the log by a storage command, and counts both.
    #[inline]
    pub(in crate::store) fn lay_out_for(
        &self,
        (class, bytes): (SizeClass, usize),
        (retired, word): (Retired, Word0),
        item: &Item<'_>,
    ) {
        let old = Counted::gone(item, word);
        self.counters.add_of_size(class, OfSize::Put, 1);
        // Most often one value takes the place of another of its kind: nothing else changes.
        if old.is_main || old.bytes != bytes as u64 {
            self.count_replaced(old, (class, bytes));
        }
        self.limbo.borrow_mut().push(retired, old.bytes);
    }

    #[inline(never)]
    fn count_replaced(&self, old: Counted, (class, bytes): (SizeClass, usize)) {
        self.count_gone(old);
        self.counters.add_of_size(class, OfSize::InLog, 1);
        self.counters.add_of_size(class, OfSize::Bytes, bytes as u64);
    }

    /// Counts an item that left the index with this header, and lets it wait for grace.
    #[inline]
    pub(in crate::store) fn lay_out(&self, (retired, word): (Retired, Word0), item: &Item<'_>) {
        let old = Counted::gone(item, word);
        self.count_gone(old);
        self.count_items(-1);
        self.limbo.borrow_mut().push(retired, old.bytes);
    }

    fn count_come(&self, new: Counted) -> SizeClass {
        let class = self.class_for(to_usize(new.bytes));
        let place = if new.is_main { OfSize::InMain } else { OfSize::InLog };
        self.counters.add_of_size(class, place, 1);
        self.counters.add_of_size(class, OfSize::Bytes, new.bytes);
        if new.is_main && new.heat > 0 {
            self.counters.add_of_size(class, OfSize::Warm, 1);
        }
        class
    }

    fn count_gone(&self, old: Counted) {
        let class = self.class_for(to_usize(old.bytes));
        let place = if old.is_main { OfSize::InMain } else { OfSize::InLog };
        self.counters.sub_of_size(class, place, 1);
        self.counters.sub_of_size(class, OfSize::Bytes, old.bytes);
        if old.is_main && old.heat > 0 {
            self.counters.sub_of_size(class, OfSize::Warm, 1);
        }
    }

    /// Counts an item that was copied, and lets it wait for grace: the copy is in its place.
    pub(in crate::store) fn lay_out_moved(
        &self,
        (retired, word): (Retired, Word0),
        item: &Item<'_>,
        copy: Counted,
        how: OfSize,
    ) {
        let old = Counted::gone(item, word);
        self.count_gone(old);
        let class = self.count_come(copy);
        self.counters.add_of_size(class, how, 1);
        self.limbo.borrow_mut().push(retired, old.bytes);
    }

    /// Counts an item that made room, whose header was `word` in the end.
    pub(in crate::store) fn count_eviction(&self, item: &Item<'_>, word: Word0, now: Now) {
        let class = self.size_of(item);
        let count_if = |is_so: bool, what| self.counters.add_of_size(class, what, is_so.into());
        if self.table.is_dead(item, word, now) {
            count_if(true, OfSize::Reclaimed);
            count_if(!word.is_fetched(), OfSize::ExpiredUnfetched);
            return;
        }
        if self.obituary.is_wanted() {
            self.note_eviction(item, word, now);
        }
        count_if(true, OfSize::Evicted);
        count_if(!word.is_fetched(), OfSize::EvictedUnfetched);
        count_if(word.expiry() != Expiry::NEVER, OfSize::EvictedNonzero);
        count_if(word.is_main() && word.heat() > 0, OfSize::EvictedActive);
        self.counters.note_eviction(class, now.ticks, self.table.idle_s(item, now));
    }

    /// Counts an item of a class of slots that has cooled down, whose header was `word` before.
    pub(in crate::store) fn count_cooled(&self, item: &Item<'_>, word: Word0) {
        if word.heat() == 1 {
            self.count_of(item, OfSize::Cooled);
            self.counters.sub_of_size(self.size_of(item), OfSize::Warm, 1);
        } else {
            self.count_of(item, OfSize::CooledALittle);
        }
    }

    /// Counts an item of a class of slots that was cold, and was asked for while it was there.
    pub(in crate::store) fn count_warmed(&self, item: &Item<'_>) {
        self.count_of(item, OfSize::Warmed);
        self.count_of(item, OfSize::Warm);
    }

    /// Counts what it took to get memory for an item of so many bytes, and that there was none.
    #[inline]
    pub(in crate::store) fn count_efforts(&self, bytes: usize, refusal: Option<Refusal>) {
        if self.efforts.get() > 0 || refusal.is_some() {
            self.count_efforts_of(bytes, refusal);
        }
    }

    #[cold]
    fn count_efforts_of(&self, bytes: usize, refusal: Option<Refusal>) {
        let class = self.class_for(bytes);
        self.counters.add_of_size(class, OfSize::DirectReclaims, self.efforts.take());
        if refusal == Some(Refusal::NoMemory) {
            self.counters.add_of_size(class, OfSize::OutOfMemory, 1);
        }
    }
}
