//! The index: which item a hash leads to. It knows references and hashes, but no item.
//!
//! ```text
//!   hash   63 .... stripe .... 40 | 39 ....... tag ....... 16 | 15 .. home bucket .. 0
//!                   47 .. fingerprint .. 32                     15 .. ghost line ... 0
//!   entry  63 ...... tag ...... 40 | 39 kind 38 | 37 ........... ref ........... 0     0 = empty
//! ```
//!
//! Each stripe is a table of its own, by extendible hashing: a directory, indexed by the low bits
//! of the tag, of segments of buckets. One segment at a time is split, merged with its buddy or
//! moved; nothing else moves, ever. Each segment ends with a ghost: fingerprints of keys that were
//! there lately.

mod directory;
mod ghost;
mod pool;
mod roll;
mod segment;
mod shares;

pub(in crate::store) use directory::{Directory, Split};
pub(in crate::store) use pool::{SegmentPool, Used};
pub(in crate::store) use roll::{Owner, ROLL_WORDS};
pub(in crate::store) use segment::{Glance, Place, Segment};
pub(in crate::store) use shares::stripe_of;

use super::arena::Ref;
use crate::base::hash::KeyHash;
use crate::base::sync::atomic::AtomicU64;

/// Entries of a bucket.
pub const BUCKET_ENTRIES: usize = 7;
/// Lines of a segment: home buckets, the stash, and the ghost.
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
///
/// ```text
///   meta of a home   47 .. stash buckets with entries of this home .. 32
///                    31 .. entries of this home in their other bucket .. 16
///                    6 .. entries here that are in their other bucket .. 0
///   meta of a stash  byte i: the home of entry i
/// ```
///
/// A line of the ghost is 32 fingerprints.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Bucket {
    meta: AtomicU64,
    entries: [AtomicU64; BUCKET_ENTRIES],
}

/// What one place of a bucket holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(u64);

impl Entry {
    pub(in crate::store) const EMPTY: Entry = Entry(0);

    #[inline]
    pub(in crate::store) fn new(tag: Tag, at: Ref) -> Entry {
        Entry((u64::from(tag.0) << TAG_SHIFT) | (KIND_ITEM << KIND_SHIFT) | at.bits())
    }

    #[inline]
    fn has_tag(self, tag: Tag) -> bool {
        // What is left of a word that begins alike is its ref.
        self.0 ^ Entry::new(tag, Ref::NONE).0 <= REF_MASK
    }

    pub(in crate::store) fn tag(self) -> Tag {
        let [_, _, _, _, _, a, b, c] = self.0.to_le_bytes();
        Tag(u32::from_le_bytes([a, b, c, 0]))
    }

    pub(in crate::store) fn at(self) -> Ref {
        Ref::from_bits(self.0 & REF_MASK)
    }
}

/// The bits of a hash that tell the keys of a bucket apart, and choose the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(u32);

impl Tag {
    #[inline]
    pub fn of(hash: KeyHash) -> Tag {
        let [_, _, a, b, c, ..] = hash.0.to_le_bytes();
        Tag(u32::from_le_bytes([a, b, c, 0]))
    }

    pub fn low_bits(self, bits: u32) -> u32 {
        self.0 & ((1 << bits) - 1)
    }

    /// Its bits in reverse: tags of one segment are a run of neighbours then.
    pub fn turned(self) -> u64 {
        u64::from(self.0.reverse_bits() >> (u32::BITS - TAG_BITS))
    }

    /// The tag whose bits these are in reverse.
    pub fn turned_back(turned: u64) -> Tag {
        let [a, b, c, ..] = turned.to_le_bytes();
        Tag(u32::from_le_bytes([0, a, b, c]).reverse_bits())
    }

    fn bit(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }
}
