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

/// What a pin was when it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Taken {
    /// The only one of its item.
    First,
    Further,
}

/// What became of an item when a pin on it was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Released {
    /// Others are left.
    Pinned,
    /// It has none; the index has let it go, or has not. Its bytes are told, and whether it lies in
    /// the log.
    Last { retired: bool, bytes: u64, in_log: bool },
}

/// A span holds a pin.
impl Keeper for Span {}

impl Pin {
    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }
}

impl Item<'_> {
    /// True when something of it was being sent when it was looked at.
    pub(in crate::store) fn is_pinned(&self) -> bool {
        self.word0().pins() > 0
    }
}

impl Arena {
    /// Pins an item; `None` when it has as many pins as it can count.
    pub(in crate::store) fn pin(&self, item: &Item<'_>) -> Option<(Pin, Taken)> {
        let taken = self.pin_below(PINS_MAX, item.at())?;
        let (head, value_bytes) = (item.at(), item.value_bytes());
        let cursor = Cell::new((head, 0));
        Some((Pin { arena: self.id, head, value_bytes, cursor }, taken))
    }

    /// Adds a pin to those of an item that stays where it is meanwhile, if it has less than so
    /// many.
    fn pin_below(&self, limit: u64, head: Ref) -> Option<Taken> {
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
                Ok(_) if seen.pins() == 0 => return Some(Taken::First),
                Ok(_) => return Some(Taken::Further),
                Err(now) => seen = Word0(now),
            }
        }
        None
    }

    /// All of an item's value, if it lies in one piece and may have one more pin, which goes with
    /// it.
    pub(in crate::store) fn span_all(&self, item: &Item<'_>) -> Option<(Span, Taken)> {
        self.span(item.at(), item.value()?)
    }

    /// As `pinned`, with a pin of its own. `None` when the item may have no more of them.
    pub(in crate::store) fn span_of(&self, pin: &Pin, offset: usize) -> Option<Span> {
        let (span, taken) = self.span(pin.head, self.pinned(pin, offset))?;
        debug_assert!(taken == Taken::Further);
        Some(span)
    }

    fn offset_of_run(&self, run: &[u8]) -> usize {
        run.as_ptr().addr() - self.region.at(0).addr().get()
    }

    /// A run of the value of an item.
    fn span(&self, head: Ref, run: &[u8]) -> Option<(Span, Taken)> {
        if run.is_empty() {
            return None;
        }
        let taken = self.pin_below(PINS_OF_SPANS_MAX, head)?;
        let offset = self.offset_of_run(run);
        // SAFETY: a published value does not change (S3), and is kept by the pin that was just
        // taken, until `give_back`.
        Some((unsafe { Span::of(self.region, offset, run.len(), head.bits()) }, taken))
    }

    /// Takes back what was spanned.
    ///
    /// # Panics
    /// If the span is of another arena.
    pub(in crate::store) fn give_back(&self, span: Span) -> Released {
        let note = span.note_in(self.region).expect("a span came home to a foreign arena");
        // Up to now the kernel may have read.
        #[cfg(loom)]
        self.watch.bytes(self.offset_of_run(span.bytes())).read();
        let head = Ref::from_bits(note);
        let bytes = self.view(head, self.look(head), Keep::by(&span)).item_bytes();
        self.release_pin(head, bytes)
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

    /// Takes a pin back.
    pub(in crate::store) fn unpin(&self, pin: Pin) -> Released {
        assert!(pin.arena == self.id);
        let bytes = self.view(pin.head, self.look(pin.head), Keep::by(&pin)).item_bytes();
        self.release_pin(pin.head, bytes)
    }

    /// Takes a pin of an item of so many bytes back: they cannot be looked for afterwards.
    fn release_pin(&self, head: Ref, bytes: u64) -> Released {
        // Release: our last read comes before the slot is freed.
        let before = Word0(self.word0(head).fetch_sub(1, Ordering::Release));
        assert!(before.pins() > 0);
        if before.pins() > 1 {
            return Released::Pinned;
        }
        let (retired, in_log) = (before.state() == State::Retired, !before.is_main());
        Released::Last { retired, bytes, in_log }
    }
}
