//! Values that are sent from where they are, and what that costs others.
//!
//! ```text
//!   Item ---span_all---> Span --> an output --> the kernel --> give_back
//!     +--pin--> Pin --span_of--^     each holds the whole item
//! ```
//!
//! An item that leaves the index while something of it is being sent stays until that is done. What
//! is kept like this, of no use to anybody but slow peers, may be a small part of the memory:
//! `outdated_excess_bytes` says by how much it is more.

use super::arena::{Item, Pin};
use super::participant::Participant;
use super::table::Table;
use crate::base::metrics::Metric;
use crate::base::sync::atomic::Ordering;
use crate::sys::region::Span;

/// The part of the memory that may be kept for peers alone.
const OUTDATED_SHARE: u64 = 16;

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
}

impl Participant {
    /// All of an item's value, which stays as it is until `give_back`. `None` when it does not lie
    /// in one piece, or too many are being sent it: then it can be copied.
    pub fn span_all(&self, item: &Item<'_>) -> Option<Span> {
        self.count_span(self.table.arena.span_all(item))
    }

    /// The next contiguous bytes of a pinned value from `offset` on, which stay as they are until
    /// `give_back`, whatever becomes of the pin.
    ///
    /// # Panics
    /// If the pin is of another table.
    pub fn span_of(&self, pin: &Pin, offset: usize) -> Option<Span> {
        self.count_span(self.table.arena.span_of(pin, offset))
    }

    fn count_span(&self, span: Option<Span>) -> Option<Span> {
        let span = span?;
        self.counters.bump(Metric::Spans);
        self.counters.add(Metric::SpannedBytes, span.len() as u64);
        Some(span)
    }

    /// Takes back what was spanned.
    ///
    /// # Panics
    /// If another table spanned it.
    pub fn give_back(&self, span: Span) {
        if self.table.arena.give_back(span) {
            self.table.note_unpin();
        }
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
