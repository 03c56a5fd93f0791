//! Values that are sent from where they are, and what that costs others.
//!
//! ```text
//!   Item ---span_all---> Span --> an output --> the kernel --> give_back
//!     +--pin--> Pin --span_of--^     each holds the whole item
//! ```
//!
//! An item that is being sent cannot be evicted, and what pieces of it share pages with stays with
//! it. So all of them together may keep a part of the memory and no more, `may_pin`: a peer that
//! reads slowly must not keep others from storing. Of that, what has left the index meanwhile is of
//! no use to anybody but slow peers, and may be half as much: `outdated_excess_bytes` says by how
//! much it is more.
//!
//! What is pinned is counted by the item: when its first pin is taken, and when its last one is
//! taken back, by whoever does that. A thread tells what it has counted when it looks at nothing,
//! or when it is much: all together may go too far by a part of what may be pinned, and each by the
//! last item.

use super::arena::{Item, Pin, Released, Taken};
use super::epochs::Padded;
use super::participant::Participant;
use super::table::Table;
use crate::base::metrics::Metric;
use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::sys::region::Span;

/// The part of the memory that may be pinned, with the pages that pieces of items lie in. Replies
/// that wait in blocks may be a tenth and more; what else there is is for items that come and go.
const PINNED_SHARE: u64 = 8;
/// The part of the memory that may be kept for peers alone.
const OUTDATED_SHARE: u64 = 16;
/// Threads that have counted this part of it, shared among all, tell it at once.
const UNTOLD_SHARE: u64 = 8;

/// What is pinned in a table.
#[derive(Debug)]
pub(in crate::store) struct Pinned {
    /// Bytes as threads have told them; less than 0, wrapped, while who has pinned has not.
    bytes: Padded<AtomicU64>,
    bytes_max: AtomicU64,
    untold_max: AtomicU64,
    evict: bool,
    threads: u64,
}

impl Pinned {
    /// Of a table of so much memory, in which items make room for others or do not: then it keeps
    /// nobody from anything to pin them.
    pub fn new(memory_bytes: u64, evict: bool, threads: u64) -> Pinned {
        let pinned = Pinned {
            bytes: Padded(AtomicU64::new(0)),
            bytes_max: AtomicU64::new(0),
            untold_max: AtomicU64::new(0),
            evict,
            threads: threads.max(1),
        };
        pinned.set_memory(memory_bytes);
        pinned
    }

    /// The table may take so much memory from now on.
    pub fn set_memory(&self, bytes: u64) {
        let bytes_max = if self.evict { bytes / PINNED_SHARE } else { i64::MAX.cast_unsigned() };
        // Relaxed, as where they are read: bounds by themselves.
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
        self.untold_max.store(bytes_max / UNTOLD_SHARE / self.threads, Ordering::Relaxed);
    }

    fn bytes_max(&self) -> u64 {
        self.bytes_max.load(Ordering::Relaxed)
    }

    fn bytes(&self) -> i64 {
        // Relaxed: a sum to go by.
        self.bytes.0.load(Ordering::Relaxed).cast_signed()
    }

    /// True when no more is pinned than may be, with so much beside what was told.
    fn is_below(&self, untold: i64) -> bool {
        self.bytes() + untold < self.bytes_max().cast_signed()
    }
}

impl Table {
    /// The last pin of a retired item was taken back.
    pub(in crate::store) fn note_unpin(&self) {
        // Release: who sees it counted sees it taken back.
        self.unpins.fetch_add(1, Ordering::Release);
    }

    /// Bytes of items that have left the index, and stay for those who are being sent them.
    pub fn outdated_bytes(&self) -> u64 {
        self.epochs.pinned_bytes() + self.orphans.lock().pinned_bytes()
    }

    /// Bytes by which that is more than it should be.
    pub fn outdated_excess_bytes(&self) -> u64 {
        self.outdated_bytes().saturating_sub(self.limit_bytes() / OUTDATED_SHARE)
    }

    /// Bytes by which it is even more than all that is being sent should be.
    pub fn outdated_flood_bytes(&self) -> u64 {
        self.outdated_bytes().saturating_sub(self.limit_bytes() / PINNED_SHARE)
    }

    /// Bytes that are kept from being evicted because they are being sent, with the pages that they
    /// keep.
    pub fn pinned_bytes(&self) -> u64 {
        self.pinned.bytes().max(0).cast_unsigned()
    }

    /// Most bytes that should be.
    #[cfg(test)]
    pub fn pinned_bytes_max(&self) -> u64 {
        self.pinned.bytes_max()
    }

    /// Of one thread, so many peers wait now until less is pinned, and so many did before.
    pub fn tell_spanless(&self, before: usize, now: usize) {
        // Relaxed: a hint, as what is read of it.
        self.spanless.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }

    /// How many peers wait until less is pinned.
    pub fn spanless(&self) -> usize {
        self.spanless.load(Ordering::Relaxed)
    }

    /// Bytes that are pinned, if nobody counts any just now.
    #[cfg(test)]
    pub fn pinned_balance(&self) -> i64 {
        self.pinned.bytes()
    }

    /// What an item keeps while it is pinned. The log gives its pages up as a whole.
    fn kept_by_pins(&self, item_bytes: u64, in_log: bool) -> i64 {
        let page_bytes = if in_log { self.slabs.pages.page_bytes() as u64 } else { 0 };
        (item_bytes + page_bytes).cast_signed()
    }
}

impl Participant {
    /// True when an item may be sent from where it is: it is pinned already, or may be.
    pub fn may_pin(&self, item: &Item<'_>) -> bool {
        item.is_pinned() || self.table.pinned.is_below(self.pinned.get()) || self.may_pin_more()
    }

    /// True while no more is pinned than may be. Whoever asks meanwhile is told the same: what this
    /// thread alone knows does not count.
    pub fn may_pin_more(&self) -> bool {
        self.tell_pinned();
        self.table.pinned.is_below(0)
    }

    #[inline]
    pub(in crate::store) fn tell_pinned(&self) {
        let untold = self.pinned.take();
        if untold != 0 {
            // Relaxed: a sum to go by. It wraps where more was taken back.
            self.table.pinned.bytes.0.fetch_add(untold.cast_unsigned(), Ordering::Relaxed);
        }
    }

    fn count_pinned(&self, bytes: i64) {
        let untold = self.pinned.get() + bytes;
        self.pinned.set(untold);
        if untold.unsigned_abs() > self.table.pinned.untold_max.load(Ordering::Relaxed) {
            self.tell_pinned();
        }
    }

    /// Keeps an item readable beyond `quiesce`. `None` when it has too many pins already. Where
    /// that is for long, `may_pin` says whether it may be.
    pub fn pin(&self, item: &Item<'_>) -> Option<Pin> {
        let (pin, taken) = self.table.arena.pin(item)?;
        self.note_pin(item, taken);
        Some(pin)
    }

    fn note_pin(&self, item: &Item<'_>, taken: Taken) {
        if taken == Taken::First {
            let in_log = !item.word0().is_main();
            self.count_pinned(self.table.kept_by_pins(item.item_bytes(), in_log));
        }
    }

    fn note_release(&self, released: Released) {
        let Released::Last { retired, bytes, in_log } = released else { return };
        self.count_pinned(-self.table.kept_by_pins(bytes, in_log));
        if retired {
            self.table.note_unpin();
        }
    }

    /// Gives a pin back.
    ///
    /// # Panics
    /// If the pin is of another table.
    pub fn unpin(&mut self, pin: Pin) {
        self.note_release(self.table.arena.unpin(pin));
    }

    /// All of an item's value, which stays as it is until `give_back`. `None` when it does not lie
    /// in one piece, or too many are being sent it: then it can be copied.
    pub fn span_all(&self, item: &Item<'_>) -> Option<Span> {
        let (span, taken) = self.table.arena.span_all(item)?;
        self.note_pin(item, taken);
        Some(self.count_span(span))
    }

    /// The next contiguous bytes of a pinned value from `offset` on, which stay as they are until
    /// `give_back`, whatever becomes of the pin.
    ///
    /// # Panics
    /// If the pin is of another table.
    pub fn span_of(&self, pin: &Pin, offset: usize) -> Option<Span> {
        self.table.arena.span_of(pin, offset).map(|span| self.count_span(span))
    }

    fn count_span(&self, span: Span) -> Span {
        self.counters.bump(Metric::Spans);
        self.counters.add(Metric::SpannedBytes, span.len() as u64);
        span
    }

    /// Takes back what was spanned.
    ///
    /// # Panics
    /// If another table spanned it.
    pub fn give_back(&self, span: Span) {
        self.note_release(self.table.arena.give_back(span));
    }

    /// Bytes of the value that a span is of, if its item has left the index, and 0 otherwise.
    pub fn outdated_bytes(&self, span: &Span) -> usize {
        self.table.arena.outdated_bytes(span)
    }

    /// As `outdated_bytes`, of a pin.
    pub fn outdated_bytes_of(&self, pin: &Pin) -> usize {
        if self.table.arena.is_outdated(pin) { pin.value_bytes() } else { 0 }
    }
}
