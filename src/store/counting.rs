//! What a thread counts of the items that it meets, by size class.
//!
//! An item counts for the class of its size wherever it lies: in the log, in a slot of that class,
//! or where there was room. It is hot in the log, and in a class of slots warm while it has heat,
//! and cold without.

use super::Refusal;
use super::arena::{Item, ItemHead, Retired, Word0};
use super::participant::Participant;
use super::sizes::{SHORT_UNITS, units};
use super::{Condition, Outcome};
use crate::base::by_size::{OfSize, SizeClass};
use crate::base::clock::{Expiry, Now};
use crate::base::metrics::Metric;

impl Participant {
    /// The class for which an item counts.
    #[inline(always)]
    pub(in crate::store) fn class_of(&self, item: &Item<'_>) -> SizeClass {
        self.class_for(super::arena::to_usize(item.item_bytes()))
    }

    /// The class for which an item of so many bytes counts.
    #[inline(always)]
    pub(in crate::store) fn class_for(&self, bytes: usize) -> SizeClass {
        match self.short.get(units(bytes)) {
            Some(class) => *class,
            None => self.table.slabs.sizes().counted_as(bytes),
        }
    }

    #[inline]
    pub(in crate::store) fn count_of(&self, item: &Item<'_>, what: OfSize) {
        self.counters.add_of_size(self.class_of(item), what, 1);
    }

    /// Counts a `get` that has found an item.
    pub fn count_hit(&self, item: &Item<'_>) {
        self.counters.count_hit(self.class_of(item), item.word0().warmth());
    }

    /// As `count_hit`, for an item whose value lies in one piece, of so many bytes; fewer than
    /// 15 KiB.
    #[inline(always)]
    pub fn count_short_hit(&self, item: &Item<'_>, value_bytes: usize) {
        let class = self.class_for_short(item.head_bytes() + value_bytes);
        self.counters.count_hit(class, item.word0().warmth());
    }

    /// As `class_for`, for fewer than 16 KiB.
    #[inline(always)]
    pub(in crate::store) fn class_for_short(&self, bytes: usize) -> SizeClass {
        debug_assert!(units(bytes) < SHORT_UNITS);
        // The remainder is what it was; that there are no units beyond need not be asked.
        self.short[units(bytes) % SHORT_UNITS]
    }

    /// Counts a storage command for a value that may not have come yet; `put` does so itself.
    pub fn count_set(&self, head: &ItemHead<'_>) {
        let class = self.class_for(head.bytes(false) + head.value_bytes);
        self.counters.add_of_size(class, OfSize::CmdSet, 1);
    }

    /// Counts what a condition on the cas has come to, by the item that was there.
    #[inline]
    pub(in crate::store) fn count_cas(
        &self,
        condition: Condition,
        there: Option<Item<'_>>,
        outcome: Outcome,
    ) {
        let (Condition::Cas(_), Some(item)) = (condition, there) else { return };
        match outcome {
            Outcome::Stored => self.count_of(&item, OfSize::CasHits),
            Outcome::Exists => self.count_of(&item, OfSize::CasBadval),
            Outcome::NotStored | Outcome::NotFound | Outcome::NoMemory => {}
        }
    }

    /// Counts an item of so many bytes that has come to the index, and to where `came` says.
    /// Whether there is one more than before, the caller counts.
    #[inline]
    pub(in crate::store) fn count_stored(&self, class: SizeClass, bytes: u64, came: OfSize) {
        self.counters.add_of_size(class, OfSize::Bytes, bytes);
        self.counters.add_of_size(class, came, 1);
    }

    /// As `count_stored`, for one that may lie in a class of slots, as warm as `heat` says.
    pub(in crate::store) fn count_linked(&self, bytes: u64, is_main: bool, heat: u64) {
        let class = self.class_for(super::arena::to_usize(bytes));
        let came = if is_main { OfSize::CameMain } else { OfSize::CameLog };
        self.count_items(1);
        self.count_stored(class, bytes, came);
        self.counters.add_of_size(class, OfSize::Warm, (is_main && heat > 0).into());
    }

    /// Counts an item that left the index with this header, and lets it wait for grace.
    #[inline]
    pub(in crate::store) fn lay_out(&self, gone: (Retired, Word0), item: &Item<'_>) {
        let (retired, word) = gone;
        let bytes = item.item_bytes();
        self.count_gone(word, self.class_for(super::arena::to_usize(bytes)), bytes);
        self.limbo.borrow_mut().push(retired, bytes);
        self.count_items(-1);
    }

    /// As `lay_out`, for an item in whose place one of this class and of so many bytes has come to
    /// the log.
    #[inline]
    pub(in crate::store) fn lay_out_replaced(
        &self,
        gone: (Retired, Word0),
        item: &Item<'_>,
        (class, bytes): (SizeClass, usize),
    ) {
        let (retired, word) = gone;
        let (bytes, old_bytes) = (bytes as u64, item.item_bytes());
        let old_class = self.class_for(super::arena::to_usize(old_bytes));
        if !word.is_main() && old_class == class {
            self.counters.add_of_size(class, OfSize::Bytes, bytes.wrapping_sub(old_bytes));
            self.counters.add_of_size(class, OfSize::Replaced, 1);
        } else {
            self.count_gone(word, old_class, old_bytes);
            self.count_stored(class, bytes, OfSize::CameLog);
        }
        self.limbo.borrow_mut().push(retired, old_bytes);
    }

    /// Counts an item of so many bytes that left the index with this header.
    fn count_gone(&self, word: Word0, class: SizeClass, bytes: u64) {
        self.counters.sub_of_size(class, OfSize::Bytes, bytes);
        if word.is_main() {
            self.counters.add_of_size(class, OfSize::WentMain, 1);
            self.counters.sub_of_size(class, OfSize::Warm, word.is_warm().into());
        } else {
            self.counters.add_of_size(class, OfSize::WentLog, 1);
        }
    }

    /// Counts an item that made room, whose header was `word` in the end.
    pub(in crate::store) fn count_eviction(&self, item: &Item<'_>, word: Word0, now: Now) {
        let class = self.class_of(item);
        let count = |what| self.counters.add_of_size(class, what, 1);
        if self.table.is_dead(item, word, now) {
            count(OfSize::Reclaimed);
            if !word.is_fetched() {
                count(OfSize::ExpiredUnfetched);
            }
            return;
        }
        count(OfSize::Evicted);
        if !word.is_fetched() {
            count(OfSize::EvictedUnfetched);
        }
        if word.expiry() != Expiry::NEVER {
            count(OfSize::EvictedNonzero);
        }
        let age_s = self.table.slabs.pages.page_of(item.at()).age_s(now);
        self.counters.note_eviction(class, now.ticks, age_s);
    }

    /// Counts an item that the hand has cooled down, whose header was `word` before.
    pub(in crate::store) fn count_cooled(&self, item: &Item<'_>, word: Word0) {
        let class = self.class_of(item);
        if word.heat() == 1 {
            self.counters.add_of_size(class, OfSize::Cooled, 1);
            self.counters.sub_of_size(class, OfSize::Warm, 1);
        } else {
            self.counters.add_of_size(class, OfSize::CooledALittle, 1);
        }
    }

    /// Counts an item of a class of slots that was cold, and was asked for.
    pub(in crate::store) fn count_warmed(&self, item: &Item<'_>) {
        let class = self.class_of(item);
        self.counters.add_of_size(class, OfSize::Warmed, 1);
        self.counters.add_of_size(class, OfSize::Warm, 1);
    }

    /// Counts an item of the log that was copied: to a class of slots, where it is cold, or to the
    /// end of the log.
    pub(in crate::store) fn count_moved(&self, item: &Item<'_>, how: OfSize) {
        let class = self.class_of(item);
        self.counters.add_of_size(class, how, 1);
        if how == OfSize::Promoted {
            self.counters.add_of_size(class, OfSize::WentLog, 1);
            self.counters.add_of_size(class, OfSize::CameMain, 1);
        }
    }

    /// Counts an item that was copied out of a page which leaves its class. Its header was `word`
    /// in the end, and the copy is as warm as `heat` says.
    pub(in crate::store) fn count_rescued(&self, item: &Item<'_>, word: Word0, heat: u64) {
        let class = self.class_of(item);
        self.counters.bump(Metric::SlabReassignRescues);
        self.counters.add_of_size(class, OfSize::Kept, 1);
        self.counters.sub_of_size(class, OfSize::Warm, word.is_warm().into());
        self.counters.add_of_size(class, OfSize::Warm, (heat > 0).into());
    }

    /// Counts what it took to get memory for an item, and that there was none.
    pub(in crate::store) fn count_efforts(&self, head: &ItemHead<'_>, refused: Option<&Refusal>) {
        if self.efforts.get() > 0 || refused.is_some() {
            self.count_efforts_of(head.bytes(false) + head.value_bytes, refused);
        }
    }

    /// As `count_efforts`, for memory that an item of several slots needs beside what it has.
    pub(in crate::store) fn count_efforts_for_more(&self, refused: Option<&Refusal>) {
        if self.efforts.get() > 0 || refused.is_some() {
            self.count_efforts_of(self.table.item_bytes_max, refused);
        }
    }

    #[cold]
    fn count_efforts_of(&self, bytes: usize, refused: Option<&Refusal>) {
        let class = self.class_for(bytes);
        self.counters.add_of_size(class, OfSize::DirectReclaims, self.efforts.take());
        if refused == Some(&Refusal::NoMemory) {
            self.counters.add_of_size(class, OfSize::OutOfMemory, 1);
        }
    }
}
