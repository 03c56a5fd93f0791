//! Pins: items that stay readable across grace periods, because the kernel sends from them.
//!
//! ```text
//!   Item --pin--> Pin --span--> Span --> the kernel --> give_back
//!     +--------------span_all---^        each holds the item by itself
//! ```

use std::cell::Cell;
use std::sync::atomic::Ordering;

use super::header::{PINS_MAX, Word0};
use super::{Arena, Item, Keep, Keeper, Ref, State};
use crate::sys::region::Span;

/// From so many pins on an item gets none for spans: it can still be copied from.
const PINS_OF_SPANS_MAX: u64 = PINS_MAX / 2;

/// One pin on one item. It must be given back to `Participant::unpin`, or the item stays for ever.
#[derive(Debug)]
#[must_use = "a dropped pin keeps its item for ever"]
pub struct Pin {
    arena: u32,
    head: Ref,
    value_bytes: usize,
    /// A slot of the item, and the offset in the value at which it begins: where the last look was.
    cursor: Cell<(Ref, usize)>,
}

impl Keeper for Pin {}

/// A span holds a pin.
impl Keeper for Span {}

impl Pin {
    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }
}

impl Arena {
    /// Pins an item; `None` when it has as many pins as it can count.
    pub(in crate::store) fn pin(&self, item: &Item<'_>) -> Option<Pin> {
        self.pin_below(PINS_MAX, item.at()).then(|| {
            let (head, value_bytes) = (item.at(), item.value_bytes());
            Pin { arena: self.id, head, value_bytes, cursor: Cell::new((head, 0)) }
        })
    }

    /// Adds a pin to those of an item that stays where it is meanwhile, if it has less than so
    /// many.
    fn pin_below(&self, limit: u64, head: Ref) -> bool {
        let word = self.word0(head);
        let mut seen = Word0(word.load(Ordering::Relaxed));
        while seen.pins() < limit {
            // Acquire, Release: the pin counts before the reader's grace period can end.
            match word.compare_exchange_weak(
                seen.0,
                seen.0 + 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => seen = Word0(now),
            }
        }
        false
    }

    /// All of an item's value, if it lies in one piece and may have one more pin, which goes with
    /// it.
    pub(in crate::store) fn span_all(&self, item: &Item<'_>) -> Option<Span> {
        self.span(item.at(), item.value()?)
    }

    /// As `pinned`, with a pin of its own. `None` when the item may have no more of them.
    pub(in crate::store) fn span_of(&self, pin: &Pin, offset: usize) -> Option<Span> {
        self.span(pin.head, self.pinned(pin, offset))
    }

    fn offset_of_run(&self, run: &[u8]) -> usize {
        run.as_ptr().addr() - self.region.at(0).addr().get()
    }

    /// A run of the value of an item.
    fn span(&self, head: Ref, run: &[u8]) -> Option<Span> {
        if run.is_empty() || !self.pin_below(PINS_OF_SPANS_MAX, head) {
            return None;
        }
        let offset = self.offset_of_run(run);
        // SAFETY: a published value does not change (S3), and is kept by the pin that was just
        // taken, until `give_back`.
        Some(unsafe { Span::of(self.region, offset, run.len(), head.bits()) })
    }

    /// Takes back what was spanned. True when that was the last pin of an item which the index has
    /// let go.
    ///
    /// # Panics
    /// If the span is of another arena.
    pub(in crate::store) fn give_back(&self, span: Span) -> bool {
        let note = span.note_in(self.region).expect("a span came home to a foreign arena");
        // Up to now the kernel may have read.
        #[cfg(loom)]
        self.watch.bytes(self.offset_of_run(span.bytes())).read();
        self.release_pin(Ref::from_bits(note))
    }

    /// Bytes that only spans and pins like this one keep: its item is in the index no more.
    pub(in crate::store) fn outdated_bytes(&self, span: &Span) -> usize {
        let head = Ref::from_bits(span.note());
        if self.look(head).state() == State::Live {
            return 0;
        }
        self.view(head, self.look(head), Keep::by(span)).value_bytes()
    }

    /// True when the index has let the item go.
    pub(in crate::store) fn is_outdated(&self, pin: &Pin) -> bool {
        self.look(pin.head).state() != State::Live
    }

    /// The next contiguous bytes of a pinned value from `offset` on; empty at its end.
    ///
    /// # Panics
    /// If the pin is of another arena.
    pub(in crate::store) fn pinned<'a>(&'a self, pin: &'a Pin, offset: usize) -> &'a [u8] {
        assert!(pin.arena == self.id);
        let item = self.view(pin.head, self.look(pin.head), Keep::by(pin));
        let (mut at, mut start) = pin.cursor.get();
        if start > offset {
            (at, start) = (pin.head, 0);
        }
        if offset >= pin.value_bytes {
            return &[];
        }
        loop {
            let (run, next) = item.run_at(at, pin.value_bytes - start);
            if offset < start + run.len() {
                pin.cursor.set((at, start));
                return &run[offset - start..];
            }
            (at, start) = (next, start + run.len());
        }
    }

    /// Takes a pin back. True when it was the last one of an item which the index has let go.
    pub(in crate::store) fn unpin(&self, pin: Pin) -> bool {
        assert!(pin.arena == self.id);
        self.release_pin(pin.head)
    }

    fn release_pin(&self, head: Ref) -> bool {
        // Release: our last read comes before the slot is freed.
        let before = Word0(self.word0(head).fetch_sub(1, Ordering::Release));
        assert!(before.pins() > 0);
        before.pins() == 1 && before.state() == State::Retired
    }
}
