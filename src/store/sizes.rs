//! Size classes: eight to a doubling, from 32 bytes to an eighth of a page, and every multiple of 8
//! where that is more.
//!
//! A slot is as large as the page allows for the number of slots that its class puts into one, so
//! that no page has a tail worth mentioning. An item too large for any slot becomes a chain of
//! fragments that all have one class.

use super::arena::{HEADER_BYTES, ItemHead, SLOT_ALIGN, Shape};

const SLOT_BYTES_MIN: usize = 32;
const CLASSES_PER_DOUBLING: usize = 8;
/// Up to here there is a class for every multiple of `SLOT_ALIGN`: an eighth of a doubling is less.
const SLOT_BYTES_FINE: usize = 2 * CLASSES_PER_DOUBLING * SLOT_ALIGN;
const SLOTS_PER_PAGE_MIN: usize = CLASSES_PER_DOUBLING;
/// More classes than any page size leads to.
pub const CLASSES_MAX: usize = 128;

#[derive(Debug)]
pub struct Sizes {
    page_bytes: usize,
    /// Bytes of a slot, by class.
    slots: Box<[usize]>,
    /// The smallest class with slots of at least so many units of 8 bytes.
    by_units: Box<[u8]>,
}

impl Sizes {
    pub fn new(page_bytes: usize) -> Sizes {
        let mut slots: Vec<usize> = Vec::new();
        let mut step = 1;
        let mut count = SLOTS_PER_PAGE_MIN;
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
        assert!(slots.len() <= CLASSES_MAX);
        let units = slots[slots.len() - 1] / SLOT_ALIGN;
        let by_units = (0..=units)
            .map(|units| slots.partition_point(|slot| *slot < units * SLOT_ALIGN))
            .map(|class| u8::try_from(class).expect("at most 128 classes"))
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
        self.by_units.get(bytes.div_ceil(SLOT_ALIGN)).copied()
    }

    /// Where an item goes.
    pub(in crate::store) fn shape(&self, head: &ItemHead<'_>) -> Shape {
        if let Some(class) = self.class_for(head.bytes(false) + head.value_bytes) {
            return Shape { class, slot_bytes: self.slot_bytes(class), wide: false };
        }
        let total = head.bytes(true) + head.value_bytes;
        let largest = self.slots[self.slots.len() - 1];
        let further = (total - largest.min(total)).div_ceil(largest - HEADER_BYTES);
        let each = (total + further * HEADER_BYTES).div_ceil(further + 1);
        let class = self.class_for(each).expect("the largest slot holds it by construction");
        Shape { class, slot_bytes: self.slot_bytes(class), wide: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Expiry;
    use crate::base::hash::KeyHash;

    fn head(value_bytes: usize) -> ItemHead<'static> {
        let (hash, expiry) = (KeyHash(0), Expiry::NEVER);
        ItemHead { key: b"a key of 20 bytes...", hash, flags: 0, expiry, value_bytes }
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
                assert!(shape.slot_bytes > 8192 / 3, "fragments are about as large as can be");
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
