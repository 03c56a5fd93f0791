//! What is known of each segment outside of it: whose it is, and how full.
//!
//! ```text
//!   word 0   31 owned | 28 .. depth .. 24 | 23 ...... prefix ...... 0
//!   word 1   31 ....... stripe ....... 16 | 15 ...... entries ..... 0
//! ```
//!
//! Two words a segment, all segments side by side: upkeep goes through them, and an insertion
//! counts here, without a cache line that would have to be fetched from the segment. The lock of
//! the stripe guards them; anybody may look, and is told what was true lately.

use super::{TAG_BITS, Tag};
use crate::base::sync::atomic::{AtomicU32, Ordering};

/// Words of a segment.
pub const ROLL_WORDS: usize = 2;

const OWNED: u32 = 1 << 31;
const DEPTH_SHIFT: u32 = 24;
const DEPTH_MASK: u32 = 31;
const STRIPE_SHIFT: u32 = 16;
const ENTRIES_MASK: u32 = (1 << STRIPE_SHIFT) - 1;

/// Which keys a segment is for: those of a stripe whose tag ends with the `depth` bits of `prefix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub stripe: u16,
    pub prefix: u32,
    pub depth: u8,
}

impl Owner {
    /// The first segment of a stripe.
    pub fn of_stripe(stripe: u16) -> Owner {
        Owner { stripe, prefix: 0, depth: 0 }
    }

    /// What is left for each segment of the two that this one is split into.
    pub fn halves(self) -> [Owner; 2] {
        let depth = self.depth + 1;
        let upper = self.prefix | 1 << self.depth;
        [Owner { depth, ..self }, Owner { depth, prefix: upper, ..self }]
    }

    /// The one that this one and its buddy are halves of.
    pub fn parent(self) -> Option<Owner> {
        let depth = self.depth.checked_sub(1)?;
        Some(Owner { depth, prefix: self.prefix & !(1 << depth), ..self })
    }

    /// The first of all tags, with their bits in reverse, behind those of this segment; `None` when
    /// there is none.
    pub fn turned_end(self) -> Option<u64> {
        let end = self.tag().turned() + (1 << (TAG_BITS - u32::from(self.depth)));
        (end < 1 << TAG_BITS).then_some(end)
    }

    /// Some tag of this segment.
    pub fn tag(self) -> Tag {
        Tag(self.prefix)
    }
}

/// The words of one segment.
#[derive(Clone, Copy, Debug)]
pub struct Roll<'r> {
    words: &'r [AtomicU32],
}

impl<'r> Roll<'r> {
    pub fn new(rolls: &'r [AtomicU32], segment: u32) -> Roll<'r> {
        let start = segment as usize * ROLL_WORDS;
        Roll { words: &rolls[start..start + ROLL_WORDS] }
    }

    // Relaxed, here and below: the lock orders, and who looks without it asks again with it.
    fn word(self, index: usize) -> u32 {
        self.words[index].load(Ordering::Relaxed)
    }

    /// Whose the segment is; `None` while nobody finds it through a directory.
    pub fn owner(self) -> Option<Owner> {
        let (word, tally) = (self.word(0), self.word(1));
        let [_, _, a, b] = tally.to_le_bytes();
        let [.., depth] = (word & DEPTH_MASK << DEPTH_SHIFT).to_le_bytes();
        let prefix = word & ((1 << DEPTH_SHIFT) - 1);
        (word & OWNED != 0).then_some(Owner { stripe: u16::from_le_bytes([a, b]), prefix, depth })
    }

    pub fn set_owner(self, owner: Owner) {
        let tally = u32::from(owner.stripe) << STRIPE_SHIFT | self.entries();
        self.words[1].store(tally, Ordering::Relaxed);
        let word = OWNED | u32::from(owner.depth) << DEPTH_SHIFT | owner.prefix;
        self.words[0].store(word, Ordering::Relaxed);
    }

    /// Nobody finds the segment any more, or nobody does yet.
    pub fn disown(self) {
        self.words[0].store(0, Ordering::Relaxed);
    }

    #[inline]
    pub fn entries(self) -> u32 {
        self.word(1) & ENTRIES_MASK
    }

    pub fn set_entries(self, entries: u32) {
        self.words[1].store(self.word(1) & !ENTRIES_MASK | entries, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_touch_each_other() {
        let words: Vec<AtomicU32> = (0..6).map(|_| AtomicU32::new(0)).collect();
        let roll = Roll::new(&words, 1);
        assert_eq!(roll.owner(), None);
        let owner = Owner { stripe: 4095, prefix: 0xab_cdef, depth: 24 };
        roll.set_entries(1470);
        roll.set_owner(owner);
        assert_eq!((roll.owner(), roll.entries()), (Some(owner), 1470));
        roll.set_entries(0);
        assert_eq!((roll.owner(), roll.entries()), (Some(owner), 0));
        roll.disown();
        assert_eq!(roll.owner(), None);
        assert_eq!((Roll::new(&words, 0).owner(), Roll::new(&words, 2).owner()), (None, None));
    }

    #[test]
    fn halves_have_their_parent() {
        let owner = Owner { stripe: 3, prefix: 0b101, depth: 3 };
        let [lower, upper] = owner.halves();
        assert_eq!((lower.prefix, upper.prefix, upper.depth), (0b101, 0b1101, 4));
        assert_eq!((lower.parent(), upper.parent()), (Some(owner), Some(owner)));
        assert_eq!(Owner::of_stripe(1).parent(), None);
    }
}
