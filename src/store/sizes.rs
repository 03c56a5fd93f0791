//! Size classes: eight to a doubling, from 32 bytes to an eighth of a page, and every multiple of 8
//! where that is more.
//!
//! A slot is as large as the page allows for the number of slots that its class puts into one, so
//! that no page has a tail worth mentioning. An item too large for any slot becomes a chain of
//! fragments that all have one class. In the log a slot is as long as what it holds.

use super::arena::{HEADER_BYTES, Home, ItemHead, SLOT_ALIGN, Shape};
use crate::base::by_size::{SIZE_CLASSES_MAX, SizeClass};

const SLOT_BYTES_MIN: usize = 32;
/// Items of fewer units of 8 bytes than this are short.
pub const SHORT_UNITS: usize = 2048;
const CLASSES_PER_DOUBLING: usize = 8;
/// Up to here there is a class for every multiple of `SLOT_ALIGN`: an eighth of a doubling is less.
const SLOT_BYTES_FINE: usize = 2 * CLASSES_PER_DOUBLING * SLOT_ALIGN;
pub const SLOTS_PER_PAGE_MIN: u64 = CLASSES_PER_DOUBLING as u64;
/// So many numbers of slots are tried for an item that needs more than one.
const TRIES_MAX: usize = 4;
/// Units of 8 bytes that so many bytes take. No item is near the largest number.
#[inline(always)]
pub const fn units(bytes: usize) -> usize {
    (bytes + (SLOT_ALIGN - 1)) >> SLOT_ALIGN.trailing_zeros()
}

#[derive(Debug)]
pub struct Sizes {
    page_bytes: usize,
    /// Bytes of a slot, by class.
    slots: Box<[usize]>,
    /// The smallest class with slots of at least so many units of 8 bytes.
    by_units: Box<[SizeClass]>,
}

impl Sizes {
    pub fn new(page_bytes: usize) -> Sizes {
        let mut slots: Vec<usize> = Vec::new();
        let mut step = 1;
        let mut count = CLASSES_PER_DOUBLING;
        // From the largest slots to the smallest, by the number of them in a page.
        while page_bytes / count > SLOT_BYTES_FINE {
            let slot = page_bytes / count / SLOT_ALIGN * SLOT_ALIGN;
            if slots.last() != Some(&slot) {
                slots.push(slot);
            }
            count += step;
            if count == 2 * CLASSES_PER_DOUBLING * step {
                step *= 2;
            }
        }
        let fine = SLOT_BYTES_MIN / SLOT_ALIGN..=SLOT_BYTES_FINE / SLOT_ALIGN;
        slots.extend(fine.rev().map(|units| units * SLOT_ALIGN));
        slots.reverse();
        assert!(slots.len() <= SIZE_CLASSES_MAX);
        let units = slots[slots.len() - 1] / SLOT_ALIGN;
        let by_units = (0..=units)
            .map(|units| slots.partition_point(|slot| *slot < units * SLOT_ALIGN))
            .map(|class| SizeClass::new(u8::try_from(class).expect("at most 128 classes")))
            .collect();
        Sizes { page_bytes, slots: slots.into(), by_units }
    }

    pub fn classes(&self) -> usize {
        self.slots.len()
    }

    pub fn slot_bytes(&self, class: u8) -> usize {
        self.slots[usize::from(class)]
    }

    pub fn slots_per_page(&self, class: u8) -> u32 {
        u32::try_from(self.page_bytes / self.slot_bytes(class)).expect("pages are at most 2 MiB")
    }

    /// The class for a slot of `bytes`, or `None` if no slot is that large.
    fn class_for(&self, bytes: usize) -> Option<u8> {
        self.by_units.get(bytes.div_ceil(SLOT_ALIGN)).map(|class| class.to_u8())
    }

    /// The class for which an item of so many bytes counts, wherever it lies: the smallest of whose
    /// slots one would hold it, or the largest.
    #[inline(always)]
    pub fn counted_as(&self, bytes: usize) -> SizeClass {
        self.by_units[units(bytes).min(self.by_units.len() - 1)]
    }

    /// As `counted_as`, for items that are short, by the number of units.
    pub fn short(&self) -> [SizeClass; SHORT_UNITS] {
        std::array::from_fn(|units| self.counted_as(units * SLOT_ALIGN))
    }

    /// The slots of an item in a size class.
    pub(in crate::store) fn shape(&self, head: &ItemHead<'_>) -> Shape {
        let (bytes, slots) = self.cut(head);
        let fitting = |bytes| self.class_for(bytes).expect("the largest slot holds it");
        if slots == 1 {
            let class = fitting(bytes);
            let slot_bytes = self.slot_bytes(class);
            return Shape { home: Home::Class(class), slot_bytes, wide: false, slots };
        }
        // A few more slots than necessary may fit their class better.
        let total = head.bytes(true) + head.value_bytes;
        let shape = |slots: usize| {
            let class = fitting((total + (slots - 1) * HEADER_BYTES).div_ceil(slots));
            let slot_bytes = self.slot_bytes(class);
            let further = (total - slot_bytes.min(total)).div_ceil(slot_bytes - HEADER_BYTES);
            Shape { home: Home::Class(class), slot_bytes, wide: true, slots: further + 1 }
        };
        let tries = (slots..slots + TRIES_MAX).map(shape);
        tries.min_by_key(|shape| shape.slots * shape.slot_bytes).expect("at least one")
    }

    /// The slots of an item in the log, in this band.
    #[inline]
    pub(in crate::store) fn logged_shape(&self, head: &ItemHead<'_>, band: u8) -> Shape {
        let (bytes, slots) = self.cut(head);
        let slot_bytes = bytes.next_multiple_of(SLOT_ALIGN);
        Shape { home: Home::Log(band), slot_bytes, wide: slots > 1, slots }
    }

    /// How many bytes each slot of an item needs, and how many slots there are.
    #[inline]
    fn cut(&self, head: &ItemHead<'_>) -> (usize, usize) {
        let largest = self.slots[self.slots.len() - 1];
        let bytes = head.bytes(false) + head.value_bytes;
        if bytes <= largest {
            return (bytes, 1);
        }
        let total = head.bytes(true) + head.value_bytes;
        let further = (total - largest.min(total)).div_ceil(largest - HEADER_BYTES).max(1);
        ((total + further * HEADER_BYTES).div_ceil(further + 1), further + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Expiry;
    use crate::base::hash::KeyHash;

    fn head(value_bytes: usize) -> ItemHead<'static> {
        let (hash, expiry) = (KeyHash(0), Expiry::NEVER);
        ItemHead { key: b"a key of 20 bytes...", hash, flags: 0, expiry, value_bytes, cas: None }
    }

    #[test]
    fn slots_are_aligned_fill_their_page_and_grow_by_an_eighth() {
        for page_bytes in [64 << 10, 256 << 10, 2 << 20] {
            let sizes = Sizes::new(page_bytes);
            for class in 0..u8::try_from(sizes.classes()).unwrap() {
                let (slot, count) = (sizes.slot_bytes(class), sizes.slots_per_page(class) as usize);
                assert!(slot.is_multiple_of(SLOT_ALIGN));
                let tail = page_bytes - slot * count;
                assert!(tail < slot.min(count * SLOT_ALIGN), "{slot}: a tail of {tail}");
                if slot <= SLOT_BYTES_FINE {
                    assert_eq!(slot, SLOT_BYTES_MIN + usize::from(class) * SLOT_ALIGN);
                } else {
                    let below = sizes.slot_bytes(class - 1);
                    assert!(slot > below);
                    assert!(slot < below + below / 7 + SLOT_ALIGN, "{below} {slot}");
                }
            }
            assert_eq!(
                sizes.slot_bytes(u8::try_from(sizes.classes()).unwrap() - 1),
                page_bytes / 8
            );
        }
    }

    #[test]
    fn every_size_has_a_shape_that_holds_it() {
        let sizes = Sizes::new(64 << 10);
        for value_bytes in (0..20_000).chain([100_000, 1 << 20, 64 << 20]) {
            let head = head(value_bytes);
            let shape = sizes.shape(&head);
            let bytes = head.bytes(shape.wide) + value_bytes;
            if shape.wide {
                assert!(bytes > 8192);
                assert!(shape.slot_bytes > 8192 / 6, "not many more fragments than it takes");
            } else {
                assert!(shape.slot_bytes >= bytes);
                assert!(
                    shape.slot_bytes < bytes.max(24) + bytes / 7 + SLOT_ALIGN,
                    "{bytes}: {shape:?}"
                );
            }
        }
    }
}
