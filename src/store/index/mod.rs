//! The index: which item a hash leads to. It knows references and hashes, but no item.
//!
//! ```text
//!   hash   63 ... stripe ... | 24 bits of tag           | ...      | 15 .. home bucket .. 0
//!   entry  63 ...... tag ...... 40 | 39 kind 38 | 37 ........... ref ........... 0     0 = empty
//! ```
//!
//! Each stripe is a table of its own, by extendible hashing: a directory, indexed by the low bits
//! of the tag, of segments of buckets. One segment at a time is split; nothing else moves, ever.

mod directory;
mod segment;

pub(in crate::store) use directory::{Directory, Split};
pub(in crate::store) use segment::{Place, Segment};

use super::arena::Ref;
use crate::base::hash::KeyHash;
use crate::base::sync::atomic::AtomicU64;

/// Entries of a bucket.
pub const BUCKET_ENTRIES: usize = 7;
/// Buckets of a segment; one in 16 is a stash for the others.
pub const SEGMENT_BUCKETS: usize = 256;
/// Bytes of a segment in memory.
pub const SEGMENT_BYTES: usize = SEGMENT_BUCKETS * 64;
/// Tags have so many bits, and a directory is indexed by at most as many.
pub const TAG_BITS: u32 = 24;

const REF_MASK: u64 = (1 << Ref::BITS) - 1;
const KIND_SHIFT: u32 = Ref::BITS;
const TAG_SHIFT: u32 = 40;
/// The kind of an entry that refers to an item; 0 is no entry.
const KIND_ITEM: u64 = 1;

/// One cache line of the index.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Bucket {
    /// Of a home bucket: how many of its entries are in the stash. Of a stash bucket: byte i is the
    /// home of entry i; byte 7 of the last one is the segment's depth.
    meta: AtomicU64,
    entries: [AtomicU64; BUCKET_ENTRIES],
}

/// What one place of a bucket holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(u64);

impl Entry {
    pub(in crate::store) const EMPTY: Entry = Entry(0);

    pub(in crate::store) fn new(tag: Tag, at: Ref) -> Entry {
        Entry((u64::from(tag.0) << TAG_SHIFT) | (KIND_ITEM << KIND_SHIFT) | at.bits())
    }

    #[inline]
    fn has_tag(self, tag: Tag) -> bool {
        self.0 >> KIND_SHIFT == (u64::from(tag.0) << (TAG_SHIFT - KIND_SHIFT)) | KIND_ITEM
    }

    fn tag_bit(self, bit: u32) -> bool {
        self.0 >> (TAG_SHIFT + bit) & 1 == 1
    }

    pub(in crate::store) fn at(self) -> Ref {
        Ref::from_bits(self.0 & REF_MASK)
    }
}

/// The bits of a hash below those that choose the stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(u32);

impl Tag {
    /// The tag of a key whose stripe is chosen by the top `stripe_bits` of its hash.
    #[inline]
    pub fn of(hash: KeyHash, stripe_bits: u32) -> Tag {
        let [a, b, c, d, ..] = (hash.0 << stripe_bits >> (64 - TAG_BITS)).to_le_bytes();
        Tag(u32::from_le_bytes([a, b, c, d]))
    }

    pub fn low_bits(self, bits: u32) -> u32 {
        self.0 & ((1 << bits) - 1)
    }
}
