//! Pins: items that stay readable across grace periods, because the kernel sends from them.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use super::header::{PINS_MAX, Word0};
use super::{Arena, Item, Keep, Keeper, Ref};

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

impl Pin {
    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }
}

impl Arena {
    /// Pins an item; `None` when it has as many pins as it can count.
    pub(in crate::store) fn pin(&self, item: &Item<'_>) -> Option<Pin> {
        let word = self.word0(item.at());
        let mut seen = Word0(word.load(Ordering::Relaxed));
        while seen.pins() < PINS_MAX {
            // Acquire, Release: the pin counts before the reader's grace period can end.
            match word.compare_exchange_weak(
                seen.0,
                seen.0 + 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    let (head, value_bytes) = (item.at(), item.value_bytes());
                    let cursor = Cell::new((head, 0));
                    return Some(Pin { arena: self.id, head, value_bytes, cursor });
                }
                Err(now) => seen = Word0(now),
            }
        }
        None
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

    pub(in crate::store) fn unpin(&self, pin: Pin) {
        assert!(pin.arena == self.id);
        // Release: our last read comes before the slot is freed.
        let before = self.word0(pin.head).fetch_sub(1, Ordering::Release);
        assert!(Word0(before).pins() > 0);
    }
}
