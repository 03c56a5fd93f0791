//! The ghost of a segment: fingerprints of the keys that were let go of lately.
//!
//! ```text
//!   line   | newest |  ...  | way 21 | ... not trusted ... | way 31 |     16 bits each, 0 = none
//! ```
//!
//! A key has one line; within it, what comes in pushes all others one way on, and the last one out.
//! Only as many ways are trusted as make the ghost one and a quarter times as long as the segment
//! has items, so that it follows the number of items, whatever their size. A longer one lets in too
//! much where all keys are wanted nearly alike, a shorter one forgets what is wanted now and then.
//!
//! The arithmetic: a segment is split with n = 0.951 x 7 entries a bucket, and has n / 2 then; on
//! average over its life that is 0.72 n. 46 of the 256 lines are the ghost: 1472 fingerprints, 1.46
//! times the mean of 1008 items, so that what is trusted fits until a segment is nearly full. Index
//! and ghost together take 16384 / 1398 x 1.4427 = 16.9 bytes an item, 3.0 of them for the ghost.
//!
//! A false positive takes one of at most 32 fingerprints of 16 bits: 1 in 2000. The bits of the
//! fingerprint choose neither the line nor, as long as a stripe has fewer than 2^16 segments, the
//! segment, and the stripe by far more bits than these.

use super::{Bucket, Segment};
use crate::base::hash::KeyHash;
use crate::base::sync::atomic::{AtomicU64, Ordering};

/// Fingerprints of a line.
const WAYS: usize = 32;

/// A line: the newest first. Relaxed everywhere: the lock of the stripe orders the writers, and who
/// looks without it takes a wrong answer for a slightly worse guess.
type Line = [u16; WAYS];

impl Segment<'_> {
    /// The line that a key's fingerprint is in, counted from the start of the segment. `None` if
    /// the segment is too small for a ghost.
    #[inline]
    pub fn ghost_line(self, hash: KeyHash) -> Option<usize> {
        let index = self.ghost_index(hash);
        (index < self.ghost().len()).then(|| self.first_ghost_line() + index)
    }

    #[inline]
    fn ghost_index(self, hash: KeyHash) -> usize {
        let [a, b, ..] = hash.0.to_le_bytes();
        (usize::from(u16::from_le_bytes([a, b])) * self.ghost().len()) >> 16
    }

    /// How many ways of a line are trusted.
    #[inline]
    fn ways(self) -> usize {
        let lines = self.ghost().len();
        ((5 * self.entries() + 2 * lines) / (4 * lines)).min(WAYS)
    }

    /// Remembers a key that is let go of. For writers.
    pub fn ghost_add(self, hash: KeyHash) {
        let Some(bucket) = self.ghost().get(self.ghost_index(hash)) else { return };
        let old = load(bucket);
        let mut new = [fingerprint(hash); WAYS];
        new[1..].copy_from_slice(&old[..WAYS - 1]);
        store(bucket, &new);
    }

    /// Forgets a key, if it is remembered. For writers.
    pub fn ghost_remove(self, hash: KeyHash) {
        let Some(bucket) = self.ghost().get(self.ghost_index(hash)) else { return };
        let mut line = load(bucket);
        if let Some(way) = line.iter().position(|each| *each == fingerprint(hash)) {
            line.copy_within(way + 1.., way);
            line[WAYS - 1] = 0;
            store(bucket, &line);
        }
    }

    /// True when the key was let go of lately, or seldom by chance. Anybody may call this; while
    /// somebody else writes, the answer may be wrong.
    #[inline]
    pub fn ghost_has(self, hash: KeyHash) -> bool {
        let Some(bucket) = self.ghost().get(self.ghost_index(hash)) else { return false };
        load(bucket)[..self.ways()].contains(&fingerprint(hash))
    }

    /// Both halves of a segment remember what it did: nobody knows whose a fingerprint is.
    pub(super) fn ghost_copy(self, other: Segment<'_>) {
        for (from, to) in self.ghost().iter().zip(other.ghost()) {
            store(to, &load(from));
        }
    }

    /// Takes over what another segment remembers, the newest of both first.
    pub(super) fn ghost_join(self, other: Segment<'_>) {
        for (to, from) in self.ghost().iter().zip(other.ghost()) {
            let pairs = load(to).into_iter().zip(load(from));
            let mut both =
                pairs.flat_map(|(mine, theirs)| [mine, theirs]).filter(|each| *each != 0);
            let line = std::array::from_fn(|_| both.next().unwrap_or(0));
            store(to, &line);
        }
    }
}

#[inline]
fn fingerprint(hash: KeyHash) -> u16 {
    let [_, _, _, _, a, b, ..] = hash.0.to_le_bytes();
    u16::from_le_bytes([a, b]).max(1)
}

#[inline]
fn words(bucket: &Bucket) -> impl Iterator<Item = &AtomicU64> {
    std::iter::once(&bucket.meta).chain(&bucket.entries)
}

#[inline]
fn load(bucket: &Bucket) -> Line {
    let mut line = [0; WAYS];
    for (ways, word) in line.chunks_exact_mut(4).zip(words(bucket)) {
        let [a, b, c, d, e, f, g, h] = word.load(Ordering::Relaxed).to_le_bytes();
        for (way, bytes) in ways.iter_mut().zip([[a, b], [c, d], [e, f], [g, h]]) {
            *way = u16::from_le_bytes(bytes);
        }
    }
    line
}

fn store(bucket: &Bucket, line: &Line) {
    for (ways, word) in line.chunks_exact(4).zip(words(bucket)) {
        let bits = ways.iter().rev().fold(0, |bits, way| bits << 16 | u64::from(*way));
        word.store(bits, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::base::hash::KeyHasher;
    use crate::base::sync::atomic::AtomicU32;
    use crate::store::index::{Owner, SEGMENT_BUCKETS};

    struct Memory {
        buckets: Vec<Bucket>,
        rolls: Vec<AtomicU32>,
    }

    impl Memory {
        fn new() -> Memory {
            let buckets = (0..2 * SEGMENT_BUCKETS).map(|_| Bucket::default()).collect();
            Memory { buckets, rolls: (0..4).map(|_| AtomicU32::new(0)).collect() }
        }

        /// A segment that says it has so many entries.
        fn segment(&self, number: u32, entries: u32) -> Segment<'_> {
            let start = number as usize * SEGMENT_BUCKETS;
            let buckets = &self.buckets[start..start + SEGMENT_BUCKETS];
            let segment = Segment::new(number, buckets, &self.rolls);
            segment.reset(Owner::of_stripe(0));
            segment.roll().set_entries(entries);
            segment
        }
    }

    fn hash(key: u64) -> KeyHash {
        static HASHER: LazyLock<KeyHasher> = LazyLock::new(|| KeyHasher::with_seed(3));
        HASHER.hash(&key.to_le_bytes())
    }

    /// Keys whose fingerprints are in the line of key 0.
    fn line_mates(segment: Segment<'_>) -> Vec<KeyHash> {
        let line = segment.ghost_line(hash(0));
        (0..).map(hash).filter(|hash| segment.ghost_line(*hash) == line).take(100).collect()
    }

    #[test]
    fn the_oldest_of_a_line_is_forgotten_first() {
        let memory = Memory::new();
        let segment = memory.segment(0, 2000);
        assert_eq!(segment.ghost().len(), 46);
        let keys = line_mates(segment);
        for (count, key) in keys.iter().enumerate() {
            segment.ghost_add(*key);
            for (index, each) in keys.iter().enumerate() {
                let is_there = index <= count && index + WAYS > count;
                assert_eq!(segment.ghost_has(*each), is_there, "{index} after {count}");
            }
        }
    }

    #[test]
    fn what_is_forgotten_leaves_no_gap() {
        let memory = Memory::new();
        let segment = memory.segment(0, 2000);
        let keys = &line_mates(segment)[..WAYS];
        keys.iter().for_each(|key| segment.ghost_add(*key));
        for key in &keys[10..20] {
            assert!(segment.ghost_has(*key));
            segment.ghost_remove(*key);
            assert!(!segment.ghost_has(*key));
        }
        segment.ghost_remove(keys[15]);
        segment.roll().set_entries(22 * 46 * 4 / 5);
        let kept = keys[..10].iter().chain(&keys[20..]);
        assert!(kept.clone().all(|key| segment.ghost_has(*key)));
    }

    #[test]
    fn it_is_trusted_as_far_as_there_are_items() {
        let memory = Memory::new();
        let segment = memory.segment(0, 2000);
        (0..10_000).for_each(|key| segment.ghost_add(hash(key)));
        for entries in [0, 100, 500, 900] {
            segment.roll().set_entries(entries);
            let known = (0..10_000).filter(|key| segment.ghost_has(hash(*key))).count();
            let wanted = 1.25 * f64::from(entries);
            let known = known as f64;
            assert!(known >= wanted - 23.0 && known <= wanted * 1.05 + 28.0, "{entries}: {known}");
        }
    }

    #[test]
    fn it_is_seldom_wrong() {
        let memory = Memory::new();
        let segment = memory.segment(0, 2000);
        (0..10_000).for_each(|key| segment.ghost_add(hash(key)));
        let wrong = (10_000..410_000).filter(|key| segment.ghost_has(hash(*key))).count();
        // 32 of 2^16: 195 of 400,000.
        assert!((130..260).contains(&wrong), "{wrong}");
    }

    #[test]
    fn both_halves_remember_and_a_merged_one_remembers_the_newest_of_both() {
        let memory = Memory::new();
        let (one, two) = (memory.segment(0, 2000), memory.segment(1, 2000));
        let keys = line_mates(one);
        keys[..40].iter().for_each(|key| one.ghost_add(*key));
        one.ghost_copy(two);
        assert!(keys[8..40].iter().all(|key| one.ghost_has(*key) && two.ghost_has(*key)));
        keys[40..60].iter().for_each(|key| one.ghost_add(*key));
        keys[60..80].iter().for_each(|key| two.ghost_add(*key));
        one.ghost_join(two);
        let newest = keys[44..60].iter().chain(&keys[64..80]);
        assert!(newest.clone().all(|key| one.ghost_has(*key)));
        assert!(keys[..44].iter().all(|key| !one.ghost_has(*key)));
    }
}
